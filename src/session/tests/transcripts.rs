//! Replays `tests/protocol/*.jsonl`: what client and server say to each other, line by line.
//! `tests/protocol/README.md` has the format.

use std::{collections::BTreeSet, fs, path::Path};

use bytes::Bytes;
use serde_json::Value;

use super::owner::{Event, Owner, UNIX_S};
use crate::{
    model::{BackendOrder, BackendSubscribe, ChannelName, Epoch, Kind, Position, Publication, Record},
    protocol::{DisconnectCode, ErrorCode, HistoryPage, PublishResult, UnsubscribeCode, centrifuge},
};

/// Codes that this server has no occasion to send, with the reason in `docs/protocol.md`.
const NEVER_SENT: [u16; 6] = [0, 1, 101, 110, 113, 3000];

#[test]
fn transcripts_are_replayed_and_show_every_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol");
    let mut shown = BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files += 1;
            replay(
                &path.display().to_string(),
                &fs::read_to_string(&path).unwrap(),
                &mut shown,
            );
        }
    }
    assert!(files > 0);
    let all = ErrorCode::ALL.iter().map(|code| code.code());
    let all = all.chain(DisconnectCode::ALL.iter().map(|code| code.code()));
    let all = all.chain(UnsubscribeCode::ALL.iter().map(|code| code.code()));
    let sent = all
        .filter(|code| !NEVER_SENT.contains(code))
        .collect::<BTreeSet<_>>();
    assert_eq!(
        sent, shown,
        "codes that no transcript shows, or that should never be sent"
    );
}

fn replay(file: &str, text: &str, shown: &mut BTreeSet<u16>) {
    let mut owner: Option<Owner> = None;
    for (nth, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", nth + 1);
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{place}: {error}"));
        let (key, value) = line.as_object().and_then(|line| line.iter().next()).unwrap();
        if key == "note" {
            continue;
        }
        if key == "open" {
            finish(owner.take(), &place);
            owner = Some(Owner::new(value["anonymous"].as_bool().unwrap()));
            continue;
        }
        let owner = owner
            .as_mut()
            .unwrap_or_else(|| panic!("{place}: no connection is open"));
        match key.as_str() {
            "in" => owner.receive(value.as_str().unwrap()),
            "wait" => owner.wait(value.as_u64().unwrap()),
            "deadline" => {
                let deadline = owner.session.next_deadline().unwrap();
                owner.wait(deadline.saturating_sub(owner.now.mono_ms));
            }
            "server" => serve(owner, value, &place),
            _ => {
                let found = owner.events.pop_front();
                let expected = expected(key, value, shown);
                assert_eq!(found.as_ref(), Some(&expected), "{place}");
            }
        }
    }
    finish(owner, file);
}

fn finish(owner: Option<Owner>, place: &str) {
    if let Some(owner) = owner {
        assert_eq!(owner.events, [], "{place}: more than the transcript has");
        assert!(
            owner.joins.is_empty()
                && owner.server_joins.is_empty()
                && owner.publishes.is_empty()
                && owner.histories.is_empty(),
            "{place}"
        );
    }
}

fn expected(key: &str, value: &Value, shown: &mut BTreeSet<u16>) -> Event {
    match key {
        "out" => {
            let text = value.as_str().unwrap();
            let message: Value = serde_json::from_str(text).unwrap();
            let code = message
                .pointer("/error/code")
                .or(message.pointer("/push/unsubscribe/code"));
            shown.extend(code.map(number));
            Event::Message(text.replace("VERSION", env!("CARGO_PKG_VERSION")))
        }
        "left" => Event::Left(ChannelName::new(value.as_str().unwrap()).unwrap()),
        "close" => {
            let number = number(&value["code"]);
            let Some(code) = DisconnectCode::ALL.iter().find(|code| code.code() == number) else {
                // A backend's own.
                return Event::CloseWith(number, value["reason"].as_str().unwrap().to_owned());
            };
            assert_eq!(value["reason"], code.message());
            shown.insert(code.code());
            Event::Close(*code)
        }
        other => panic!("unknown line {other}"),
    }
}

/// Something that happens behind the session.
fn serve(owner: &mut Owner, value: &Value, place: &str) {
    let (what, with) = value.as_object().and_then(|value| value.iter().next()).unwrap();
    let channel = with["channel"]
        .as_str()
        .map(|name| ChannelName::new(name).unwrap());
    let failure = ErrorCode::ALL
        .iter()
        .copied()
        .find(|code| u64::from(code.code()) == with["error"]);
    match what.as_str() {
        "join" => {
            let at = owner
                .joins
                .iter()
                .position(|order| Some(&order.channel) == channel.as_ref());
            let at = at.unwrap_or_else(|| panic!("{place}: no join is ordered"));
            match failure {
                Some(code) => owner.fail_join(at, code),
                None => {
                    let missed = publications(&with["publications"]);
                    let bodies = missed.iter().map(|publication| {
                        let mut body = Vec::new();
                        centrifuge::encode_publication_body(publication, &mut body);
                        body
                    });
                    let recovered = with["recovered"].as_bool().unwrap_or_default();
                    owner.join(at, position(with), recovered, &bodies.collect::<Vec<_>>());
                }
            }
        }
        "join_all" => owner.join_all(failure.map_or(Ok(position(with)), Err)),
        "publish" => {
            let order = owner.publishes.pop_front().unwrap();
            let duplicate = with["duplicate"].as_bool().unwrap_or_default();
            let result = failure.map_or(
                Ok(PublishResult {
                    position: position(with),
                    duplicate,
                }),
                Err,
            );
            owner.give(|session, _, out| session.on_published(order.id, result, out));
        }
        "history" => {
            let order = owner.histories.pop_front().unwrap();
            if let Some(limit) = with["limit"].as_i64() {
                assert_eq!(i64::from(order.query.limit), limit, "{place}");
            }
            let page = || HistoryPage {
                publications: publications(&with["publications"]),
                top: position(with).unwrap(),
            };
            let result = failure.map_or_else(|| Ok(page()), Err);
            owner.give(|session, _, out| session.on_history(order.id, result, out));
        }
        "live" => {
            let channel = channel.unwrap();
            assert!(
                owner.tails.iter().any(|(tail, _)| *tail == channel),
                "{place}: no tail"
            );
            let mut push = Vec::new();
            centrifuge::encode_push_prefix(&channel, &mut push);
            centrifuge::encode_publication_body(&publication(with), &mut push);
            push.extend_from_slice(centrifuge::PUSH_SUFFIX);
            owner.message(push);
        }
        "verify" => {
            let verification = owner.verifications.pop_front().unwrap();
            owner.verify(verification);
        }
        "progress" => owner.give(|session, now, _| session.on_send_progress(now)),
        "end" => {
            let channel = channel.unwrap();
            let code = UnsubscribeCode::ALL
                .iter()
                .find(|code| code.code() == number(&with["code"]))
                .unwrap();
            let (_, generation) = *owner.tails.iter().find(|(tail, _)| *tail == channel).unwrap();
            owner.give(|session, _, out| session.on_unsubscribed_by_server(&channel, generation, *code, out));
        }
        "close" => {
            let code = DisconnectCode::ALL
                .iter()
                .find(|code| code.code() == number(&with["code"]))
                .unwrap();
            owner.give(|session, _, out| session.close(*code, out));
        }
        "order" => {
            let order = order(with, channel);
            owner.give(|session, now, out| session.on_order(order, now, out));
        }
        other => panic!("{place}: unknown {other}"),
    }
}

/// What a backend wants.
fn order(with: &Value, channel: Option<ChannelName>) -> BackendOrder {
    let raw = |field: &str| Some(Bytes::from(with.get(field)?.to_string()));
    let seconds = |field: &str| with[field].as_i64().map(|later| UNIX_S + later);
    match with["do"].as_str().unwrap() {
        "subscribe" => BackendOrder::Subscribe(Box::new(BackendSubscribe {
            channel: channel.unwrap(),
            info: raw("info"),
            data: raw("data"),
            recover: position(with),
            expires_at: seconds("expires_in"),
        })),
        "unsubscribe" => BackendOrder::Unsubscribe(channel.unwrap()),
        "expire" => BackendOrder::Expire,
        "refresh" => BackendOrder::Refresh {
            expires_at: seconds("expires_in"),
            info: raw("info"),
        },
        "message" => BackendOrder::Message(raw("data").unwrap()),
        "disconnect" => BackendOrder::Disconnect {
            code: number(&with["code"]),
            reason: with["reason"].as_str().unwrap().into(),
        },
        other => panic!("unknown order {other}"),
    }
}

fn number(value: &Value) -> u16 {
    u16::try_from(value.as_u64().unwrap()).unwrap()
}

fn position(with: &Value) -> Option<Position> {
    let epoch = Epoch::new(with["epoch"].as_str()?);
    Some(Position {
        offset: with["offset"].as_u64().unwrap(),
        epoch,
    })
}

fn publications(list: &Value) -> Vec<Publication> {
    list.as_array().into_iter().flatten().map(publication).collect()
}

fn publication(with: &Value) -> Publication {
    let data = Bytes::from(with["data"].to_string());
    Publication {
        offset: with["offset"].as_u64().unwrap_or_default(),
        time_ms: 0,
        record: Record {
            kind: Kind::Json,
            data,
            info: None,
            tags: Vec::new(),
        },
    }
}
