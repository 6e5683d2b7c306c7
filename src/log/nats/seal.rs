//! What a message between nodes carries so that nobody else can write one.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 8 | the sender's id (little endian) |
//! | 8 | the sender's count of messages (little endian): none twice |
//! | 16 | HMAC-SHA256 over the subject and all other fields, cut to half |
//! | rest | the payload |
//!
//! Whoever may publish in the NATS account could otherwise disconnect users, or move a tail's idea of
//! what exists. The subject is part of what is signed, so that an answer to one question is none to
//! another. Half an HMAC is as strong as anybody needs who can try only online (RFC 2104, section 5).

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{constant_time, hmac};
use bytes::{Buf, Bytes};

use crate::{log::Refused, model::NodeId};

const VERSION: u8 = 1;
const MAC: usize = 16;
const HEAD: usize = 1 + 8 + 8;
/// Senders that a listener tells apart. There are as many as nodes have been started while it listens.
const MAX_SENDERS: usize = 4_096;

/// Signs what this node says, and opens what others say.
pub(super) struct Seal {
    key: hmac::Key,
    node: NodeId,
    count: AtomicU64,
}

/// The last counts that are remembered of a sender on one subject. Messages that a node sends at once can
/// leave in another order than they were counted in; none is this many behind another.
const WINDOW: usize = 128;

/// What has been heard of each sender on one subject.
#[derive(Debug, Default)]
pub(super) struct Heard(std::collections::HashMap<NodeId, Counts>);

/// Counts that have been heard, ascending. What is at or below `floor` may have been.
#[derive(Debug, Default)]
struct Counts {
    floor: u64,
    recent: std::collections::VecDeque<u64>,
}

/// An opened message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) from: NodeId,
    pub(super) count: u64,
    pub(super) payload: Bytes,
}

impl Seal {
    pub(super) fn new(key: &[u8], node: NodeId) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            node,
            count: AtomicU64::new(1),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// `payload`, signed for `subject`.
    pub(super) fn seal(&self, subject: &str, payload: &[u8]) -> Bytes {
        let mut message = Vec::with_capacity(HEAD + MAC + payload.len());
        message.push(VERSION);
        message.extend_from_slice(&self.node.number().to_le_bytes());
        message.extend_from_slice(&self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let tag = self.tag(subject, &message, payload);
        message.extend_from_slice(&tag.as_ref()[..MAC]);
        message.extend_from_slice(payload);
        message.into()
    }

    /// The message, if a node of this deployment has written it for `subject`.
    pub(super) fn open(&self, subject: &str, mut message: Bytes) -> Result<Opened, Refused> {
        if message.len() < HEAD + MAC || message[0] != VERSION {
            return Err(Refused::Malformed);
        }
        let mut head = message.split_to(HEAD);
        let mac = message.split_to(MAC);
        let tag = self.tag(subject, &head, &message);
        if constant_time::verify_slices_are_equal(&tag.as_ref()[..MAC], &mac).is_err() {
            return Err(Refused::Forged);
        }
        head.advance(1);
        Ok(Opened {
            from: NodeId::new(head.get_u64_le()),
            count: head.get_u64_le(),
            payload: message,
        })
    }

    fn tag(&self, subject: &str, head: &[u8], payload: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // Behind its length, so that subject and head cannot be divided in another way.
        context.update(&(subject.len() as u64).to_le_bytes());
        context.update(subject.as_bytes());
        context.update(head);
        context.update(payload);
        context.sign()
    }
}

impl Heard {
    /// Whether the message has not been heard here before.
    pub(super) fn is_new(&mut self, opened: &Opened) -> bool {
        if self.0.len() >= MAX_SENDERS && !self.0.contains_key(&opened.from) {
            // Of nodes long gone, nearly all of them.
            self.0.clear();
        }
        self.0.entry(opened.from).or_default().take(opened.count)
    }
}

impl Counts {
    /// Whether the count is new.
    fn take(&mut self, count: u64) -> bool {
        if count <= self.floor {
            return false;
        }
        let Err(at) = self.recent.binary_search(&count) else {
            return false;
        };
        self.recent.insert(at, count);
        if self.recent.len() > WINDOW
            && let Some(oldest) = self.recent.pop_front()
        {
            self.floor = oldest;
        }
        true
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "n.slip.nudge";

    fn seal(key: &[u8], node: u64) -> Seal {
        Seal::new(key, NodeId::new(node))
    }

    #[test]
    fn what_a_node_signs_the_others_open() {
        let (one, two) = (seal(b"key", 1), seal(b"key", 2));
        let message = one.seal(SUBJECT, b"hello");
        let opened = two.open(SUBJECT, message).unwrap();
        assert_eq!(opened.from, NodeId::new(1));
        assert_eq!(&opened.payload[..], b"hello");
    }

    #[test]
    fn nobody_else_can_write_or_change_a_message() {
        let (one, two) = (seal(b"key", 1), seal(b"key", 2));
        let message = one.seal(SUBJECT, b"hello");
        assert_eq!(two.open("n.slip.vouch", message.clone()), Err(Refused::Forged));
        assert_eq!(
            seal(b"other", 2).open(SUBJECT, message.clone()),
            Err(Refused::Forged)
        );
        for at in 1..message.len() {
            let mut changed = message.to_vec();
            changed[at] ^= 1;
            assert_eq!(
                two.open(SUBJECT, changed.into()),
                Err(Refused::Forged),
                "byte {at}"
            );
        }
        for short in [&b""[..], b"{}", &message[..HEAD + MAC - 1]] {
            let short = Bytes::copy_from_slice(short);
            assert_eq!(two.open(SUBJECT, short), Err(Refused::Malformed));
        }
    }

    #[test]
    fn a_message_counts_once() {
        let (one, two) = (seal(b"key", 1), seal(b"key", 2));
        let mut heard = Heard::default();
        let first = two.open(SUBJECT, one.seal(SUBJECT, b"a")).unwrap();
        let second = two.open(SUBJECT, one.seal(SUBJECT, b"b")).unwrap();
        assert!(heard.is_new(&first));
        assert!(!heard.is_new(&first));
        assert!(heard.is_new(&second));
        assert!(!heard.is_new(&first));
        // Counted in this order, sent in another.
        let [third, fourth] = [b"c", b"d"].map(|text| two.open(SUBJECT, one.seal(SUBJECT, text)).unwrap());
        assert!(heard.is_new(&fourth) && heard.is_new(&third));
        assert!(!heard.is_new(&fourth) && !heard.is_new(&third));
        for _ in 0..WINDOW {
            assert!(heard.is_new(&two.open(SUBJECT, one.seal(SUBJECT, b"e")).unwrap()));
        }
        assert!(!heard.is_new(&third), "too old to tell");
        let other = one.open(SUBJECT, two.seal(SUBJECT, b"a")).unwrap();
        assert!(heard.is_new(&other), "each sender counts for itself");
    }
}
