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

/// Whether a valid JSON value has more than `most` arrays and objects within each other.
///
/// Without recursion, and mostly without looking at the structure: a value that has no more than
/// `most` opening brackets anywhere, in strings or not, cannot be that deep.
pub fn is_deeper_than(value: &[u8], most: usize) -> bool {
    value.len() > most && opening_brackets(value) > most && depth_exceeds(value, most)
}

/// In a form that compilers turn into vector instructions: no branch, and counters as wide as what
/// they count.
fn opening_brackets(value: &[u8]) -> usize {
    let count = |chunk: &[u8]| chunk.iter().map(|&byte| u8::from(is_opening(byte))).sum::<u8>();
    value.chunks(255).map(|chunk| usize::from(count(chunk))).sum()
}

fn depth_exceeds(value: &[u8], most: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            byte if is_opening(byte) => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Goes behind the quote that ends a string.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return,
            // What is escaped ends nothing.
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// `[` and `{` differ in one bit, which no other byte shares with them.
fn is_opening(byte: u8) -> bool {
    byte | 0x20 == b'{'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            r#"[\[\]{}"\\a]{0,6}"#.prop_map(Value::from)
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(r#"[\[{"\\]{0,3}"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn brackets_in_strings_and_beside_each_other_are_not_depth() {
        for (value, depth) in [
            ("1", 0),
            (r#""[[[[""#, 0),
            (r#""\"[[[""#, 0),
            (r#"["\\",[1]]"#, 2),
            ("[[],[],[],[]]", 2),
            (r#"{"{{":{"[[":[]}}"#, 3),
            (&format!("[{}]", vec!["[]"; 1_000].join(",")), 2),
            (&format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)), 20_000),
        ] {
            assert!(!is_deeper_than(value.as_bytes(), depth), "{value:.60}");
            if depth > 0 {
                assert!(is_deeper_than(value.as_bytes(), depth - 1), "{value:.60}");
            }
        }
    }

    proptest! {
        #[test]
        fn depth_is_what_a_parser_sees(value in any_value(), most in 0..8_usize) {
            let text = value.to_string();
            prop_assert_eq!(is_deeper_than(text.as_bytes(), most), depth(&value) > most);
        }
    }
}
