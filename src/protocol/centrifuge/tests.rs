//! Properties of both halves of the codec.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    model::{ChannelName, ClientInfo, Epoch, Kind, MAX_OFFSET, Position, Publication, Record},
    protocol::{ConnectResult, HistoryPage, Present, Push, Reply, ServerSubscription, SubscribeResult},
};

/// Text that is close to a command: most of it parses, and fails late.
fn nearly_a_command() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just(r#""id":1"#),
        Just(r#""id":4294967296"#),
        Just(r#""connect":"#),
        Just(r#""subscribe":"#),
        Just(r#""publish":"#),
        Just(r#""history":"#),
        Just(r#""channel":"a""#),
        Just(r#""data":"#),
        Just(r#""b64data":"A""#),
        Just(r#""since":"#),
        Just(r#""offset":"#),
        Just(r#""subs":"#),
        Just(r#""recover":true"#),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("1e999"),
        Just("-0"),
        Just("null"),
        Just("\n"),
        Just("\"\\ud800\""),
        Just(" "),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn any_info() -> impl Strategy<Value = ClientInfo> {
    (text(), text(), any::<bool>()).prop_map(|(client, user, raw)| ClientInfo {
        client,
        user,
        conn_info: raw.then(|| Bytes::from_static(b"[\n{}\r]")),
        chan_info: None,
    })
}

fn any_publication() -> impl Strategy<Value = Publication> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| (Kind::Bytes, bytes)),
        text().prop_map(|text| (
            Kind::Json,
            serde_json::to_vec_pretty(&serde_json::json!([{ "t": text }])).unwrap()
        )),
    ];
    (
        payload,
        0..=MAX_OFFSET,
        any::<i64>(),
        prop::option::of(any_info()),
        prop::collection::vec((text(), text()), 0..3),
    )
        .prop_map(|((kind, data), offset, time_ms, info, tags)| Publication {
            offset,
            time_ms,
            record: Record {
                kind,
                data: data.into(),
                info,
                tags,
            },
        })
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = decode(&text).count();
    }

    #[test]
    fn no_near_command_makes_the_decoder_panic(text in nearly_a_command()) {
        let commands = decode(&text).collect::<Vec<_>>();
        prop_assert!(!commands.is_empty());
        // What is taken for a command is JSON for another parser too.
        for (line, command) in text.split('\n').zip(&commands) {
            if command.is_ok() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn what_is_written_is_json_on_one_line(
        publication in any_publication(), name in text(), user in text(), offset in 0..=MAX_OFFSET,
    ) {
        let body = {
            let mut out = Vec::new();
            let range = encode_publication_body(&publication, &mut out);
            let data: Value = serde_json::from_slice(&out[range]).unwrap();
            let whole: Value = serde_json::from_slice(&out).unwrap();
            let field = if publication.record.kind == Kind::Json { "data" } else { "b64data" };
            prop_assert_eq!(&whole[field], &data);
            if publication.record.kind == Kind::Json {
                prop_assert_eq!(data, serde_json::from_slice::<Value>(&publication.record.data).unwrap());
            }
            out
        };
        let mut written = vec![body.clone()];
        let top = Position { offset, epoch: Epoch::new(&user) };
        let page = HistoryPage { publications: vec![publication.clone(), publication], top: top.clone() };
        let result = SubscribeResult { position: Some(top), was_recovering: true, ..SubscribeResult::default() };
        let mut reply = Vec::new();
        encode_subscribe_reply(1, &result, [&body[..], &body[..]], &mut reply);
        written.push(reply);
        let mut replies = vec![
            Reply::History { id: 1, page: Box::new(page) },
            Reply::Refresh { id: 1, client: user.as_str().into(), ttl: None },
        ];
        if let Ok(channel) = ChannelName::new(&name) {
            let info = Present {
                info: ClientInfo { user: user.clone(), ..ClientInfo::default() },
                state: None,
            };
            replies.push(Reply::Push(Push::Join { channel: channel.clone(), info }));
            let sub = ServerSubscription { channel: channel.clone(), result, bodies: vec![body.clone().into()] };
            let connect = ConnectResult { client: user.into(), subs: vec![sub], ..ConnectResult::default() };
            replies.push(Reply::Connect { id: 1, result: Box::new(connect) });
            let mut push = Vec::new();
            encode_push_prefix(&channel, &mut push);
            push.extend_from_slice(&body);
            push.extend_from_slice(PUSH_SUFFIX);
            let read: Value = serde_json::from_slice(&push).unwrap();
            prop_assert_eq!(read["push"]["channel"].as_str(), Some(name.as_str()));
            written.push(push);
        }
        for reply in &replies {
            let mut out = Vec::new();
            encode(reply, &mut out);
            written.push(out);
        }
        for message in written {
            prop_assert!(serde_json::from_slice::<Value>(&message).is_ok(), "{:?}", String::from_utf8_lossy(&message));
            prop_assert!(!message.contains(&b'\n') && !message.contains(&b'\r'));
        }
    }
}
