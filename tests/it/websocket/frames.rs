//! Client frames, by hand: what no well-behaved client would send.

/// A masked frame by its first byte, with the shortest length.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len());
    frame[1] |= 0x80;
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// The same without a mask, as servers send it.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len());
    frame.extend(payload);
    frame
}

fn header(first: u8, len: usize) -> Vec<u8> {
    let mut header = vec![first];
    if len < 126 {
        header.push(len as u8);
    } else if len < 65_536 {
        header.push(126);
        header.extend((len as u16).to_be_bytes());
    } else {
        header.push(127);
        header.extend((len as u64).to_be_bytes());
    }
    header
}
