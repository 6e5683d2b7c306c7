//! Server frames: never masked, never fragmented (RFC 6455, 5.1 and 5.4).

use bytes::Bytes;

use super::{MAX_CONTROL_BYTES, Opcode};

/// The longest header of a server frame, bytes.
pub const MAX_HEADER_BYTES: usize = 10;

/// The longest reason of a close frame, bytes: a control frame less the code.
const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

const FIN: u8 = 0x80;

/// Writes the header of a whole message of `len` bytes into `out`; returns the header's length.
///
/// For those who build header and payload in one buffer. The caller keeps control frames within
/// [`MAX_CONTROL_BYTES`]; [`close`], [`ping`] and [`pong`] do.
pub fn write_header(opcode: Opcode, len: usize, out: &mut [u8; MAX_HEADER_BYTES]) -> usize {
    out[0] = FIN | opcode as u8;
    if let Ok(short) = u8::try_from(len)
        && short < 126
    {
        out[1] = short;
        2
    } else if let Ok(medium) = u16::try_from(len) {
        out[1] = 126;
        out[2..4].copy_from_slice(&medium.to_be_bytes());
        4
    } else {
        out[1] = 127;
        out[2..].copy_from_slice(&(len as u64).to_be_bytes());
        10
    }
}

/// A whole frame, ready for any number of sockets.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut header = [0; MAX_HEADER_BYTES];
    let header_len = write_header(opcode, payload.len(), &mut header);
    let mut frame = Vec::with_capacity(header_len + payload.len());
    frame.extend_from_slice(&header[..header_len]);
    frame.extend_from_slice(payload);
    frame.into()
}

/// A close frame. `reason` is cut at a character's boundary so that the frame stays legal.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    let mut body = Vec::with_capacity(2 + reason.len());
    body.extend_from_slice(&code.to_be_bytes());
    body.extend_from_slice(reason.as_bytes());
    frame(Opcode::Close, &body)
}

/// The answer to a close frame without a code: one without a code.
pub fn close_without_code() -> Bytes {
    Bytes::from_static(&[FIN | Opcode::Close as u8, 0])
}

/// A ping frame; the payload is cut at [`MAX_CONTROL_BYTES`].
pub fn ping(payload: &[u8]) -> Bytes {
    control(Opcode::Ping, payload)
}

/// A pong frame; the payload is cut at [`MAX_CONTROL_BYTES`], which a received ping never exceeds.
pub fn pong(payload: &[u8]) -> Bytes {
    control(Opcode::Pong, payload)
}

fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    frame(opcode, &payload[..payload.len().min(MAX_CONTROL_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_uses_the_shortest_length() {
        let cases: [(usize, &[u8]); 8] = [
            (0, &[0x81, 0]),
            (1, &[0x81, 1]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (255, &[0x81, 126, 0, 255]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (0x0102_0304, &[0x81, 127, 0, 0, 0, 0, 1, 2, 3, 4]),
        ];
        for (len, expected) in cases {
            let mut out = [0xee; MAX_HEADER_BYTES];
            let written = write_header(Opcode::Text, len, &mut out);
            assert_eq!(&out[..written], expected, "{len} bytes");
        }
    }

    #[test]
    fn frames_of_every_opcode() {
        // RFC 6455, 5.7.
        assert_eq!(frame(Opcode::Text, b"Hello").as_ref(), b"\x81\x05Hello");
        assert_eq!(ping(b"Hello").as_ref(), b"\x89\x05Hello");
        assert_eq!(pong(b"").as_ref(), b"\x8a\x00");
        let mut binary = vec![0x82, 0x7e, 0x01, 0x00];
        binary.extend([7; 256]);
        assert_eq!(frame(Opcode::Binary, &[7; 256]), binary);
    }

    #[test]
    fn control_frames_stay_within_125_bytes() {
        assert_eq!(ping(&[1; 200]).len(), 2 + 125);
        assert_eq!(pong(&[1; 125]).len(), 2 + 125);
        let cases = [
            ("", 0),
            ("bye", 3),
            (&"x".repeat(123), 123),
            (&"x".repeat(124), 123),
            // 61 two-byte characters are 122 bytes; the 62nd would end at 124.
            (&"é".repeat(100), 122),
            (&"€".repeat(41), 123),
            (&format!("x{}", "🦀".repeat(40)), 121),
        ];
        for (reason, kept) in cases {
            let frame = close(3001, reason);
            assert_eq!(frame[0], 0x88);
            assert_eq!(usize::from(frame[1]), 2 + kept, "{reason}");
            assert_eq!(frame.len(), 2 + 2 + kept);
            assert_eq!(frame[2..4], 3001_u16.to_be_bytes());
            assert_eq!(std::str::from_utf8(&frame[4..]).unwrap(), &reason[..kept]);
        }
        assert_eq!(close_without_code().as_ref(), b"\x88\x00");
    }
}
