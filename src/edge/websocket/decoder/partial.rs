//! What a decoder keeps while something has come in part.

use super::{
    Opcode, ProtocolError,
    frame::{Frame, MAX_HEADER_BYTES},
    take,
};

/// The parts of a frame and of a message that are waiting for the rest.
#[derive(Debug, Default)]
pub(super) struct Partial {
    header: [u8; MAX_HEADER_BYTES],
    header_len: usize,
    /// The frame whose payload is incomplete.
    pub(super) frame: Option<Frame>,
    /// The opcode of the message in progress.
    pub(super) message_opcode: Option<Opcode>,
    /// What has come of the message in progress, unmasked.
    pub(super) message: Vec<u8>,
    /// What has come of a control frame; one may come between the fragments of a message.
    control: Vec<u8>,
    lent: Lent,
}

/// Which buffer the last event was read from.
#[derive(Debug, Default)]
enum Lent {
    #[default]
    Nothing,
    Message,
    Control,
}

impl Partial {
    /// Keeps the start of a header. The caller knows that it is not a whole one.
    pub(super) fn keep_header(&mut self, bytes: &[u8]) {
        self.header[..bytes.len()].copy_from_slice(bytes);
        self.header_len = bytes.len();
    }

    /// Completes the header from the front of `input`, if it reaches.
    pub(super) fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, ProtocolError> {
        let had = self.header_len;
        let more = input.len().min(MAX_HEADER_BYTES - had);
        self.header[had..had + more].copy_from_slice(&input[..more]);
        let Some((frame, header_len)) = Frame::parse(&self.header[..had + more])? else {
            self.header_len = had + more;
            take(input, more);
            return Ok(None);
        };
        self.header_len = 0;
        take(input, header_len - had);
        Ok(Some(frame))
    }

    /// Keeps a part of `frame`'s payload, already counted in `frame.taken`.
    pub(super) fn append(&mut self, frame: &Frame, chunk: &[u8], max_message_bytes: usize) {
        if frame.opcode.is_control() {
            self.control.reserve_exact(chunk.len() + frame.remaining());
            self.control.extend_from_slice(chunk);
            return;
        }
        self.message_opcode.get_or_insert(frame.opcode);
        let needed = self.message.len() + chunk.len();
        if needed > self.message.capacity() {
            // Doubles, so that a message in tiny fragments is not copied for each of them; but
            // never beyond the limit, nor beyond the end of a message whose end is announced.
            let most = if frame.fin {
                needed + frame.remaining()
            } else {
                max_message_bytes
            };
            let target = needed.max(most.min(2 * self.message.capacity()));
            self.message.reserve_exact(target - self.message.len());
        }
        self.message.extend_from_slice(chunk);
    }

    /// Ends the message or control frame that `frame` is the last part of; returns its opcode.
    pub(super) fn finish(&mut self, frame: &Frame) -> Opcode {
        if frame.opcode.is_control() {
            return frame.opcode;
        }
        self.message_opcode.take().unwrap_or(frame.opcode)
    }

    /// The contents of what was finished. They stay until [`release`](Self::release).
    pub(super) fn lend(&mut self, opcode: Opcode) -> &[u8] {
        if opcode.is_control() {
            self.lent = Lent::Control;
            &self.control
        } else {
            self.lent = Lent::Message;
            &self.message
        }
    }

    /// Frees what was lent; answers whether nothing is left to keep.
    pub(super) fn release(&mut self) -> bool {
        match std::mem::take(&mut self.lent) {
            Lent::Nothing => {}
            Lent::Message => self.message = Vec::new(),
            Lent::Control => self.control = Vec::new(),
        }
        self.header_len == 0 && self.frame.is_none() && self.message_opcode.is_none()
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.message.capacity() + self.control.capacity()
    }
}
