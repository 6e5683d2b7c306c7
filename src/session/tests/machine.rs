use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::Value;

use super::owner::{CLIENT, Event, Owner, UNIX_S, app, limits};
use crate::{
    model::{AppId, ChannelName, ConnectClaims, TokenError},
    protocol::{DisconnectCode, ErrorCode, PublishResult, UnsubscribeCode, centrifuge},
    session::*,
};

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// Issue 3: at most 6 KiB for an idle connection, of which this is a small part.
#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
    let owner = Owner::connected(CONNECT);
    assert_eq!(owner.session.channels().count(), 0);
}

#[test]
fn nothing_is_said_when_there_is_nothing_to_say() {
    let mut owner = Owner::connected(CONNECT);
    let deadline = owner.session.next_deadline().unwrap();
    let mut effects = Vec::new();
    let before = Now {
        mono_ms: deadline - 1,
        unix_s: UNIX_S,
    };
    owner.session.on_tick(before, &mut effects);
    owner.session.on_send_progress(before);
    assert_eq!(effects.capacity(), 0);
    assert_eq!(owner.session.next_deadline(), Some(deadline));
}

#[test]
fn first_pings_are_spread_over_the_second_half_of_the_interval() {
    let mut halves = [0; 2];
    for client in 0..200 {
        let now = Now {
            mono_ms: 1_000,
            unix_s: UNIX_S,
        };
        let client = format!("client-{client}");
        let mut session = Session::new(Arc::new(app(true)), Arc::new(limits()), client, now);
        let command = centrifuge::decode(CONNECT).next().unwrap().unwrap();
        session.on_command(command, now, &mut Vec::new());
        let after = session.next_deadline().unwrap() - now.mono_ms;
        assert!((12_500..25_000).contains(&after), "{after}");
        halves[usize::from(after >= 18_750)] += 1;
    }
    assert!(halves.iter().all(|count| *count > 50), "{halves:?}");
}

#[test]
fn without_pings_there_is_no_deadline_and_no_pong() {
    let limits = Limits {
        ping_interval_ms: 0,
        ..limits()
    };
    let now = Now::default();
    let mut session = Session::new(Arc::new(app(true)), Arc::new(limits), CLIENT.to_owned(), now);
    let mut effects = Vec::new();
    let mut commands = centrifuge::decode("{\"id\":1,\"connect\":{}}\n{}");
    session.on_command(commands.next().unwrap().unwrap(), now, &mut effects);
    assert_eq!(session.next_deadline(), None);
    session.on_command(commands.next().unwrap().unwrap(), now, &mut effects);
    assert_eq!(effects.last(), Some(&Effect::Close(DisconnectCode::BadRequest)));
}

#[test]
fn a_closed_session_is_deaf() {
    let mut owner = Owner::connected(CONNECT);
    owner.receive(
        "{\"id\":2,\"subscribe\":{\"channel\":\"public:a\"}}\n{\"id\":3,\"publish\":{\"channel\":\"public:a\",\"data\":1}}",
    );
    let order = owner.joins[0].clone();
    owner.give(|session, _, out| session.close(DisconnectCode::Shutdown, out));
    owner.events.clear();
    owner.give(|session, now, out| {
        session.on_subscribed(&order.channel, order.generation, Ok(()), out);
        session.on_subscribed(&order.channel, order.generation, Err(ErrorCode::Internal), out);
        session.on_published(3, Ok(PublishResult::default()), out);
        session.on_history(3, Err(ErrorCode::Internal), out);
        session.on_connect_verified(Ok(ConnectClaims::default()), now, out);
        session.on_server_subscribed(Ok(Vec::new()), now, out);
        session.on_refresh_verified(3, Err(TokenError::Expired), now, out);
        session.on_subscribe_verified(
            &order.channel,
            order.generation,
            Err(TokenError::Expired),
            now,
            out,
        );
        session.on_sub_refresh_verified(
            3,
            &order.channel,
            order.generation,
            Err(TokenError::Expired),
            now,
            out,
        );
        let code = UnsubscribeCode::InsufficientState;
        session.on_unsubscribed_by_server(&order.channel, order.generation, code, out);
        session.close(DisconnectCode::Slow, out);
        session.on_tick(
            Now {
                mono_ms: u64::MAX,
                unix_s: i64::MAX,
            },
            out,
        );
    });
    owner.receive("{}\n{\"id\":9,\"ping\":{}}");
    assert_eq!(owner.events, []);
    assert_eq!(owner.session.next_deadline(), None);
}

#[test]
fn what_belongs_to_an_earlier_subscription_does_not_touch_the_next() {
    let mut owner = Owner::connected(CONNECT);
    let subscribe = |id| format!(r#"{{"id":{id},"subscribe":{{"channel":"public:a"}}}}"#);
    owner.receive(&subscribe(2));
    let first = owner.joins[0].clone();
    owner.receive(r#"{"id":3,"unsubscribe":{"channel":"public:a"}}"#);
    owner.receive(&subscribe(4));
    owner.events.clear();
    owner.give(|session, _, out| {
        session.on_subscribed(&first.channel, first.generation, Ok(()), out);
        session.on_subscribed(&first.channel, first.generation, Err(ErrorCode::Internal), out);
        let code = UnsubscribeCode::InsufficientState;
        session.on_unsubscribed_by_server(&first.channel, first.generation, code, out);
    });
    assert_eq!(owner.events, []);
    owner.join(0, None, false, &[]);
    assert_eq!(
        owner.events,
        [Event::Message(r#"{"id":4,"subscribe":{}}"#.to_owned())]
    );
}

#[test]
fn what_is_published_says_who_published_it() {
    let mut owner = Owner::new(false);
    owner.receive(
        r#"{"id":1,"connect":{"token":"user=ann;info={\"n\":\n1}"}}"#
            .replace("\\n", "\\r")
            .as_str(),
    );
    owner.receive(r#"{"id":2,"subscribe":{"channel":"chat:a","token":"user=ann;channel=chat:a;info=[2]"}}"#);
    owner.join(0, None, false, &[]);
    owner.receive(
        "{\"id\":3,\"publish\":{\"channel\":\"chat:a\",\"data\":1}}\n{\"id\":4,\"publish\":{\"channel\":\"public:a\",\"b64data\":\"/w==\"}}",
    );
    for (chan_info, data) in [(Some("[2]"), &b"1"[..]), (None, &b"\xff"[..])] {
        let record = owner.publishes.pop_front().unwrap().record;
        let info = record.info.unwrap();
        assert_eq!((info.client.as_str(), info.user.as_str()), (CLIENT, "ann"));
        assert_eq!(info.conn_info.as_deref(), Some(&b"{\"n\":1}"[..]));
        assert_eq!(info.chan_info.as_deref(), chan_info.map(str::as_bytes));
        assert_eq!(record.data, data);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u8, bool),
    Unsubscribe(u8),
    Publish(u8),
    SubRefresh(u8),
    Join(usize),
    FailJoin(usize),
    Verify,
    Publishes,
    End(usize),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, any::<bool>()).prop_map(|(channel, token)| Step::Subscribe(channel, token)),
        3 => (0..3_u8).prop_map(Step::Unsubscribe),
        1 => (0..3_u8).prop_map(Step::Publish),
        1 => (0..3_u8).prop_map(Step::SubRefresh),
        3 => any::<usize>().prop_map(Step::Join),
        1 => any::<usize>().prop_map(Step::FailJoin),
        3 => Just(Step::Verify),
        1 => Just(Step::Publishes),
        1 => any::<usize>().prop_map(Step::End),
        1 => (0..8_000_u16).prop_map(Step::Wait),
    ]
}

fn take(owner: &mut Owner, id: u32, step: &Step) {
    let at = |nth: usize, of: usize| nth.checked_rem(of);
    match *step {
        Step::Subscribe(channel, false) => {
            owner.receive(&format!(r#"{{"id":{id},"subscribe":{{"channel":"club:{channel}"}}}}"#));
        }
        Step::Subscribe(channel, true) => owner.receive(&format!(
            r#"{{"id":{id},"subscribe":{{"channel":"club:{channel}","token":"channel=club:{channel};exp=10;slow"}}}}"#
        )),
        Step::Unsubscribe(channel) => {
            owner.receive(&format!(r#"{{"id":{id},"unsubscribe":{{"channel":"club:{channel}"}}}}"#));
        }
        Step::Publish(channel) => {
            owner.receive(&format!(r#"{{"id":{id},"publish":{{"channel":"club:{channel}","data":1}}}}"#));
        }
        Step::SubRefresh(channel) => owner.receive(&format!(
            r#"{{"id":{id},"sub_refresh":{{"channel":"club:{channel}","token":"channel=club:{channel};exp=60;slow"}}}}"#
        )),
        Step::Join(nth) => {
            if let Some(at) = at(nth, owner.joins.len()) {
                owner.join(at, None, false, &[]);
            }
        }
        Step::FailJoin(nth) => {
            if let Some(at) = at(nth, owner.joins.len()) {
                owner.fail_join(at, ErrorCode::Internal);
            }
        }
        Step::Verify => {
            if let Some(verification) = owner.verifications.pop_front() {
                owner.verify(verification);
            }
        }
        Step::Publishes => {
            while let Some(order) = owner.publishes.pop_front() {
                owner.give(|session, _, out| session.on_published(order.id, Err(ErrorCode::Internal), out));
            }
        }
        Step::End(nth) => {
            if let Some(at) = at(nth, owner.tails.len()) {
                let (channel, generation) = owner.tails[at].clone();
                let code = UnsubscribeCode::InsufficientState;
                owner.give(|session, _, out| {
                    session.on_unsubscribed_by_server(&channel, generation, code, out);
                });
            }
        }
        Step::Wait(ms) => {
            owner.wait(u64::from(ms));
            if owner.events.back() == Some(&Event::Message("{}".to_owned())) {
                owner.receive("{}");
            }
        }
    }
}

proptest! {
    /// However commands, results and time interleave: each command is answered once, the answer to
    /// an unsubscribe comes after those to the subscribes before it, and no join leaks.
    #[test]
    fn every_command_is_answered_once_and_no_tail_leaks(steps in prop::collection::vec(step(), 0..60)) {
        let mut owner = Owner::connected(CONNECT);
        let mut commands = BTreeMap::new();
        for (id, step) in (2..).zip(&steps) {
            if !owner.session.is_connected() {
                break;
            }
            if let Step::Subscribe(channel, _) | Step::Unsubscribe(channel) = step {
                commands.insert(id, (*channel, matches!(step, Step::Unsubscribe(_))));
            } else if let Step::Publish(_) | Step::SubRefresh(_) = step {
                commands.insert(id, (u8::MAX, false));
            }
            take(&mut owner, id, step);
        }
        while owner.session.is_connected() && !owner.verifications.is_empty() {
            take(&mut owner, 0, &Step::Verify);
        }
        while owner.session.is_connected() && !owner.joins.is_empty() {
            take(&mut owner, 0, &Step::Join(0));
        }
        take(&mut owner, 0, &Step::Publishes);

        let closed = matches!(owner.events.back(), Some(Event::Close(_)));
        let mut answered = Vec::new();
        for event in &owner.events {
            let Event::Message(message) = event else { continue };
            let message: Value = serde_json::from_str(message).unwrap();
            if let Some(id) = message["id"].as_u64() {
                answered.push(u32::try_from(id).unwrap());
            }
        }
        for (nth, id) in answered.iter().enumerate() {
            prop_assert!(!answered[..nth].contains(id), "{id} is answered twice");
            let (channel, is_unsubscribe) = commands[id];
            let late = answered[nth..].iter().find(|later| **later < *id && commands[*later] == (channel, false));
            prop_assert!(!is_unsubscribe || late.is_none(), "{late:?} is answered after {id}");
        }
        if !closed {
            prop_assert_eq!(answered.len(), commands.len());
            let mut tails = owner.tails.iter().map(|(channel, _)| channel.clone()).collect::<Vec<ChannelName>>();
            tails.sort();
            prop_assert_eq!(tails, owner.session.channels().cloned().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_session_changes_its_app_only_while_its_token_is_verified() {
    let other = || {
        Arc::new(AppView {
            id: AppId::new("other").unwrap(),
            ..app(false)
        })
    };
    let mut session = Session::new(
        Arc::new(app(true)),
        Arc::new(limits()),
        CLIENT.to_owned(),
        Now::default(),
    );
    let own = session.app().id.clone();
    let mut out = Vec::new();
    session.adopt(other());
    assert_eq!(session.app().id, own, "before the connect");
    let mut commands = centrifuge::decode(r#"{"id":1,"connect":{"token":"t"}}"#);
    session.on_command(commands.next().unwrap().unwrap(), Now::default(), &mut out);
    session.adopt(other());
    assert_eq!(session.app().id.as_str(), "other");
    session.on_connect_verified(Ok(ConnectClaims::default()), Now::default(), &mut out);
    assert!(session.is_connected());
    session.adopt(Arc::new(app(true)));
    assert_eq!(session.app().id.as_str(), "other", "once connected");
}
