use crate::{
    log::{
        ReadError,
        nats::{headers::Headers, link::Raw},
    },
    model::Offset,
};

/// The answer to a batched Direct Get, complete.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The messages found, ascending.
    pub(super) messages: Vec<Raw>,
    /// How many more the replica has that match.
    pub(super) pending: u64,
    /// How far the replica was; only in answers to `multi_last` that found something.
    pub(super) up_to: Option<Offset>,
}

impl Batch {
    /// Reads an answer whose last message is the status that ends it.
    ///
    /// Each message names the one before it in the batch, and the end names the last one. So a
    /// message that was lost on the way, because a buffer was full or the connection was replaced,
    /// never goes unnoticed: such an answer counts as none.
    pub(super) fn of(mut messages: Vec<Raw>) -> Result<Self, ReadError> {
        let Some(end) = messages.pop() else {
            return Err(ReadError::NoAnswer);
        };
        match end.status().map(|(code, _)| code) {
            Some(204) => {}
            // Nothing matches. Behind messages it means that one of those to come was removed.
            Some(404) if messages.is_empty() => return Ok(Self::default()),
            Some(404) => return Err(ReadError::NotNow("a message was removed meanwhile".to_owned())),
            Some(500 | 503) => return Err(ReadError::NotNow(description(&end))),
            _ => return Err(ReadError::Failed(description(&end))),
        }
        let headers = Headers::parse(end.headers());
        let mut last = 0;
        for message in &messages {
            let headers = Headers::parse(message.headers());
            if headers.last_sequence() != Some(last) {
                return Err(ReadError::NoAnswer);
            }
            last = headers.sequence().unwrap_or_default();
        }
        if headers.last_sequence() != Some(last) {
            return Err(ReadError::NoAnswer);
        }
        Ok(Self {
            messages,
            pending: headers.num_pending().unwrap_or_default(),
            up_to: headers.up_to_sequence(),
        })
    }
}

fn description(end: &Raw) -> String {
    let (code, text) = end.status().unwrap_or_default();
    format!("{code} {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(status: Option<u16>, headers: &[(&str, u64)]) -> Raw {
        let mut block = "NATS/1.0".to_owned();
        if let Some(status) = status {
            block += &format!(" {status} Why");
        }
        for (name, value) in headers {
            block += &format!("\r\n{name}: {value}");
        }
        Raw::new(&(block + "\r\n\r\n"), "")
    }

    fn found(seq: u64, before: u64) -> Raw {
        message(None, &[("Nats-Sequence", seq), ("Nats-Last-Sequence", before)])
    }

    fn end(last: u64, pending: u64) -> Raw {
        message(
            Some(204),
            &[("Nats-Last-Sequence", last), ("Nats-Num-Pending", pending)],
        )
    }

    #[test]
    fn l10_a_batch_with_a_hole_is_no_answer() {
        let whole = || vec![found(3, 0), found(7, 3), found(8, 7), end(8, 2)];
        let batch = Batch::of(whole()).unwrap();
        assert_eq!((batch.messages.len(), batch.pending, batch.up_to), (3, 2, None));
        for lost in 0..3 {
            let mut messages = whole();
            messages.remove(lost);
            assert!(matches!(Batch::of(messages), Err(ReadError::NoAnswer)), "{lost}");
        }
        assert!(matches!(Batch::of(Vec::new()), Err(ReadError::NoAnswer)));
    }

    #[test]
    fn l10_the_status_says_what_an_answer_is() {
        let nothing = Batch::of(vec![message(Some(404), &[])]).unwrap();
        assert!(nothing.messages.is_empty() && nothing.pending == 0);
        assert!(matches!(
            Batch::of(vec![found(1, 0), message(Some(404), &[])]),
            Err(ReadError::NotNow(_))
        ));
        for (status, temporary) in [(408, false), (412, false), (413, false), (500, true), (503, true)] {
            let error = Batch::of(vec![message(Some(status), &[])]).unwrap_err();
            assert_eq!(matches!(error, ReadError::NotNow(_)), temporary, "{status}");
        }
    }
}
