//! One client frame's header (RFC 6455, 5.2).

use super::{MAX_CONTROL_BYTES, Opcode, ProtocolError};
use crate::edge::websocket::mask;

/// The longest header of a client frame, bytes.
pub(super) const MAX_HEADER_BYTES: usize = 14;

/// A frame whose header has been read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    mask: [u8; 4],
    /// The payload's length, bytes.
    pub(super) len: u64,
    /// How much of the payload has been taken.
    pub(super) taken: u64,
}

impl Frame {
    /// The frame that `bytes` begin with and its header's length; `None` if the header is not
    /// complete. What is wrong in an incomplete header is found as soon as it is there.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(ProtocolError::UnknownOpcode)?;
        let fin = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let short = second & 0x7f;
        if opcode.is_control() {
            if !fin {
                return Err(ProtocolError::FragmentedControl);
            }
            if usize::from(short) > MAX_CONTROL_BYTES {
                return Err(ProtocolError::LongControl);
            }
        }
        let (len, least, rest) = match short {
            126 => {
                let Some((len, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*len)), 126, rest)
            }
            127 => {
                let Some((len, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*len), 0x1_0000, rest)
            }
            short => (u64::from(short), 0, rest),
        };
        // The highest bit of a 64-bit length must be zero.
        if len < least || len >> 63 != 0 {
            return Err(ProtocolError::LengthEncoding);
        }
        let Some((&mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let frame = Self {
            fin,
            opcode,
            mask,
            len,
            taken: 0,
        };
        Ok(Some((frame, bytes.len() - rest.len())))
    }

    /// How much of the payload is still to come, bytes.
    pub(super) fn remaining(&self) -> usize {
        usize::try_from(self.len - self.taken).unwrap_or(usize::MAX)
    }

    /// Whether this frame alone is a control frame or a message.
    pub(super) fn is_whole_message(&self) -> bool {
        self.fin && self.opcode != Opcode::Continuation
    }

    /// Unmasks the next part of the payload.
    pub(super) fn unmask(&mut self, chunk: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left((self.taken % 4) as usize);
        mask::apply(mask, chunk);
        self.taken += chunk.len() as u64;
    }
}
