//! Masking (RFC 6455, 5.3).

/// Applies `mask` to `data`, in place. The same call masks and unmasks.
///
/// Eight bytes at a time, in a loop that the compiler turns into vector instructions.
pub(super) fn apply(mask: [u8; 4], data: &mut [u8]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    // A multiple of four bytes precedes `rest`, so that it starts with the mask's first byte.
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn every_length_is_masked_byte_by_byte() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..70_usize {
            let plain: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let expected: Vec<u8> = plain
                .iter()
                .enumerate()
                .map(|(n, byte)| byte ^ mask[n % 4])
                .collect();
            let mut data = plain.clone();
            apply(mask, &mut data);
            assert_eq!(data, expected, "{len} bytes");
        }
    }

    #[test]
    fn rfc_6455_section_5_7_hello() {
        let mut data = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply([0x37, 0xfa, 0x21, 0x3d], &mut data);
        assert_eq!(&data, b"Hello");
    }
}
