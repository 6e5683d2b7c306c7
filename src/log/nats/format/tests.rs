use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::{
    log::nats::subject,
    model::{AppId, ChannelName},
};

/// The golden vectors. They were computed by another program than this one.
const GOLDEN: &str = include_str!("../../../../tests/golden/log-format.json");

#[derive(Deserialize)]
struct Golden {
    format: u32,
    hash: String,
    subjects: Vec<SubjectVector>,
}

#[derive(Deserialize)]
struct SubjectVector {
    prefix: String,
    class: String,
    shards: u16,
    app: String,
    channel: String,
    shard: u16,
    stream: String,
    history: String,
    live: String,
    ephemeral: String,
    anchor: String,
}

#[test]
fn l2_golden_subjects_hold() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!((golden.format, golden.hash.as_str()), (FORMAT, HASH));
    for vector in golden.subjects {
        let names = Names::new(&vector.prefix).unwrap();
        let key = ChannelKey {
            app: AppId::new(&vector.app).unwrap(),
            name: ChannelName::new(&vector.channel).unwrap(),
        };
        let (shard, address) = subject::durable(&vector.class, vector.shards, &key);
        assert_eq!(shard, vector.shard, "{}", vector.channel);
        assert_eq!(names.stream(&vector.class, shard), vector.stream);
        assert_eq!(join(&names.history, &address), vector.history);
        assert_eq!(join(&names.live, &address), vector.live);
        assert_eq!(
            join(&names.ephemeral, &subject::ephemeral(&key)),
            vector.ephemeral
        );
        let anchor = subject::anchor(&vector.class, shard);
        assert_eq!(join(&names.history, &anchor), vector.anchor);
        let (_, tokens) = address.split_once('.').unwrap().1.split_once('.').unwrap();
        assert_eq!(subject::channel(tokens), Some(key), "{address}");
    }
}

#[test]
fn l1_the_shard_depends_on_the_app_and_on_where_it_ends() {
    let shard = |app: &str, name: &str| {
        let key = ChannelKey {
            app: AppId::new(app).unwrap(),
            name: ChannelName::new(name).unwrap(),
        };
        shard_of(&key, u16::MAX)
    };
    assert_ne!(shard("a", "bc"), shard("ab", "c"));
    assert_eq!(shard("a", "bc"), shard("a", "bc"));
}

#[test]
fn l1_shards_are_even() {
    let app = AppId::new("dev").unwrap();
    let mut counts = BTreeMap::<u16, u32>::new();
    for room in 0..8_000 {
        let name = ChannelName::new(&format!("chat:room.{room}")).unwrap();
        *counts
            .entry(shard_of(
                &ChannelKey {
                    app: app.clone(),
                    name,
                },
                8,
            ))
            .or_default() += 1;
    }
    assert_eq!(counts.len(), 8);
    assert!(counts.values().all(|&n| (900..1_100).contains(&n)), "{counts:?}");
}

#[test]
fn names_of_two_deployments_never_overlap() {
    let slip = Names::new("slip").unwrap();
    let blue = Names::new("blue").unwrap();
    assert_eq!(
        (slip.history.as_str(), slip.live.as_str(), slip.ephemeral.as_str()),
        ("h", "l", "e")
    );
    assert_eq!(
        (blue.history.as_str(), blue.live.as_str(), blue.ephemeral.as_str()),
        ("h-blue", "l-blue", "e-blue")
    );
    assert_eq!(
        (slip.node("peers"), blue.node("peers")),
        ("n.slip.peers".into(), "n.blue.peers".into())
    );
    assert_eq!((slip.bucket(), blue.bucket()), ("slip", "blue"));
    for bad in ["", "a.b", "a b", "*", ">", "é", &"x".repeat(33)] {
        assert!(Names::new(bad).is_none(), "{bad}");
    }
}
