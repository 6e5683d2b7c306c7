//! JSON by hand, for what is written often: strings, numbers, and raw values on one line. And the
//! shapes that serde cannot be told to read.

mod read;

pub use read::{Object, Safe, Text, present};

/// Appends `text` as a JSON string.
pub fn push_str(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[clean_from..at]);
        clean_from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[clean_from..]);
    out.push(b'"');
}

/// Appends a whole number.
pub fn push_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // The remainder is below ten.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a whole number that may be negative.
pub fn push_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_u64(out, number.unsigned_abs());
}

/// Appends a JSON value as it is, except for its raw newlines.
///
/// A raw newline in valid JSON is space between tokens, since strings hold no control characters, so
/// taking it away never changes the value. Carriage returns go too: they end lines for an
/// EventSource.
pub fn push_raw(out: &mut Vec<u8>, value: &[u8]) {
    if is_one_line(value) {
        out.extend_from_slice(value);
    } else {
        out.extend(
            value
                .iter()
                .copied()
                .filter(|byte| !matches!(byte, b'\n' | b'\r')),
        );
    }
}

/// A JSON value without raw newlines, as [`push_raw`] writes it; `None` if it has none (the common
/// case: nothing is copied).
pub fn without_newlines(value: &str) -> Option<String> {
    (!is_one_line(value.as_bytes())).then(|| value.replace(['\n', '\r'], ""))
}

/// Whether there is no raw newline.
pub fn is_one_line(value: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', value).is_none()
}
