//! What nodes share besides channels: epochs, anchors, messages to each other.

use std::time::Duration;

use bytes::Bytes;
use slipstream::{
    log::{BucketName, Change, Changes, EpochEntry, LogEvent, NodeMessage, NodeMessages},
    model::{AppId, Epoch, History},
};

use super::suite::{Suite, event, next_message, soon};

pub(super) async fn l4_the_epoch_changes_by_compare_and_set(suite: &Suite) {
    let shard = suite.route("epoch").shard().unwrap();
    let mut events = suite.log.events();
    let before = soon(suite.log.epoch(shard)).await.unwrap();
    let revision = before.map_or(0, |(_, revision)| revision);
    let entry = |token: &str| EpochEntry {
        created: "2026-01-01T00:00:00.123456789Z".into(),
        token: Epoch::new(token),
        mark_seq: (1 << 53) - 1,
        mark_time_ms: 1_700_000_000_001,
    };
    let set = async |token: &str, revision| {
        soon(suite.log.set_epoch(shard, &entry(token), revision))
            .await
            .unwrap()
    };

    assert!(!set("too late", revision + 1_000).await);
    assert!(set("one", revision).await);
    event(&mut events, |event| {
        *event == LogEvent::Epoch(shard, entry("one"))
    })
    .await;
    assert!(!set("not the first", 0).await);
    let (stored, one) = soon(suite.log.epoch(shard)).await.unwrap().unwrap();
    assert_eq!(stored, entry("one"));
    assert!(one > revision);

    assert!(set("two", one).await);
    assert!(!set("slower", one).await);
    event(&mut events, |event| {
        *event == LogEvent::Epoch(shard, entry("two"))
    })
    .await;
    let (stored, two) = soon(suite.log.epoch(shard)).await.unwrap().unwrap();
    assert_eq!(stored, entry("two"));
    assert!(two > one);
}

pub(super) async fn l2_a_namespace_is_claimed_for_good(suite: &Suite) {
    let stored = History::Class(suite.class.clone());
    let claim = async |app: &AppId, namespaces: &[(&str, &History)]| {
        let namespaces = namespaces.iter();
        let namespaces: Vec<_> = namespaces
            .map(|(name, history)| ((*name).to_owned(), (*history).clone()))
            .collect();
        soon(suite.log.claim(app, &namespaces)).await.unwrap()
    };
    let nothing: [&str; 0] = [];
    let both = [("", &stored), ("live", &History::None)];
    assert_eq!(claim(&suite.app, &both).await, nothing);
    assert_eq!(claim(&suite.app, &both).await, nothing, "it is the same");
    // Nothing is claimed by one that cannot be claimed whole.
    let changed = [("", &stored), ("live", &stored), ("new", &stored)];
    assert_eq!(claim(&suite.app, &changed).await, ["live"]);
    assert_eq!(claim(&suite.app, &[("new", &History::None)]).await, nothing);
    assert_eq!(claim(&suite.other_app, &[("live", &stored)]).await, nothing);
}

pub(super) async fn l4_anchors_ascend(suite: &Suite) {
    let route = suite.route("anchor");
    let shard = route.shard().unwrap();
    let published = suite.publish(&route, "x").await;
    let mut last = published;
    for _ in 0..3 {
        let ack = soon(suite.log.write_anchor(shard)).await.unwrap();
        assert!(!ack.duplicate);
        assert!(ack.seq > last, "{ack:?} after {last}");
        last = ack.seq;
    }
    assert_eq!(soon(suite.log.info(shard)).await.unwrap().last_seq, last);
    assert!(soon(suite.log.time_at(shard, last)).await.unwrap().is_some());
    let mine = suite.read(&route, 0, 1).await;
    assert_eq!(
        mine.messages[0].seq, published,
        "an anchor is on nobody's channel"
    );
}

pub(super) async fn a_tell_reaches_all_listeners(suite: &Suite) {
    let topic = format!("tell-{}", suite.app);
    let mut first = soon(suite.log.listen(&topic)).await.unwrap();
    let mut second = soon(suite.log.listen(&topic)).await.unwrap();
    let mut other = soon(suite.log.listen("tell-another")).await.unwrap();
    for text in ["1", "2"] {
        suite.log.tell(&topic, Bytes::from_static(text.as_bytes()));
        for messages in [&mut first, &mut second] {
            let message = next_message(&mut **messages).await;
            assert_eq!((&*message.data, message.reply), (text.as_bytes(), None));
        }
    }
    suite.log.tell("tell-another", Bytes::from_static(b"3"));
    assert_eq!(&*next_message(&mut *other).await.data, b"3", "topics are apart");
}

pub(super) async fn an_ask_collects_answers(suite: &Suite) {
    let topic = format!("ask-{}", suite.app);
    let question = Bytes::from_static(b"who?");
    let wait = Duration::from_secs(10);
    let mut first = soon(suite.log.listen(&topic)).await.unwrap();
    let mut second = soon(suite.log.listen(&topic)).await.unwrap();
    let answer = async |messages: &mut dyn NodeMessages, text: &'static [u8]| {
        let message = next_message(messages).await;
        assert_eq!(message.data, question);
        suite
            .log
            .answer(&message.reply.unwrap(), Bytes::from_static(text));
    };
    let (mut answers, (), ()) = tokio::join!(
        suite
            .log
            .ask(&topic, question.clone(), wait, &|answers| answers.len() == 2),
        answer(&mut *first, b"first"),
        answer(&mut *second, b""),
    );
    answers.sort_by(|a, b| a.data.cmp(&b.data));
    assert!(answers.iter().all(|answer| answer.from == suite.log.node()));
    assert_eq!(texts(answers), [&b""[..], b"first"], "an empty answer is one too");

    let (answers, (), ()) = tokio::join!(
        suite.log.ask(&topic, question.clone(), wait, &|answers| {
            answers.iter().any(|answer| &*answer.data == b"yes")
        }),
        answer(&mut *first, b"yes"),
        async { drop(next_message(&mut *second).await) },
    );
    assert_eq!(texts(answers), ["yes"], "enough ends it");

    let nobody = format!("nobody-{}", suite.app);
    let short = Duration::from_millis(50);
    for (topic, why) in [(&topic, "nobody answers"), (&nobody, "nobody listens")] {
        let asked = suite.log.ask(topic, question.clone(), short, &|_| true);
        assert_eq!(texts(soon(asked).await), Vec::<Bytes>::new(), "{why}");
    }
}

pub(super) async fn a_bucket_is_written_by_compare_and_set(suite: &Suite) {
    let bucket = suite.log.bucket(BucketName::Revocations);
    let key = format!("{}.a-b_C", suite.app);
    let json = |text: &'static str| Bytes::from_static(text.as_bytes());
    let none = soon(bucket.get(&key)).await.unwrap();
    assert_eq!((none.value, none.revision), (None, 0));

    let one = soon(bucket.set(&key, json(r#"{"a":1}"#), 0, None)).await.unwrap();
    let one = one.expect("nobody was faster");
    let late = soon(bucket.set(&key, json("2"), 0, None)).await.unwrap();
    assert_eq!(late, None, "it has been written since");
    let stored = soon(bucket.get(&key)).await.unwrap();
    assert_eq!((stored.value, stored.revision), (Some(json(r#"{"a":1}"#)), one));

    assert!(!soon(bucket.remove(&key, one - 1)).await.unwrap());
    assert!(soon(bucket.remove(&key, one)).await.unwrap());
    let removed = soon(bucket.get(&key)).await.unwrap();
    assert_eq!(removed.value, None);
    assert!(removed.revision > one, "a removal is a revision");
    let again = soon(bucket.set(&key, json("3"), removed.revision, None)).await;
    assert!(again.unwrap().is_some_and(|again| again > removed.revision));

    let other = soon(suite.log.bucket(BucketName::Nodes).get(&key)).await.unwrap();
    assert_eq!(other.value, None, "buckets are apart");
}

pub(super) async fn a_watch_tells_what_is_there_and_what_changes(suite: &Suite) {
    let bucket = suite.log.bucket(BucketName::Revocations);
    let key = format!("{}.watched", suite.app);
    let json = |text: &'static str| Bytes::from_static(text.as_bytes());
    let first = soon(bucket.set(&key, json("1"), 0, None)).await.unwrap().unwrap();

    let mut changes = bucket.watch();
    assert_eq!(next_change(&mut *changes).await, Change::Begin);
    let mut told = Vec::new();
    loop {
        match next_change(&mut *changes).await {
            Change::Current => break,
            Change::Entry { key: of, entry } if of == key => told.push(entry),
            Change::Entry { .. } => {}
            Change::Begin => panic!("it has begun"),
        }
    }
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].value.clone(), told[0].revision),
        (Some(json("1")), first)
    );

    assert!(soon(bucket.remove(&key, first)).await.unwrap());
    loop {
        if let Change::Entry { key: of, entry } = next_change(&mut *changes).await
            && of == key
        {
            assert_eq!(entry.value, None);
            assert!(entry.revision > first);
            break;
        }
    }
}

async fn next_change(changes: &mut dyn Changes) -> Change {
    soon(std::future::poll_fn(|cx| changes.poll_next(cx)))
        .await
        .expect("the node runs")
}

fn texts(answers: Vec<NodeMessage>) -> Vec<Bytes> {
    answers.into_iter().map(|answer| answer.data).collect()
}
