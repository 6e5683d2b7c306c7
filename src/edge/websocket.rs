//! The server's half of RFC 6455, for the hot path: no I/O, no tokio.
//!
//! [`Decoder`] turns the bytes of a socket into [`Event`]s, in place where a frame came whole;
//! [`encoder`] makes the frames that go out; [`handshake`] judges the upgrade request. Extensions
//! (permessage-deflate among them) are never negotiated: publications are framed once and shared
//! by all sockets, and a compressor per connection would cost more than everything else it holds.

use std::fmt;

pub mod close;
pub mod decoder;
pub mod encoder;
pub mod handshake;
mod mask;

pub use decoder::{Decoder, Event, ProtocolError};

/// The most a control frame (close, ping, pong) may carry, bytes (RFC 6455, 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is (RFC 6455, 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of the message in progress.
    Continuation = 0x0,
    /// A message, or the first part of one, that is UTF-8.
    Text = 0x1,
    /// A message, or the first part of one, that is bytes.
    Binary = 0x2,
    /// The last frame of a side.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// The answer to a ping, or an unasked sign of life.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of the low four bits of a frame's first byte; `None` for reserved ones.
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a close, ping or pong: short, never fragmented, allowed between fragments.
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        })
    }
}
