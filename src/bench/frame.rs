//! The least of RFC 6455 that a client and a floor need: frames, without extensions.

/// The mask of every client frame. RFC 6455 section 5.3 wants it unpredictable, against attacks
/// through browsers and proxies; here both ends are ours, and the server pays for unmasking all the
/// same.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

/// Frame types (RFC 6455 section 5.2).
pub(crate) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}

/// The start of a frame, as far as it has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether it ends its message.
    pub(crate) fin: bool,
    /// See [`opcode`].
    pub(crate) opcode: u8,
    /// Set on what clients send.
    pub(crate) mask: Option<[u8; 4]>,
    /// Where the payload begins.
    pub(crate) start: usize,
    /// Where the payload ends: also the length of the frame.
    pub(crate) end: usize,
}

/// Reads the frame at the start of `bytes`. `None` until its header *and* payload are there.
pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (len, mut start) = match second & 0x7f {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mask = if second & 0x80 == 0 {
        None
    } else {
        let key = bytes.get(start..start + 4)?.try_into().ok()?;
        start += 4;
        Some(key)
    };
    let end = usize::try_from(len).ok()?.checked_add(start)?;
    (bytes.len() >= end).then_some(Header {
        fin: first & 0x80 != 0,
        opcode: first & 0x0f,
        mask,
        start,
        end,
    })
}

/// Appends a whole client frame.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    write_header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], MASK);
}

/// Appends a whole server frame.
pub(crate) fn write_plain(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    write_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Masks or unmasks: it is the same.
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn write_header(out: &mut Vec<u8>, opcode: u8, len: usize, mask_bit: u8) {
    out.push(0x80 | opcode);
    if let (Ok(short), true) = (u8::try_from(len), len < 126) {
        out.push(mask_bit | short);
    } else if let Ok(medium) = u16::try_from(len) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_come_back() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'a'; len];
            let mut plain = Vec::new();
            write_plain(&mut plain, opcode::TEXT, &payload);
            let header = parse(&plain).unwrap();
            assert_eq!(
                (header.fin, header.opcode, header.mask),
                (true, opcode::TEXT, None)
            );
            assert_eq!(&plain[header.start..header.end], payload);
            for cut in [0, 1, header.start.saturating_sub(1), plain.len() - 1] {
                assert_eq!(parse(&plain[..cut]), None, "{len} cut at {cut}");
            }

            let mut masked = Vec::new();
            write_masked(&mut masked, opcode::PONG, &payload);
            let header = parse(&masked).unwrap();
            let mut body = masked[header.start..header.end].to_vec();
            unmask(&mut body, header.mask.unwrap());
            assert_eq!(body, payload);
        }
    }

    #[test]
    fn a_length_beyond_memory_is_not_a_frame() {
        let mut bytes = vec![0x81, 127];
        bytes.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(parse(&bytes), None);
    }
}
