use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Which messages from a nats-server are lost.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    copies: AtomicBool,
    presence: AtomicBool,
    all: AtomicBool,
    pub(super) lost: AtomicU64,
    deltas: AtomicU64,
}

impl Losses {
    /// Live copies of publications are lost, or not any more.
    pub(crate) fn copies(&self, lose: bool) {
        self.copies.store(lose, Ordering::SeqCst);
    }

    /// What other nodes tell of members is lost, or not any more; answers are not.
    pub(crate) fn presence(&self, lose: bool) {
        self.presence.store(lose, Ordering::SeqCst);
    }

    /// How many messages with changes of members were lost.
    pub(crate) fn deltas(&self) -> u64 {
        self.deltas.load(Ordering::SeqCst)
    }

    /// All messages are lost (answers and acknowledgements, too), or not any more. The connection
    /// itself stays alive.
    pub(crate) fn all(&self, lose: bool) {
        self.all.store(lose, Ordering::SeqCst);
    }
}

/// Takes the server's side of the NATS protocol apart, message by message.
pub(super) struct Filter {
    losses: Arc<Losses>,
    kept: Vec<u8>,
}

impl Filter {
    pub(super) fn new(losses: Arc<Losses>) -> Self {
        Self {
            losses,
            kept: Vec::new(),
        }
    }

    /// What passes of what has come so far. An unfinished message waits for its rest.
    pub(super) fn pass(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(chunk);
        let mut passed = Vec::new();
        let mut at = 0;
        while let Some((end, subject)) = frame(&self.kept[at..]) {
            let frame = &self.kept[at..at + end];
            if subject.is_some_and(|subject| self.loses(subject)) {
                self.losses.lost.fetch_add(1, Ordering::SeqCst);
                if frame.windows(8).any(|word| word == b"\"deltas\"") {
                    self.losses.deltas.fetch_add(1, Ordering::SeqCst);
                }
            } else {
                passed.extend_from_slice(frame);
            }
            at += end;
        }
        self.kept.drain(..at);
        passed
    }

    fn loses(&self, subject: &[u8]) -> bool {
        self.losses.all.load(Ordering::SeqCst)
            || (self.losses.copies.load(Ordering::SeqCst) && subject.starts_with(b"l-slipstream."))
            || (self.losses.presence.load(Ordering::SeqCst) && subject.starts_with(b"n.slipstream.presence."))
    }
}

/// The length of the first whole frame, and its subject if it is a message.
fn frame(bytes: &[u8]) -> Option<(usize, Option<&[u8]>)> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let mut words = bytes[..line].split(|byte| *byte == b' ');
    let verb = words.next()?;
    if verb != b"MSG" && verb != b"HMSG" {
        return Some((line + 2, None));
    }
    let subject = words.next()?;
    let size: usize = std::str::from_utf8(words.next_back()?).ok()?.parse().ok()?;
    let end = line + 2 + size + 2;
    (bytes.len() >= end).then_some((end, Some(subject)))
}

#[test]
fn only_what_is_to_be_lost_is_lost() {
    let losses = Arc::new(Losses::default());
    let mut filter = Filter::new(losses.clone());
    let stream = b"PING\r\nMSG l-slipstream.a 1 2\r\nhi\r\nHMSG _INBOX.1 2 5 7\r\nh\r\n\r\n..\r\n+OK\r\n";
    for lose in [false, true] {
        losses.copies(lose);
        // In pieces, as a socket gives them.
        let passed: Vec<u8> = stream.chunks(5).flat_map(|chunk| filter.pass(chunk)).collect();
        let expected = if lose {
            b"PING\r\nHMSG _INBOX.1 2 5 7\r\nh\r\n\r\n..\r\n+OK\r\n".to_vec()
        } else {
            stream.to_vec()
        };
        assert_eq!(passed, expected);
    }
    losses.all(true);
    assert_eq!(filter.pass(stream), b"PING\r\n+OK\r\n");
    assert_eq!(losses.lost.load(Ordering::SeqCst), 3);
}
