//! Client frames, incrementally.

use super::{MAX_CONTROL_BYTES, Opcode, close};

mod frame;
mod partial;
#[cfg(test)]
mod tests;

use frame::Frame;
use partial::Partial;

/// Something a client said: a whole message, or a control frame.
///
/// The contents lie in the caller's read buffer, or in the decoder if they came in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// A sign of life.
    Pong(&'a [u8]),
    /// The client's last frame: to be answered with a close frame unless one was sent before.
    Close {
        /// Why, if the client says so; a code that may stand in a frame.
        code: Option<u16>,
        /// For humans; at most 123 bytes.
        reason: &'a str,
    },
}

/// How a client broke RFC 6455, or a limit. The connection is to be closed with
/// [`close_code`](Self::close_code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Section 5.1.
    #[error("frame is not masked")]
    Unmasked,
    /// Section 5.2: no extension was negotiated.
    #[error("reserved bits are set")]
    ReservedBits,
    /// Section 5.2.
    #[error("opcode is reserved")]
    UnknownOpcode,
    /// Section 5.2.
    #[error("length is not encoded in the shortest form")]
    LengthEncoding,
    /// Section 5.5.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// Section 5.5.
    #[error("control frame is longer than 125 bytes")]
    LongControl,
    /// Section 5.4.
    #[error("continuation without a message to continue")]
    UnexpectedContinuation,
    /// Section 5.4.
    #[error("new message inside a fragmented one")]
    ExpectedContinuation,
    /// Section 5.5.1.
    #[error("close frame with a body of one byte")]
    CloseBody,
    /// Section 7.4.
    #[error("close code {0} is not allowed")]
    CloseCode(u16),
    /// Section 8.1.
    #[error("text is not utf-8")]
    InvalidUtf8,
    /// Section 10.4.
    #[error("message is larger than {limit} bytes")]
    TooLarge {
        /// The most that is taken.
        limit: usize,
    },
}

impl ProtocolError {
    /// The code to close with: 1002, 1007 or 1009.
    pub fn close_code(self) -> u16 {
        match self {
            Self::InvalidUtf8 => close::INVALID_DATA,
            Self::TooLarge { .. } => close::TOO_LARGE,
            _ => close::PROTOCOL_ERROR,
        }
    }
}

/// The receiving half of one connection.
///
/// A frame that arrives whole and is a whole message is unmasked where it lies and costs no
/// allocation. What arrives in pieces is kept in a heap buffer of at most `max_message_bytes` (and
/// 125 bytes of a control frame) that grows with what has arrived, not with what was announced,
/// and is gone as soon as the message has been handled; an idle decoder is 24 bytes.
#[derive(Debug)]
pub struct Decoder {
    max_message_bytes: usize,
    partial: Option<Box<Partial>>,
    ended: bool,
}

/// A message or control frame whose payload is complete, before its contents are judged.
struct Whole<'s> {
    opcode: Opcode,
    /// The payload where it came in one piece; otherwise [`Partial`] has it.
    in_place: Option<&'s mut [u8]>,
}

impl Decoder {
    /// A decoder that takes frames and messages of up to `max_message_bytes` bytes.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            partial: None,
            ended: false,
        }
    }

    /// Whether nothing is kept: no frame or message is in progress.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Takes the next event from the front of `input`, which is moved past it.
    ///
    /// To be called with the bytes of one read until it answers `None`; then all of `input` has
    /// been taken. After a close frame or an error the connection has nothing more to say: further
    /// input is dropped unread (RFC 6455, 1.4 and 7.1.7).
    ///
    /// ```
    /// # use slipstream::edge::websocket::{Decoder, Event};
    /// let mut decoder = Decoder::new(65_536);
    /// let mut scratch = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    /// let mut input = &mut scratch[..];
    /// while let Some(event) = decoder.next(&mut input)? {
    ///     assert_eq!(event, Event::Text("Hello"));
    /// }
    /// # Ok::<(), slipstream::edge::websocket::ProtocolError>(())
    /// ```
    ///
    /// # Errors
    /// The client broke the protocol or a limit.
    pub fn next<'d, 's: 'd>(
        &'d mut self,
        input: &mut &'s mut [u8],
    ) -> Result<Option<Event<'d>>, ProtocolError> {
        self.release();
        if self.ended {
            self.partial = None;
            *input = &mut [];
            return Ok(None);
        }
        let whole = match self.advance(input) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.ended = true;
                self.partial = None;
                return Err(error);
            }
        };
        // Borrowed field by field: the event may lie in `partial` while `ended` is set.
        let Self { partial, ended, .. } = self;
        let payload: &'d [u8] = match (whole.in_place, partial) {
            (Some(payload), _) => payload,
            (None, Some(partial)) => partial.lend(whole.opcode),
            (None, None) => &[],
        };
        let event = event(whole.opcode, payload);
        *ended = matches!(event, Ok(Event::Close { .. }) | Err(_));
        event.map(Some)
    }

    /// Takes bytes until a message or control frame is complete, or there are no more.
    fn advance<'s>(&mut self, input: &mut &'s mut [u8]) -> Result<Option<Whole<'s>>, ProtocolError> {
        loop {
            let Some(mut frame) = self.current_frame(input)? else {
                return Ok(None);
            };
            let first = frame.taken == 0;
            let chunk = take(input, frame.remaining());
            frame.unmask(chunk);
            let complete = frame.remaining() == 0;
            if first && complete && frame.is_whole_message() {
                return Ok(Some(Whole {
                    opcode: frame.opcode,
                    in_place: Some(chunk),
                }));
            }
            let partial = self.partial.get_or_insert_default();
            // A frame of which only the header is here may still come whole with the next read.
            if complete || frame.taken > 0 {
                partial.append(&frame, chunk, self.max_message_bytes);
            }
            if !complete {
                partial.frame = Some(frame);
                return Ok(None);
            }
            if frame.fin {
                let opcode = partial.finish(&frame);
                return Ok(Some(Whole {
                    opcode,
                    in_place: None,
                }));
            }
        }
    }

    /// The frame whose payload comes next, once its header is complete and admitted.
    fn current_frame(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, ProtocolError> {
        let Some(partial) = &mut self.partial else {
            if let Some((frame, header_len)) = Frame::parse(input)? {
                take(input, header_len);
                self.admit(&frame)?;
                return Ok(Some(frame));
            }
            if !input.is_empty() {
                let rest = take(input, usize::MAX);
                self.partial.get_or_insert_default().keep_header(rest);
            }
            return Ok(None);
        };
        if let Some(frame) = partial.frame.take() {
            return Ok(Some(frame));
        }
        let Some(frame) = partial.take_header(input)? else {
            return Ok(None);
        };
        self.admit(&frame)?;
        Ok(Some(frame))
    }

    /// Holds a header against the message in progress, before any of the payload is taken.
    fn admit(&self, frame: &Frame) -> Result<(), ProtocolError> {
        if frame.opcode.is_control() {
            return Ok(());
        }
        let in_progress = self
            .partial
            .as_ref()
            .filter(|partial| partial.message_opcode.is_some());
        match (frame.opcode, in_progress) {
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            _ => {}
        }
        let so_far = in_progress.map_or(0, |partial| partial.message.len());
        if frame.len > (self.max_message_bytes - so_far) as u64 {
            return Err(ProtocolError::TooLarge {
                limit: self.max_message_bytes,
            });
        }
        Ok(())
    }

    /// Frees what the event before has been read from.
    fn release(&mut self) {
        if let Some(partial) = &mut self.partial
            && partial.release()
        {
            self.partial = None;
        }
    }
}

/// Splits up to `len` bytes off the front of `input`.
fn take<'s>(input: &mut &'s mut [u8], len: usize) -> &'s mut [u8] {
    let all = std::mem::take(input);
    let (front, rest) = all.split_at_mut(len.min(all.len()));
    *input = rest;
    front
}

/// Judges a complete payload.
fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    Ok(match opcode {
        Opcode::Text => Event::Text(text(payload)?),
        // A continuation is handed on under the opcode of the message it completes.
        Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => match *payload {
            [] => Event::Close {
                code: None,
                reason: "",
            },
            [_] => return Err(ProtocolError::CloseBody),
            [high, low, ref reason @ ..] => {
                let code = u16::from_be_bytes([high, low]);
                if !close::is_sendable(code) {
                    return Err(ProtocolError::CloseCode(code));
                }
                Event::Close {
                    code: Some(code),
                    reason: text(reason)?,
                }
            }
        },
    })
}

fn text(bytes: &[u8]) -> Result<&str, ProtocolError> {
    std::str::from_utf8(bytes).map_err(|_| ProtocolError::InvalidUtf8)
}
