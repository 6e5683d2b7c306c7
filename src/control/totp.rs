//! The second factor: one-time codes by time (RFC 6238: SHA-1, 6 digits, 30 s) and recovery codes.

use std::fmt::Write;

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};

use super::hash;
use crate::config::Secret;

/// How long a code is shown, seconds.
const PERIOD: i64 = 30;
const DIGITS: u32 = 6;
/// How many steps a clock may be off, in both directions.
const WINDOW: i64 = 1;
/// Bytes of a seed: as many as the hash has (RFC 4226, section 4).
const SEED: usize = 20;
/// How many recovery codes there are.
pub const RECOVERY_CODES: usize = 10;
/// RFC 4648, section 6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why a code is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a code of this time.
    Wrong,
    /// It, or a later one, was used.
    Used,
}

/// A new seed. `None` if there is no randomness.
pub fn seed() -> Option<[u8; SEED]> {
    let mut seed = [0_u8; SEED];
    rand::fill(&mut seed).ok()?;
    Some(seed)
}

/// The step that codes accepted at `now_ms` are of, if nothing has been used after `last`: which must be kept
/// as the last one then.
///
/// # Errors
///
/// See [`Refused`].
pub fn accept(seed: &[u8], code: &str, now_ms: i64, last: Option<i64>) -> Result<i64, Refused> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let now = now_ms.div_euclid(1000 * PERIOD);
    let mut found = None;
    // All are compared, so that the time does not tell which one it was.
    for step in now - WINDOW..=now + WINDOW {
        let right = code_at(seed, step, DIGITS);
        if verify_slices_are_equal(right.as_bytes(), code.as_bytes()).is_ok() {
            found = Some(step);
        }
    }
    match found {
        None => Err(Refused::Wrong),
        Some(step) if last.is_some_and(|last| step <= last) => Err(Refused::Used),
        Some(step) => Ok(step),
    }
}

/// The code of a step (RFC 4226, section 5.3).
pub(super) fn code_at(seed: &[u8], step: i64, digits: u32) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, seed);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag[tag.len() - 1] & 15);
    let number = tag[offset..offset + 4]
        .iter()
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let code = (number & 0x7fff_ffff) % 10_u32.pow(digits);
    format!("{code:0width$}", width = digits as usize)
}

/// `bytes` in base32 without padding: how people type a seed.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(BASE32[(bits >> count & 31) as usize]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(BASE32[(bits << (5 - count) & 31) as usize]));
    }
    text
}

/// What an authenticator reads as a QR code.
pub fn otpauth_url(issuer: &str, account: &str, seed: &[u8]) -> Secret {
    let (issuer, account) = (percent(issuer), percent(account));
    let secret = base32(seed);
    Secret::new(format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period=30"
    ))
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// New recovery codes, for the one time that they are shown, and their hashes. 80 bits each, so that a plain
/// hash keeps them secret. `None` if there is no randomness.
pub fn recovery_codes() -> Option<(Vec<Secret>, Vec<String>)> {
    let mut codes = Vec::new();
    for _ in 0..RECOVERY_CODES {
        let mut bytes = [0_u8; 10];
        rand::fill(&mut bytes).ok()?;
        let text = base32(&bytes);
        let groups: Vec<&str> = (0..text.len()).step_by(4).map(|at| &text[at..at + 4]).collect();
        codes.push(groups.join("-"));
    }
    let hashes = codes.iter().map(|code| hash::hash(&plain(code))).collect();
    Some((codes.into_iter().map(Secret::new).collect(), hashes))
}

/// Takes `code` out of the `hashes` of those that are left. False if it is not among them.
pub fn spend(hashes: &mut Vec<String>, code: &str) -> bool {
    let hash = hash::hash(&plain(code));
    let found = hashes.iter().position(|known| hash::same(known, &hash));
    found.map(|at| hashes.swap_remove(at)).is_some()
}

/// As people may type it: in lower case, with or without groups.
fn plain(code: &str) -> String {
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &[u8] = b"12345678901234567890";

    /// RFC 6238, appendix B.
    #[test]
    fn vectors_of_the_rfc() {
        for (seconds, code) in [
            (59_i64, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code_at(RFC, seconds / PERIOD, 8), code, "{seconds}");
            assert_eq!(
                accept(RFC, &code[2..], seconds * 1000, None),
                Ok(seconds / PERIOD),
                "{seconds}"
            );
        }
    }

    /// RFC 4226, appendix D.
    #[test]
    fn vectors_of_hotp() {
        let codes = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922",
        ];
        for (step, code) in (0..).zip(codes) {
            assert_eq!(code_at(RFC, step, 6), code);
        }
    }

    #[test]
    fn a_code_counts_once_and_one_step_around() {
        let at = |seconds: i64| seconds * 1000;
        let code = code_at(RFC, 100, 6);
        for (seconds, last, expected) in [
            (2969, None, Err(Refused::Wrong)),
            (2970, None, Ok(100)),
            (3000, None, Ok(100)),
            (3059, None, Ok(100)),
            (3060, None, Err(Refused::Wrong)),
            (3000, Some(99), Ok(100)),
            (3000, Some(100), Err(Refused::Used)),
            (3000, Some(101), Err(Refused::Used)),
        ] {
            assert_eq!(
                accept(RFC, &code, at(seconds), last),
                expected,
                "{seconds} {last:?}"
            );
        }
        assert_eq!(
            accept(RFC, &format!(" {} {} ", &code[..3], &code[3..]), at(3000), None),
            Ok(100)
        );
        for wrong in ["", "0", "1234567", "abcdef"] {
            assert_eq!(accept(RFC, wrong, at(3000), None), Err(Refused::Wrong));
        }
    }

    /// RFC 4648, section 10, without padding.
    #[test]
    fn base32_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_url_is_one() {
        assert_eq!(
            otpauth_url("Slip stream", "a@b.example", b"foobar").expose(),
            "otpauth://totp/Slip%20stream:a%40b.example?secret=MZXW6YTBOI&issuer=Slip%20stream\
             &algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn recovery_codes_count_once() {
        let (codes, mut hashes) = recovery_codes().unwrap();
        assert_eq!((codes.len(), hashes.len()), (10, 10));
        assert_eq!(codes[0].expose().len(), 19);
        let typed = codes[3].expose().to_lowercase().replace('-', " ");
        assert!(spend(&mut hashes, &typed));
        assert!(!spend(&mut hashes, &typed));
        assert!(!spend(&mut hashes, ""));
        assert_eq!(hashes.len(), 9);
        assert!(spend(&mut hashes, codes[9].expose()));
    }
}
