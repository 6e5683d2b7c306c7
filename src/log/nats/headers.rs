//! The headers of a message that the log reads, found in one pass and without allocating: NATS's
//! own and ours.

use memchr::memchr;

use super::{envelope, stamp};
use crate::model::Offset;

/// The values of the headers the log knows, borrowed from the message. The first value of a
/// repeated header counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Headers<'a> {
    /// [`envelope::SLIP`].
    pub(super) slip: Option<&'a str>,
    /// [`envelope::INFO`].
    pub(super) info: Option<&'a str>,
    /// [`envelope::TAGS`].
    pub(super) tags: Option<&'a str>,
    /// [`envelope::MESSAGE_ID`].
    pub(super) message_id: Option<&'a str>,
    /// The message's own sequence.
    sequence: Option<&'a str>,
    /// On a copy: the last stored sequence of the subject before it. In a batch: the sequence of
    /// the message before it in the batch.
    last_sequence: Option<&'a str>,
    time_stamp: Option<&'a str>,
    /// The subject it is stored under.
    pub(super) subject: Option<&'a str>,
    num_pending: Option<&'a str>,
    up_to_sequence: Option<&'a str>,
    kv_operation: Option<&'a str>,
}

impl<'a> Headers<'a> {
    /// Those of a raw header block (`NATS/1.0` and lines behind it), as STREAM.MSG.GET returns it.
    pub(super) fn parse(block: &'a [u8]) -> Self {
        let mut headers = Self::default();
        let text = std::str::from_utf8(block).unwrap_or_default();
        let mut rest = text;
        // Every message of a sweep comes by here, and `str::split` was a tenth of the edge's time.
        // What `memchr` finds is ASCII: every cut is between characters.
        while let Some(end) = memchr(b'\n', rest.as_bytes()) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if let Some(colon) = memchr(b':', line.as_bytes()) {
                headers.take(&line[..colon], line[colon + 1..].trim_ascii());
            }
        }
        headers
    }

    fn take(&mut self, name: &str, value: &'a str) {
        let place = match name {
            envelope::SLIP => &mut self.slip,
            envelope::INFO => &mut self.info,
            envelope::TAGS => &mut self.tags,
            envelope::MESSAGE_ID => &mut self.message_id,
            "Nats-Sequence" => &mut self.sequence,
            "Nats-Last-Sequence" => &mut self.last_sequence,
            "Nats-Time-Stamp" => &mut self.time_stamp,
            "Nats-Subject" => &mut self.subject,
            "Nats-Num-Pending" => &mut self.num_pending,
            "Nats-UpTo-Sequence" => &mut self.up_to_sequence,
            "KV-Operation" => &mut self.kv_operation,
            _ => return,
        };
        place.get_or_insert(value);
    }

    /// `Nats-Sequence`.
    pub(super) fn sequence(&self) -> Option<Offset> {
        self.sequence?.parse().ok()
    }

    /// `Nats-Last-Sequence`.
    pub(super) fn last_sequence(&self) -> Option<Offset> {
        self.last_sequence?.parse().ok()
    }

    /// `Nats-Time-Stamp` in ms since 1970.
    pub(super) fn time_ms(&self) -> Option<i64> {
        stamp::parse_ms(self.time_stamp?)
    }

    /// `Nats-Num-Pending`.
    pub(super) fn num_pending(&self) -> Option<u64> {
        self.num_pending?.parse().ok()
    }

    /// `Nats-UpTo-Sequence`.
    pub(super) fn up_to_sequence(&self) -> Option<Offset> {
        self.up_to_sequence?.parse().ok()
    }

    /// Whether the message marks a removed key of a KV bucket.
    pub(super) fn is_kv_removal(&self) -> bool {
        matches!(self.kv_operation, Some("DEL" | "PURGE"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found_and_the_first_value_counts() {
        let block =
            b"NATS/1.0\r\nSlip: 1j\r\nSlip: 9x\r\nNats-Sequence: 7\r\nX: y\r\nNats-Last-Sequence:6\r\n\r\n";
        let headers = Headers::parse(block);
        assert_eq!(headers.slip, Some("1j"));
        assert_eq!((headers.sequence(), headers.last_sequence()), (Some(7), Some(6)));
        assert_eq!((headers.info, headers.time_ms()), (None, None));
        assert_eq!(Headers::parse(b"").slip, None);
        let odd = "NATS/1.0\r\nno colon\r\n: \r\nSlip:\t\u{e9}:\u{1f642} \r\nNats-Sequence: 8".as_bytes();
        let headers = Headers::parse(odd);
        assert_eq!(headers.slip, Some("\u{e9}:\u{1f642}"));
        assert_eq!(headers.sequence(), None, "a line that does not end is none");
    }
}
