//! Reads of stored messages, on a connection of their own (L10): batched Direct Get from any
//! replica, single messages from the leader.

mod batch;

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::batch::Batch;
use super::{
    api::{self, ApiError, Refusal},
    envelope,
    headers::Headers,
    link::{Link, Raw},
    patience::Unanswered,
    stamp,
};
use crate::{
    log::{LastOf, Page, ReadError, Stored, Sweep},
    model::Offset,
};

/// The most subjects that one `multi_last` may match (1,024, fixed in the server), less the anchor and
/// a reserve.
const MAX_SUBJECTS: usize = 1_000;

/// The reading side of the log. Payloads are slices of the connection's read buffer: who keeps one
/// for long copies it.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    link: Link,
    /// What the answer to one `multi_last` of several channels may hold.
    last_bytes: u32,
}

impl Reads {
    /// Reads over `link`. A replica that hangs answers nothing: the caller asks again, and then
    /// another one may answer. The answer to a question about several channels has at most
    /// `last_bytes`.
    pub(super) fn new(link: Link, last_bytes: u32) -> Self {
        Self { link, last_bytes }
    }

    /// Whether there is a connection now.
    pub(super) fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// At most `messages` messages of one subject from `from` on.
    pub(super) async fn page(
        &self,
        stream: &str,
        subject: &str,
        from: Offset,
        messages: u32,
        bytes: u32,
    ) -> Result<Page, ReadError> {
        let request = json!({
            "seq": from.max(1), "next_by_subj": subject, "batch": messages.max(1), "max_bytes": bytes.max(1),
        });
        let batch = self.batch(stream, &request, messages.max(1) as usize).await?;
        let messages = batch
            .messages
            .iter()
            .map(|message| stored(message).map(|(_, stored)| stored))
            .collect::<Result<_, _>>()?;
        Ok(Page {
            messages,
            pending: batch.pending,
        })
    }

    /// At most `messages` messages of a stream from `from` on, with their addresses: what stands
    /// behind `root` in their subjects.
    pub(super) async fn sweep(
        &self,
        stream: &str,
        root: &str,
        from: Offset,
        messages: u32,
        bytes: u32,
    ) -> Result<Sweep, ReadError> {
        let request = json!({ "seq": from.max(1), "batch": messages.max(1), "max_bytes": bytes.max(1) });
        let batch = self.batch(stream, &request, messages.max(1) as usize).await?;
        let mut sweep = Sweep {
            messages: Vec::with_capacity(batch.messages.len()),
            pending: batch.pending,
        };
        for message in &batch.messages {
            let (subject, stored) = stored(message)?;
            let address = subject
                .strip_prefix(root)
                .and_then(|address| address.strip_prefix('.'));
            sweep
                .messages
                .push((address.ok_or_else(unusable)?.to_owned(), stored));
        }
        Ok(sweep)
    }

    /// The last sequence of each subject. `anchor` is asked for too, so that the answer always says
    /// how far the replica is: without a match it would not.
    ///
    /// JetStream sends the messages themselves. If they are more than an answer may hold, the
    /// subjects are asked for in smaller groups, and the answer is as old as its oldest part.
    pub(super) async fn last_of(
        &self,
        stream: &str,
        subjects: &[String],
        anchor: &str,
    ) -> Result<LastOf, ReadError> {
        if subjects.len() > MAX_SUBJECTS {
            return Err(ReadError::Failed(format!(
                "more than {MAX_SUBJECTS} channels asked for at once"
            )));
        }
        let mut answer = LastOf {
            up_to: Offset::MAX,
            last: Vec::with_capacity(subjects.len()),
        };
        let mut groups = vec![subjects];
        while let Some(group) = groups.pop() {
            let asked: Vec<_> = group.iter().map(String::as_str).chain([anchor]).collect();
            let mut request = json!({ "multi_last": asked });
            if group.len() > 1 {
                request["max_bytes"] = self.last_bytes.into();
            }
            let batch = self.batch(stream, &request, asked.len()).await?;
            if batch.pending > 0 && group.len() > 1 {
                let (first, second) = group.split_at(group.len() / 2);
                groups.extend([second, first]);
                continue;
            }
            let (Some(up_to), 0) = (batch.up_to, batch.pending) else {
                return Err(ReadError::NotNow("the shard has no anchor yet".to_owned()));
            };
            answer.up_to = answer.up_to.min(up_to);
            let found = sequences(&batch)?;
            answer
                .last
                .extend(group.iter().map(|subject| found.get(subject.as_str()).copied()));
        }
        Ok(answer)
    }

    /// The first message of a subject from `from` on, from the leader.
    pub(super) async fn leader_next(
        &self,
        stream: &str,
        subject: &str,
        from: Offset,
    ) -> Result<Option<Stored>, ReadError> {
        let request = json!({ "seq": from.max(1), "next_by_subj": subject });
        self.leader(stream, &request)
            .await?
            .map(LeaderMessage::stored)
            .transpose()
    }

    /// The time stamp of the message at `seq`, from the leader.
    pub(super) async fn time_at(&self, stream: &str, seq: Offset) -> Result<Option<i64>, ReadError> {
        let message = self
            .leader(stream, &json!({ "seq": seq.max(1), "no_hdr": true }))
            .await?;
        message.map(|message| message.time_ms()).transpose()
    }

    /// The first message stored at or after a time, from the leader.
    pub(super) async fn first_since(&self, stream: &str, time_ms: i64) -> Result<Option<Offset>, ReadError> {
        let start_time = stamp::format_ms(time_ms);
        let message = self
            .leader(stream, &json!({ "start_time": start_time, "no_hdr": true }))
            .await?;
        Ok(message.map(|message| message.seq))
    }

    /// The time stamp of the last message of a subject, from the leader.
    pub(super) async fn last_time(&self, stream: &str, subject: &str) -> Result<Option<i64>, ReadError> {
        let message = self.leader(stream, &json!({ "last_by_subj": subject })).await?;
        message.map(|message| message.time_ms()).transpose()
    }

    /// The id and the time of the last message of a subject, from the leader.
    pub(super) async fn last_id(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<(String, i64)>, ReadError> {
        let Some(message) = self.leader(stream, &json!({ "last_by_subj": subject })).await? else {
            return Ok(None);
        };
        let (time_ms, headers) = (message.time_ms()?, decode(&message.hdrs)?);
        let id = Headers::parse(&headers).message_id;
        Ok(id.map(|id| (id.to_owned(), time_ms)))
    }

    async fn leader(&self, stream: &str, request: &Value) -> Result<Option<LeaderMessage>, ReadError> {
        #[derive(Deserialize)]
        struct Answer {
            message: LeaderMessage,
        }
        let payload = payload_of(request)?;
        let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let answer = self.link.request(&subject, &payload).await;
        match answer
            .map_err(ApiError::from)
            .and_then(|raw| api::read::<Answer>(&raw.payload()))
        {
            Ok(answer) => Ok(Some(answer.message)),
            Err(ApiError::Refused(refusal)) if refusal.err_code == Refusal::NO_MESSAGE => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn batch(&self, stream: &str, request: &Value, most: usize) -> Result<Batch, ReadError> {
        let payload = payload_of(request)?;
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let answer = self.link.request_many(&subject, &payload, most).await;
        Batch::of(answer.map_err(|error| match error {
            Unanswered::Silence => ReadError::NoAnswer,
            Unanswered::NoResponders => ReadError::NotNow("no server has the shard".to_owned()),
        })?)
    }
}

fn payload_of(request: &impl Serialize) -> Result<Vec<u8>, ReadError> {
    serde_json::to_vec(request).map_err(|error| ReadError::Failed(error.to_string()))
}

/// The sequence of each subject in an answer.
fn sequences(batch: &Batch) -> Result<HashMap<&str, Offset>, ReadError> {
    let found = batch.messages.iter().map(|message| {
        let headers = Headers::parse(message.headers());
        headers.subject.zip(headers.sequence()).ok_or_else(unusable)
    });
    found.collect()
}

/// A message of a Direct Get with the subject it is stored under.
fn stored(message: &Raw) -> Result<(String, Stored), ReadError> {
    let headers = Headers::parse(message.headers());
    let (Some(subject), Some(seq), Some(time_ms)) = (headers.subject, headers.sequence(), headers.time_ms())
    else {
        return Err(unusable());
    };
    let body = envelope::body(&headers, message.payload());
    Ok((subject.to_owned(), Stored { seq, time_ms, body }))
}

fn unusable() -> ReadError {
    ReadError::Failed("a message without its sequence, time or subject".to_owned())
}

/// A message as STREAM.MSG.GET returns it.
#[derive(Deserialize)]
struct LeaderMessage {
    seq: Offset,
    /// The header block in base64.
    #[serde(default)]
    hdrs: String,
    /// The payload in base64.
    #[serde(default)]
    data: String,
    time: String,
}

fn decode(text: &str) -> Result<Vec<u8>, ReadError> {
    let decoded = STANDARD.decode(text);
    decoded.map_err(|error| ReadError::Failed(error.to_string()))
}

impl LeaderMessage {
    fn time_ms(&self) -> Result<i64, ReadError> {
        stamp::parse_ms(&self.time).ok_or_else(unusable)
    }

    fn stored(self) -> Result<Stored, ReadError> {
        let headers = decode(&self.hdrs)?;
        let data = Bytes::from(decode(&self.data)?);
        Ok(Stored {
            seq: self.seq,
            time_ms: self.time_ms()?,
            body: envelope::body(&Headers::parse(&headers), data),
        })
    }
}
