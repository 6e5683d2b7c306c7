//! Random names: epochs, connection ids, node incarnations.

use aws_lc_rs::rand;

const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/// `len` random characters of a URL-safe alphabet, 6 bits each; at most 64.
///
/// # Panics
///
/// If the operating system has no randomness to give: nothing safe can be done then.
pub fn name(len: usize) -> String {
    let mut bytes = [0_u8; 64];
    let bytes = &mut bytes[..len.min(64)];
    #[expect(
        clippy::expect_used,
        reason = "documented: without randomness ids would collide"
    )]
    rand::fill(bytes).expect("the operating system gives randomness");
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 63)]))
        .collect()
}

/// A random number that no other node or process has.
///
/// # Panics
///
/// As [`name`].
pub fn number() -> u64 {
    let mut bytes = [0_u8; 8];
    #[expect(
        clippy::expect_used,
        reason = "documented: without randomness ids would collide"
    )]
    rand::fill(&mut bytes).expect("the operating system gives randomness");
    u64::from_le_bytes(bytes)
}

/// A random number below `bound`, for jitter. 0 if `bound` is 0.
pub fn below(bound: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    match rand::fill(&mut bytes) {
        Ok(()) if bound > 0 => u64::from_le_bytes(bytes) % bound,
        _ => 0,
    }
}
