//! The Centrifuge client protocol v2 in JSON, as `docs/protocol.md` describes it.
//!
//! One text message (a frame of any transport) holds one or more commands or replies, separated by a
//! newline. Nothing this module writes holds a raw newline, so that messages can be joined by one.

mod decode;
mod encode;
mod publication;
#[cfg(test)]
mod tests;

pub use decode::{Commands, NotACommand, decode};
pub use encode::{encode, encode_subscribe_reply};
pub use publication::{PUSH_SUFFIX, encode_publication_body, encode_push_prefix};

/// The server's ping, and the client's pong.
pub const PING: &[u8] = b"{}";
