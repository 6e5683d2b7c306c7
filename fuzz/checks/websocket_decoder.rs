//! What must hold of the WebSocket decoder for any input: shared by the fuzz target and by the
//! test that replays its corpus.

use slipstream::edge::websocket::{Decoder, Event, ProtocolError};

/// The first byte chooses the limit, the second the size of the reads; the rest is what the socket
/// brings. The decoder must not panic, and reads of any size must give the same.
pub(crate) fn check(data: &[u8]) {
    let &[limit, read, ref bytes @ ..] = data else {
        return;
    };
    let limit = usize::from(limit) * 16;
    let at_once = decode(limit, bytes, bytes.len());
    let in_pieces = decode(limit, bytes, usize::from(read));
    assert_eq!(at_once, in_pieces);
}

fn decode(limit: usize, bytes: &[u8], read: usize) -> (Vec<String>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for chunk in bytes.chunks(read.max(1)) {
        let mut scratch = chunk.to_vec();
        let mut input = &mut scratch[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => {
                    if let Event::Text(message) = event {
                        assert!(message.len() <= limit);
                    } else if let Event::Binary(message) = event {
                        assert!(message.len() <= limit);
                    }
                    events.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(input.is_empty());
    }
    (events, None)
}
