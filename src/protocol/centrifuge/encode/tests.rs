use bytes::Bytes;

use crate::{
    model::{ChannelName, ClientInfo, Epoch, Kind, Position, Publication, Record},
    protocol::{
        ConnectResult, DisconnectCode, ErrorCode, HistoryPage, Present, PublishResult, Push, Reply,
        ServerSubscription, SubscribeResult, UnsubscribeCode, centrifuge::*,
    },
};

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn position(offset: u64) -> Option<Position> {
    Some(Position {
        offset,
        epoch: Epoch::new("e1"),
    })
}

fn publication(kind: Kind, data: &'static [u8]) -> Publication {
    Publication {
        offset: 7,
        time_ms: 1_700_000_000_000,
        record: Record {
            kind,
            data: Bytes::from_static(data),
            info: None,
            tags: Vec::new(),
        },
    }
}

fn present() -> Present {
    Present {
        info: info(),
        state: None,
    }
}

fn info() -> ClientInfo {
    ClientInfo {
        client: "c1".to_owned(),
        user: "ann".to_owned(),
        conn_info: Some(Bytes::from_static(b"{\"n\":\n1}")),
        chan_info: None,
    }
}

#[test]
fn replies_are_written() {
    let subscribed = SubscribeResult {
        ttl: Some(60),
        recoverable: true,
        positioned: true,
        position: position(7),
        recovered: true,
        was_recovering: true,
        data: Some(Bytes::from_static(b"{\"w\":1}")),
    };
    let version = env!("CARGO_PKG_VERSION");
    let connect = ConnectResult {
        client: "c1".into(),
        ping: 25,
        pong: true,
        ..ConnectResult::default()
    };
    let with_subs = ConnectResult {
        ttl: Some(600),
        subs: vec![ServerSubscription {
            channel: channel("a\"b"),
            result: SubscribeResult {
                data: None,
                ttl: None,
                ..subscribed.clone()
            },
            bodies: vec![Bytes::from_static(b"{\"data\":1,\"offset\":7}")],
        }],
        ..connect.clone()
    };
    let page = HistoryPage {
        publications: vec![publication(Kind::Json, b"1"), publication(Kind::Json, b"2")],
        top: Position {
            offset: 9,
            epoch: Epoch::new("e1"),
        },
    };
    for (reply, written) in [
        (
            Reply::Error { id: 2, code: ErrorCode::Internal },
            r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#.to_owned(),
        ),
        (
            Reply::Error { id: 2, code: ErrorCode::PermissionDenied },
            r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#.to_owned(),
        ),
        (
            Reply::Connect { id: 1, result: Box::new(connect) },
            format!(r#"{{"id":1,"connect":{{"client":"c1","version":"{version}","ping":25,"pong":true}}}}"#),
        ),
        (
            Reply::Connect { id: 1, result: Box::new(with_subs) },
            format!(
                r#"{{"id":1,"connect":{{"client":"c1","version":"{version}","expires":true,"ttl":600,"subs":{{"a\"b":{{"recoverable":true,"epoch":"e1","offset":7,"publications":[{{"data":1,"offset":7}}],"recovered":true,"positioned":true,"was_recovering":true}}}},"ping":25,"pong":true}}}}"#
            ),
        ),
        (Reply::Unsubscribe { id: 3 }, r#"{"id":3,"unsubscribe":{}}"#.to_owned()),
        (
            Reply::Publish { id: 4, result: PublishResult::default() },
            r#"{"id":4,"publish":{}}"#.to_owned(),
        ),
        (
            Reply::Publish { id: 4, result: PublishResult { position: position(7), duplicate: true } },
            r#"{"id":4,"publish":{"epoch":"e1","offset":7,"duplicate":true}}"#.to_owned(),
        ),
        (
            Reply::History { id: 5, page: Box::new(page) },
            r#"{"id":5,"history":{"publications":[{"data":1,"offset":7,"time":1700000000000},{"data":2,"offset":7,"time":1700000000000}],"epoch":"e1","offset":9}}"#.to_owned(),
        ),
        (
            Reply::History { id: 5, page: Box::new(HistoryPage::empty(Epoch::new("e1"), 0)) },
            r#"{"id":5,"history":{"publications":[],"epoch":"e1","offset":0}}"#.to_owned(),
        ),
        (
            Reply::Presence { id: 6, clients: vec![present()] },
            r#"{"id":6,"presence":{"presence":{"c1":{"user":"ann","client":"c1","conn_info":{"n":1}}}}}"#.to_owned(),
        ),
        (
            Reply::Presence { id: 6, clients: Vec::new() },
            r#"{"id":6,"presence":{"presence":{}}}"#.to_owned(),
        ),
        (
            Reply::PresenceStats { id: 6, clients: 0, users: 0 },
            r#"{"id":6,"presence_stats":{"num_clients":0,"num_users":0}}"#.to_owned(),
        ),
        (Reply::Rpc { id: 6, data: Bytes::from_static(b"[1]") }, r#"{"id":6,"rpc":{"data":[1]}}"#.to_owned()),
        (
            Reply::Refresh { id: 7, client: "c1".into(), ttl: Some(60) },
            format!(r#"{{"id":7,"refresh":{{"client":"c1","version":"{version}","expires":true,"ttl":60}}}}"#),
        ),
        (Reply::SubRefresh { id: 8, ttl: None }, r#"{"id":8,"sub_refresh":{}}"#.to_owned()),
        (
            Reply::Push(Push::Unsubscribe { channel: channel("a"), code: UnsubscribeCode::Server }),
            r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#.to_owned(),
        ),
        (
            Reply::Push(Push::Disconnect { code: DisconnectCode::Shutdown }),
            r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#.to_owned(),
        ),
        (
            Reply::Push(Push::Subscribe { channel: channel("a"), result: subscribed }),
            r#"{"push":{"channel":"a","subscribe":{"recoverable":true,"epoch":"e1","offset":7,"positioned":true,"data":{"w":1}}}}"#.to_owned(),
        ),
        (
            Reply::Push(Push::Join { channel: channel("a"), info: present() }),
            r#"{"push":{"channel":"a","join":{"info":{"user":"ann","client":"c1","conn_info":{"n":1}}}}}"#.to_owned(),
        ),
        (
            Reply::Push(Push::Leave { channel: channel("a"), info: Present::default() }),
            r#"{"push":{"channel":"a","leave":{"info":{"user":"","client":""}}}}"#.to_owned(),
        ),
        (
            Reply::Push(Push::Message { data: Bytes::from_static(b"\"m\"") }),
            r#"{"push":{"message":{"data":"m"}}}"#.to_owned(),
        ),
        (
            Reply::Push(Push::Refresh { ttl: Some(60) }),
            r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#.to_owned(),
        ),
    ] {
        let mut out = Vec::new();
        encode(&reply, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), written, "{reply:?}");
    }
}

#[test]
fn a_subscribe_reply_joins_ready_bodies() {
    let result = SubscribeResult {
        was_recovering: true,
        recovered: true,
        ..SubscribeResult::default()
    };
    let bodies: [&[u8]; 2] = [b"{\"data\":1}", b"{\"data\":2}"];
    for (result, bodies, written) in [
        (
            SubscribeResult::default(),
            &bodies[..0],
            r#"{"id":2,"subscribe":{}}"#,
        ),
        (
            SubscribeResult {
                position: position(0),
                recoverable: true,
                positioned: true,
                ..result.clone()
            },
            &bodies[..0],
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e1","recovered":true,"positioned":true,"was_recovering":true}}"#,
        ),
        (
            result,
            &bodies[..],
            r#"{"id":2,"subscribe":{"publications":[{"data":1},{"data":2}],"recovered":true,"was_recovering":true}}"#,
        ),
    ] {
        let mut out = Vec::new();
        encode_subscribe_reply(2, &result, bodies.iter().copied(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }
}

#[test]
fn a_push_is_prefix_body_suffix_and_bytes_are_never_raw() {
    let mut full = publication(Kind::Json, b"{\"a\":\r\n1}");
    full.record.info = Some(info());
    full.record.tags = vec![("k\"".to_owned(), "v\n".to_owned())];
    let mut ephemeral = publication(Kind::Json, b"1");
    (ephemeral.offset, ephemeral.time_ms) = (0, 0);
    for (publication, written, data) in [
        (
            full,
            r#"{"push":{"channel":"a\"","pub":{"data":{"a":1},"info":{"user":"ann","client":"c1","conn_info":{"n":1}},"offset":7,"tags":{"k\"":"v\n"},"time":1700000000000}}}"#,
            r#"{"a":1}"#,
        ),
        (ephemeral, r#"{"push":{"channel":"a\"","pub":{"data":1}}}"#, "1"),
        (
            publication(Kind::Bytes, b"\xff\n\""),
            r#"{"push":{"channel":"a\"","pub":{"data":null,"b64data":"/woi","offset":7,"time":1700000000000}}}"#,
            r#""/woi""#,
        ),
        (
            publication(Kind::Json, b""),
            r#"{"push":{"channel":"a\"","pub":{"data":null,"offset":7,"time":1700000000000}}}"#,
            "null",
        ),
    ] {
        let mut out = Vec::new();
        encode_push_prefix(&channel("a\""), &mut out);
        let range = encode_publication_body(&publication, &mut out);
        out.extend_from_slice(PUSH_SUFFIX);
        assert_eq!(std::str::from_utf8(&out).unwrap(), written);
        assert_eq!(&out[range], data.as_bytes());
    }
}
