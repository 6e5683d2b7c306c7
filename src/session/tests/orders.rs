//! What backends have done to a connection.

use super::owner::{Event, Owner, UNIX_S};
use crate::{
    model::{BackendOrder, BackendSubscribe, ChannelName, Epoch, Position},
    protocol::{DisconnectCode, ErrorCode},
};

const CONNECT: &str = r#"{"id":1,"connect":{"token":"user=ann"}}"#;

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn subscribe(name: &str) -> BackendOrder {
    BackendOrder::Subscribe(Box::new(BackendSubscribe {
        channel: channel(name),
        info: Some("{\n}".into()),
        data: Some("[1]".into()),
        recover: None,
        expires_at: None,
    }))
}

fn order(owner: &mut Owner, order: BackendOrder) -> Vec<Event> {
    owner.give(|session, now, out| session.on_order(order, now, out));
    owner.events.drain(..).collect()
}

fn message(text: &str) -> Event {
    Event::Message(text.to_owned())
}

#[test]
fn nothing_is_done_before_the_connect_is_answered() {
    let mut owner = Owner::new(true);
    for early in [
        subscribe("public:a"),
        BackendOrder::Expire,
        BackendOrder::Message("1".into()),
    ] {
        assert_eq!(order(&mut owner, early), []);
    }
}

#[test]
fn it_closes_with_the_code_and_reason_given() {
    let mut owner = Owner::connected(CONNECT);
    let disconnect = BackendOrder::Disconnect {
        code: 4_321,
        reason: "enough".into(),
    };
    assert_eq!(
        order(&mut owner, disconnect),
        [Event::CloseWith(4_321, "enough".to_owned())]
    );
    assert_eq!(order(&mut owner, BackendOrder::Message("1".into())), []);

    let mut owner = Owner::connected(CONNECT);
    assert_eq!(
        order(&mut owner, BackendOrder::Expire),
        [Event::Close(DisconnectCode::Expired)]
    );
}

#[test]
fn a_message_and_a_refresh_are_pushed() {
    let mut owner = Owner::connected(CONNECT);
    let pushed = order(&mut owner, BackendOrder::Message("{\n\"a\":1}".into()));
    assert_eq!(pushed, [message(r#"{"push":{"message":{"data":{"a":1}}}}"#)]);
    let refresh = |expires_at| BackendOrder::Refresh {
        expires_at,
        info: None,
    };
    let pushed = order(&mut owner, refresh(Some(UNIX_S + 60)));
    assert_eq!(
        pushed,
        [message(r#"{"push":{"refresh":{"expires":true,"ttl":60}}}"#)]
    );
    owner.wait(60_000 + 24_999);
    assert!(owner.session.is_connected());
    // A ping.
    owner.events.clear();
    let pushed = order(&mut owner, refresh(None));
    assert_eq!(pushed, [message(r#"{"push":{"refresh":{}}}"#)]);
    let past = order(&mut owner, refresh(Some(UNIX_S - 60)));
    assert_eq!(past, [Event::Close(DisconnectCode::Expired)]);
}

#[test]
fn it_subscribes_once_and_ends_what_it_is_told_to() {
    let mut owner = Owner::connected(CONNECT);
    assert_eq!(order(&mut owner, subscribe("here:a")), []);
    assert_eq!(owner.joins.len(), 1);
    let ordered = &owner.joins[0];
    assert!(ordered.server_side && !ordered.listens);
    assert_eq!(ordered.data.as_deref(), Some(&b"[1]"[..]));
    let member = ordered.member.as_ref().unwrap();
    assert_eq!(
        (&*member.user, member.chan_info.as_deref()),
        ("ann", Some(&b"{}"[..]))
    );
    // Under way, and then there.
    assert_eq!(order(&mut owner, subscribe("here:a")), []);
    let ordered = owner.joins.remove(0);
    owner.tails.push((ordered.channel.clone(), ordered.generation));
    owner.give(|session, _, out| session.on_subscribed(&ordered.channel, ordered.generation, Ok(()), out));
    assert_eq!(order(&mut owner, subscribe("here:a")), []);
    assert!(owner.joins.is_empty());

    let ended = order(&mut owner, BackendOrder::Unsubscribe(channel("here:a")));
    let push = r#"{"push":{"channel":"here:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    assert_eq!(ended, [Event::Left(channel("here:a")), message(push)]);
    assert_eq!(
        order(&mut owner, BackendOrder::Unsubscribe(channel("here:a"))),
        []
    );
}

#[test]
fn a_subscription_that_cannot_be_made_says_nothing_to_the_client() {
    let mut owner = Owner::connected(CONNECT);
    assert_eq!(order(&mut owner, subscribe("nowhere:a")), []);
    assert_eq!(order(&mut owner, subscribe("public:a")), []);
    assert_eq!(owner.joins.len(), 1);
    owner.fail_join(0, ErrorCode::Internal);
    assert_eq!(owner.events, []);
    // It is as if it had not been.
    assert_eq!(order(&mut owner, subscribe("public:a")), []);
    assert_eq!(owner.joins.len(), 1);
}

#[test]
fn a_subscription_may_begin_in_the_past() {
    let mut owner = Owner::connected(CONNECT);
    let position = Position {
        offset: 7,
        epoch: Epoch::new("e"),
    };
    for (name, recovers) in [("public:a", true), ("norec:a", false)] {
        let subscribe = BackendOrder::Subscribe(Box::new(BackendSubscribe {
            channel: channel(name),
            info: None,
            data: None,
            recover: Some(position.clone()),
            expires_at: None,
        }));
        order(&mut owner, subscribe);
        let ordered = owner.joins.pop().unwrap();
        assert_eq!(ordered.recover.is_some(), recovers, "{name}");
    }
}

#[test]
fn what_is_still_being_joined_ends_as_well() {
    let push = r#"{"push":{"channel":"CHANNEL","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    let error = r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#;
    // By a client without and with a token, and by a backend.
    for (name, token) in [("public:a", ""), ("chat:a", "user=ann;channel=chat:a;slow")] {
        let mut owner = Owner::connected(CONNECT);
        owner.receive(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"{name}","token":"{token}"}}}}"#
        ));
        let ended = order(&mut owner, BackendOrder::Unsubscribe(channel(name)));
        let push = message(&push.replace("CHANNEL", name));
        assert!(
            ended.contains(&push) && ended.contains(&message(error)),
            "{ended:?}"
        );
        assert_eq!(owner.session.channels().count(), 0);
        assert!(owner.joins.is_empty());
    }
    let mut owner = Owner::connected(CONNECT);
    order(&mut owner, subscribe("public:a"));
    let generation = owner.joins[0].generation;
    order(&mut owner, BackendOrder::Unsubscribe(channel("public:a")));
    assert!(!owner.tails.iter().any(|(_, known)| *known == generation));
    assert_eq!(owner.session.channels().count(), 0);
}
