//! Hashes of what has so much randomness that a plain hash keeps it secret: links, tokens, recovery codes.

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use crate::random;

/// The SHA-256 of `text` in hex.
pub(super) fn hash(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub(super) fn same(a: &str, b: &str) -> bool {
    verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// 258 random bits in 43 characters of a URL-safe alphabet.
pub(super) fn secret() -> String {
    random::name(43)
}

/// A new id: `acc_...`, 96 random bits.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", random::name(16))
}
