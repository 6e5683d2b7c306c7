use super::*;

/// What a well-behaved client may send, before it is framed.
#[derive(Clone, Debug)]
enum Said {
    /// A message in fragments of these lengths, with a ping before each fragment that wants one.
    Message {
        text: bool,
        payload: Vec<u8>,
        fragments: Vec<(usize, bool)>,
    },
    Control {
        pong: bool,
        payload: Vec<u8>,
    },
}

fn said() -> impl Strategy<Value = Said> {
    let text = "\\PC{0,40}".prop_map(|text| (true, text.into_bytes()));
    let binary = prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (false, bytes));
    let fragments = prop::collection::vec((0..60_usize, any::<bool>()), 0..4);
    let message =
        (prop_oneof![text, binary], fragments).prop_map(|((text, payload), fragments)| Said::Message {
            text,
            payload,
            fragments,
        });
    let control = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125))
        .prop_map(|(pong, payload)| Said::Control { pong, payload });
    prop_oneof![3 => message, 1 => control]
}

/// The frames of `said`, and the events that they are.
fn written(said: &[Said]) -> (Vec<u8>, Vec<Owned>) {
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    for said in said {
        match said {
            Said::Control { pong: true, payload } => {
                bytes.extend(frame(0x8a, payload));
                events.push(Owned::Pong(payload.clone()));
            }
            Said::Control { pong: false, payload } => {
                bytes.extend(frame(0x89, payload));
                events.push(Owned::Ping(payload.clone()));
            }
            Said::Message {
                text,
                payload,
                fragments,
            } => {
                let mut opcode = if *text { 0x01 } else { 0x02 };
                let mut rest = &payload[..];
                for (len, ping) in fragments {
                    if *ping {
                        bytes.extend(frame(0x89, b"!"));
                        events.push(Owned::Ping(b"!".to_vec()));
                    }
                    let (fragment, after) = rest.split_at((*len).min(rest.len()));
                    bytes.extend(frame(opcode, fragment));
                    (opcode, rest) = (0x00, after);
                }
                bytes.extend(frame(0x80 | opcode, rest));
                events.push(match text {
                    true => Owned::Text(String::from_utf8(payload.clone()).unwrap()),
                    false => Owned::Binary(payload.clone()),
                });
            }
        }
    }
    (bytes, events)
}

/// Places to cut `len` bytes at, from any indexes.
fn cuts(indexes: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = indexes.iter().map(|index| index.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn reads_of_any_size_give_the_same_events(
        said in prop::collection::vec(said(), 0..8),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (bytes, events) = written(&said);
        prop_assert_eq!(decode(LIMIT, &bytes, &cuts(&at, bytes.len())), (events, None));
    }

    /// `decode` asserts on the way that no more than the limit is kept.
    #[test]
    fn damaged_input_neither_panics_nor_depends_on_the_reads(
        said in prop::collection::vec(said(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        limit in 0..400_usize,
    ) {
        let (mut bytes, _) = written(&said);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        prop_assert_eq!(decode(limit, &bytes, &cuts(&at, bytes.len())), decode(limit, &bytes, &[]));
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_depend_on_the_reads(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        prop_assert_eq!(decode(64, &bytes, &cuts(&at, bytes.len())), decode(64, &bytes, &[]));
    }
}
