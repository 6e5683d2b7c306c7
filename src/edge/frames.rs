//! Replies and publications as WebSocket frames: written once, header included, shared by all.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    channel::{Encoder, Entry},
    model::{ChannelName, ClientInfo, Offset, Publication},
    presence::{self, Member},
    protocol::{Present, Push, Reply, SubscribeResult, centrifuge},
};

use super::websocket::{
    Opcode,
    encoder::{MAX_HEADER_BYTES, write_header},
};

/// Publications as frames of the Centrifuge dialect.
pub const ENCODER: Encoder = Encoder { publication, body };

/// Events of presence as frames of the Centrifuge dialect.
pub const PRESENCE: presence::Encoders = presence::Encoders {
    join: |channel, member| {
        push_of(Push::Join {
            channel: channel.clone(),
            info: present(member),
        })
    },
    leave: |channel, member| {
        push_of(Push::Leave {
            channel: channel.clone(),
            info: present(member),
        })
    },
    update: |channel, member| {
        push_of(Push::Update {
            channel: channel.clone(),
            info: present(member),
        })
    },
};

/// A member as clients are told of it.
pub fn present(member: &Member) -> Present {
    Present {
        info: ClientInfo {
            user: member.user.to_string(),
            client: member.client.to_string(),
            conn_info: member.conn_info.clone(),
            chan_info: member.chan_info.clone(),
        },
        state: member.state.clone(),
    }
}

fn push_of(push: Push) -> Bytes {
    reply(&Reply::Push(push))
}

/// Server's ping of the Centrifuge dialect: an empty object.
pub const PING: Bytes = Bytes::from_static(b"\x81\x02{}");

/// A reply or push as one frame.
pub fn reply(reply: &Reply) -> Bytes {
    let mut frame = Frame::new(256);
    centrifuge::encode(reply, &mut frame.0);
    // Written soon and let go: giving back what is left would cost more than it is worth.
    frame.finish().0
}

/// The reply to a subscribe with what was missed.
pub fn subscribe_reply(id: u32, result: &SubscribeResult, missed: &[Arc<Entry>]) -> Bytes {
    let bodies: Vec<Bytes> = missed.iter().map(|entry| entry.body()).collect();
    let size: usize = bodies.iter().map(|body| body.len() + 1).sum();
    let mut frame = Frame::new(256 + size);
    centrifuge::encode_subscribe_reply(id, result, bodies.iter().map(|body| &body[..]), &mut frame.0);
    frame.finish().0
}

fn publication(channel: &ChannelName, publication: &Publication) -> Arc<Entry> {
    let size = channel.as_str().len() + publication.record.data.len() + 192;
    push(channel, publication.offset, publication.time_ms, size, |out| {
        centrifuge::encode_publication_body(publication, out);
    })
}

fn body(channel: &ChannelName, offset: Offset, time_ms: i64, body: &[u8]) -> Arc<Entry> {
    let size = channel.as_str().len() + body.len() + 64;
    push(channel, offset, time_ms, size, |out| out.extend_from_slice(body))
}

fn push(
    channel: &ChannelName,
    offset: Offset,
    time_ms: i64,
    size: usize,
    write_body: impl FnOnce(&mut Vec<u8>),
) -> Arc<Entry> {
    let mut frame = Frame::new(size);
    centrifuge::encode_push_prefix(channel, &mut frame.0);
    let start = frame.0.len();
    write_body(&mut frame.0);
    let body = start..frame.0.len();
    frame.0.extend_from_slice(centrifuge::PUSH_SUFFIX);
    // Rings keep frames for long: what was reserved too much goes back.
    frame.0.shrink_to_fit();
    let (bytes, shift) = frame.finish();
    let place = |at: usize| u32::try_from(at - shift).unwrap_or(u32::MAX);
    let body: Range<u32> = place(body.start)..place(body.end);
    Entry::new(offset, time_ms, bytes, body)
}

/// A text frame being written, with room for the longest header in front.
struct Frame(Vec<u8>);

impl Frame {
    fn new(size: usize) -> Self {
        let mut buffer = Vec::with_capacity(MAX_HEADER_BYTES + size);
        buffer.resize(MAX_HEADER_BYTES, 0);
        Self(buffer)
    }

    /// The frame, and by how much positions in the buffer exceed those in the frame.
    fn finish(mut self) -> (Bytes, usize) {
        let mut header = [0; MAX_HEADER_BYTES];
        let len = write_header(Opcode::Text, self.0.len() - MAX_HEADER_BYTES, &mut header);
        let start = MAX_HEADER_BYTES - len;
        self.0[start..MAX_HEADER_BYTES].copy_from_slice(&header[..len]);
        (Bytes::from(self.0).slice(start..), start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Record};

    #[test]
    fn a_frame_holds_the_push_and_knows_its_body() {
        let channel = ChannelName::new("public:a\"b").unwrap();
        for size in [1, 100, 300, 70_000] {
            let data = format!("\"{}\"", "x".repeat(size));
            let record = Record {
                kind: Kind::Json,
                data: data.clone().into(),
                info: None,
                tags: vec![],
            };
            let entry = publication(
                &channel,
                &Publication {
                    offset: 7,
                    time_ms: 9,
                    record,
                },
            );
            let frame = entry.frame();
            let header = match frame[1] {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            let push: serde_json::Value = serde_json::from_slice(&frame[header..]).unwrap();
            assert_eq!(push["push"]["channel"], "public:a\"b");
            let inner: serde_json::Value = serde_json::from_slice(&entry.body()).unwrap();
            assert_eq!(push["push"]["pub"], inner);
            assert_eq!(inner["offset"], 7);
            let again = body(&channel, 7, 9, &entry.body());
            assert_eq!(again.frame(), frame);
        }
    }
}
