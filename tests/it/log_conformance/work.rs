//! The deployment's own streams.

use std::time::Duration;

use bytes::Bytes;
use slipstream::{
    log::{
        Ack, ConsumeOptions, Consumer, Counts, PublishError, ReadError, StreamName, Waiting, WorkMessage,
        WorkStream,
    },
    model::AppId,
};

use super::suite::{Suite, settled, soon};

/// Long enough that nothing comes again by itself in a check.
const LONG: Duration = Duration::from_secs(120);
/// So short that a check can wait for it.
const SHORT: Duration = Duration::from_millis(400);

fn options(app: &AppId) -> ConsumeOptions {
    ConsumeOptions {
        durable: format!("of {app}"),
        prefix: vec![app.to_string()],
        max_ack_pending: 100,
        ack_wait: LONG,
        forget_after: None,
    }
}

async fn append(stream: &dyn WorkStream, key: &[&str], id: Option<&str>, text: &str) -> Ack {
    let sent = stream.append(key, id, Bytes::from(text.to_owned())).unwrap();
    soon(sent).await.unwrap()
}

async fn pull(consumer: &mut dyn Consumer, max: u32) -> Vec<WorkMessage> {
    soon(consumer.pull(max, Duration::from_secs(5))).await.unwrap()
}

/// Asserts that nothing is there to be pulled.
async fn nothing(consumer: &mut dyn Consumer) {
    let pulled = soon(consumer.pull(10, Duration::from_millis(50))).await.unwrap();
    assert!(pulled.is_empty(), "{pulled:?}");
}

fn texts(messages: &[WorkMessage]) -> Vec<&str> {
    let texts = messages.iter();
    texts
        .map(|message| std::str::from_utf8(&message.data).unwrap())
        .collect()
}

pub(super) async fn what_is_appended_is_delivered_until_it_is_settled(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Usage);
    let app = suite.app.as_str();
    let mut consumer = soon(stream.consume(options(&suite.app))).await.unwrap();
    nothing(&mut *consumer).await;
    let one = append(&*stream, &[app, "a"], None, "1").await;
    let two = append(&*stream, &[app, "b"], None, "2").await;
    let three = append(&*stream, &[app, "a"], None, "3").await;
    assert!(
        one.seq < two.seq && two.seq < three.seq,
        "{one:?} {two:?} {three:?}"
    );

    let first = pull(&mut *consumer, 2).await;
    assert_eq!(texts(&first), ["1", "2"]);
    assert_eq!((first[0].seq, first[1].seq), (one.seq, two.seq));
    assert_eq!(
        (&first[1].key[..], first[1].delivered),
        (&[app.to_owned(), "b".to_owned()][..], 1)
    );
    assert!(first[0].time_ms > 1_600_000_000_000 && first[0].time_ms <= first[1].time_ms);
    let rest = pull(&mut *consumer, 10).await;
    assert_eq!(texts(&rest), ["3"]);
    nothing(&mut *consumer).await;

    soon(first[0].ack()).await.unwrap();
    soon(first[1].nak(Duration::ZERO)).await.unwrap();
    soon(rest[0].term()).await.unwrap();
    let again = pull(&mut *consumer, 10).await;
    assert_eq!(texts(&again), ["2"], "the others are done");
    assert_eq!((again[0].seq, again[0].delivered), (two.seq, 2));
    soon(again[0].nak(SHORT)).await.unwrap();
    nothing(&mut *consumer).await;
    let late = pull(&mut *consumer, 10).await;
    assert_eq!(
        (texts(&late), late[0].delivered),
        (vec!["2"], 3),
        "after the delay"
    );
    soon(late[0].ack()).await.unwrap();
    nothing(&mut *consumer).await;
    assert_eq!(soon(stream.waiting(&[app])).await.unwrap().messages, 0);
}

pub(super) async fn what_nobody_settles_comes_again_to_whoever_pulls(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Overflow);
    let app = suite.app.as_str();
    let options = ConsumeOptions {
        ack_wait: SHORT,
        max_ack_pending: 2,
        ..options(&suite.app)
    };
    let mut first = soon(stream.consume(options.clone())).await.unwrap();
    let mut second = soon(stream.consume(options)).await.unwrap();
    for text in ["1", "2", "3"] {
        append(&*stream, &[app, "x"], None, text).await;
    }
    // A pull answers with what is there: two may come by two of them.
    let mut pulled = pull(&mut *first, 10).await;
    while !texts(&pulled).contains(&"2") {
        pulled.extend(pull(&mut *first, 10).await);
    }
    assert!(!texts(&pulled).contains(&"3"), "no more may be open");
    drop((pulled, first));
    let mut taken = Vec::new();
    while taken.len() < 3 {
        for message in pull(&mut *second, 10).await {
            soon(message.ack()).await.unwrap();
            taken.push((texts(&[message])[0].to_owned(), 0));
        }
    }
    taken.sort();
    assert_eq!(
        taken.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    nothing(&mut *second).await;
}

pub(super) async fn with_one_open_nothing_overtakes_what_comes_again(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Usage);
    let app = format!("{}-ordered", suite.app);
    for text in ["1", "2", "3"] {
        append(&*stream, &[&app, "x"], None, text).await;
    }
    let options = ConsumeOptions {
        durable: app.clone(),
        prefix: vec![app],
        max_ack_pending: 1,
        ..options(&suite.app)
    };
    let mut one = soon(stream.consume(options.clone())).await.unwrap();
    let mut other = soon(stream.consume(options)).await.unwrap();
    for text in ["1", "2", "3"] {
        let pulled = pull(&mut *one, 10).await;
        assert_eq!(texts(&pulled), [text]);
        nothing(&mut *other).await;
        soon(pulled[0].nak(SHORT)).await.unwrap();
        nothing(&mut *other).await;
        let again = pull(&mut *other, 10).await;
        assert_eq!((texts(&again), again[0].delivered), (vec![text], 2));
        soon(again[0].ack()).await.unwrap();
    }
    nothing(&mut *one).await;
}

pub(super) async fn an_append_with_the_same_id_is_stored_once(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Usage);
    let app = suite.other_app.as_str();
    let (id, other) = (format!("{app}/1"), format!("{app}/2"));
    let first = append(&*stream, &[app, "x"], Some(&id), "1").await;
    let repeat = append(&*stream, &[app, "y"], Some(&id), "1").await;
    assert_eq!(
        (first.duplicate, repeat.duplicate, repeat.seq),
        (false, true, first.seq)
    );
    let second = append(&*stream, &[app, "x"], Some(&other), "2").await;
    assert!(!second.duplicate && second.seq > first.seq);
    let mut consumer = soon(stream.consume(options(&suite.other_app))).await.unwrap();
    let pulled = pull(&mut *consumer, 10).await;
    assert_eq!(texts(&pulled), ["1", "2"]);
    for message in &pulled {
        soon(message.ack()).await.unwrap();
    }
}

/// Parts that would be patterns, several parts or nobody's name if they were not escaped.
pub(super) async fn no_key_reaches_another_apps_messages(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Events);
    let app = suite.app.as_str();
    let inside = format!("{app}.x");
    let tricks = [">", "*", "", "%", "a b", "é\n", &inside, "$JS", "..."];
    for trick in tricks {
        append(&*stream, &[trick, app, "x"], None, "theirs").await;
        append(&*stream, &[app, trick], None, trick).await;
        let prefix = vec![trick.to_owned(), app.to_owned()];
        let mut theirs = soon(stream.consume(ConsumeOptions {
            durable: format!("{app} {trick}"),
            prefix: prefix.clone(),
            ..options(&suite.app)
        }))
        .await
        .unwrap();
        let pulled = pull(&mut *theirs, 10).await;
        assert_eq!(texts(&pulled), ["theirs"], "{trick:?}");
        assert_eq!(pulled[0].key[..2], prefix, "{trick:?}");
        let waiting = settled(async || stream.waiting(&[trick, app]).await, |w| w.messages > 0).await;
        assert_eq!(waiting.messages, 1, "{trick:?}");
    }
    let mut mine = soon(stream.consume(options(&suite.app))).await.unwrap();
    let pulled = pull(&mut *mine, 100).await;
    assert_eq!(texts(&pulled), tricks);
    for (message, trick) in pulled.iter().zip(tricks) {
        assert_eq!(message.key, [app, trick]);
        soon(message.ack()).await.unwrap();
    }
    nothing(&mut *mine).await;
    let refused = |key: &[&str]| {
        matches!(
            stream.append(key, None, Bytes::new()),
            Err(PublishError::Refused(_))
        )
    };
    assert!(refused(&[]) && refused(&["x"; 17]) && refused(&["x".repeat(1_025).as_str()]));
}

pub(super) async fn events_stay_when_they_are_settled(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Events);
    let app = suite.other_app.as_str();
    append(&*stream, &[app, "x"], None, "1").await;
    for durable in ["one", "two"] {
        let mut consumer = soon(stream.consume(ConsumeOptions {
            durable: format!("{durable} of {app}"),
            ..options(&suite.other_app)
        }))
        .await
        .unwrap();
        let pulled = pull(&mut *consumer, 10).await;
        assert_eq!(texts(&pulled), ["1"], "{durable}");
        soon(pulled[0].ack()).await.unwrap();
        nothing(&mut *consumer).await;
    }
    let waiting = settled(
        async || stream.waiting(&[app]).await,
        |waiting| waiting.messages > 0,
    )
    .await;
    assert_eq!(waiting.messages, 1);
}

pub(super) async fn what_waits_is_counted_with_its_oldest(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Usage);
    let app = format!("{}-waits", suite.app);
    let none = soon(stream.waiting(&[&app])).await.unwrap();
    assert_eq!(none, Waiting::default());
    append(&*stream, &[&app, "x"], None, "1").await;
    append(&*stream, &[&app, "y"], None, "2").await;
    append(&*stream, &["another", &app], None, "3").await;
    let two = settled(
        async || stream.waiting(&[&app]).await,
        |waiting| waiting.messages > 1,
    )
    .await;
    assert_eq!(two.messages, 2);
    assert!(two.oldest_ms.is_some_and(|oldest| oldest > 1_600_000_000_000));
    let all = soon(stream.waiting(&[])).await.unwrap();
    assert!(all.messages >= 3, "{all:?}");

    let mut consumer = soon(stream.consume(ConsumeOptions {
        durable: app.clone(),
        prefix: vec![app.clone()],
        ..options(&suite.app)
    }))
    .await
    .unwrap();
    let pulled = pull(&mut *consumer, 1).await;
    let delivered = soon(stream.waiting(&[&app])).await.unwrap();
    assert_eq!(delivered, two, "it is not settled");
    soon(pulled[0].ack()).await.unwrap();
    let one = settled(
        async || stream.waiting(&[&app]).await,
        |waiting| waiting.messages < 2,
    )
    .await;
    assert_eq!(one.messages, 1);
    let rest = pull(&mut *consumer, 9).await;
    assert_eq!(texts(&rest), ["2"]);
    soon(rest[0].ack()).await.unwrap();
}

pub(super) async fn what_waits_is_counted_by_key(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Usage);
    let app = format!("{}-keys", suite.app);
    let counted = async |prefix: &[&str]| {
        let mut counts = soon(stream.counts(prefix)).await.unwrap();
        assert!(counts.is_whole);
        counts.keys.sort();
        counts.keys
    };
    let key = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    assert_eq!(counted(&[&app]).await, []);
    for (channel, text) in [("x", "1"), ("a.b > *", "2"), ("x", "3")] {
        append(&*stream, &[&app, channel, "q"], None, text).await;
    }
    append(&*stream, &["another", &app], None, "4").await;
    let (odd, x) = (key(&[&app, "a.b > *", "q"]), key(&[&app, "x", "q"]));
    assert_eq!(counted(&[&app]).await, [(odd.clone(), 1), (x.clone(), 2)]);
    assert_eq!(counted(&[&app, "x"]).await, [(x.clone(), 2)]);
    assert_eq!(counted(&[&app, "x", "q"]).await, [], "nothing goes on behind it");
    let all = counted(&[]).await;
    assert!(all.contains(&(x.clone(), 2)) && all.contains(&(key(&["another", &app]), 1)));

    let mut consumer = soon(stream.consume(ConsumeOptions {
        durable: app.clone(),
        prefix: vec![app.clone()],
        ..options(&suite.app)
    }))
    .await
    .unwrap();
    let pulled = pull(&mut *consumer, 3).await;
    assert_eq!(
        counted(&[&app]).await.len(),
        2,
        "what is delivered is not settled"
    );
    soon(pulled[0].ack()).await.unwrap();
    soon(pulled[1].ack()).await.unwrap();
    let left = |count: usize| move |counts: &Counts| counts.keys.len() == count;
    let one = settled(async || stream.counts(&[&app]).await, left(1)).await;
    assert_eq!(one.keys, [(x, 1)]);
    soon(pulled[2].ack()).await.unwrap();
    settled(async || stream.counts(&[&app]).await, left(0)).await;
}

pub(super) async fn consumers_of_a_work_queue_do_not_overlap(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Overflow);
    let app = format!("{}-alone", suite.app);
    let options = |durable: &str, prefix: &[&str]| ConsumeOptions {
        durable: format!("{app} {durable}"),
        prefix: prefix.iter().map(|part| (*part).to_owned()).collect(),
        ..options(&suite.app)
    };
    let _first = soon(stream.consume(options("first", &[&app]))).await.unwrap();
    for prefix in [&[app.as_str()][..], &[&app, "x"], &[]] {
        let refused = soon(stream.consume(options("second", prefix))).await;
        assert!(matches!(refused, Err(ReadError::Failed(_))), "{prefix:?}");
    }
    let _other = soon(stream.consume(options("other", &[&format!("{app}.x")])))
        .await
        .unwrap();
}

/// The last of the checks: the stream is full for a while.
pub(super) async fn a_full_work_queue_refuses_and_keeps_what_it_has(suite: &Suite) {
    let stream = suite.log.work_stream(StreamName::Overflow);
    let app = format!("{}-full", suite.app);
    let large = Bytes::from(vec![b'x'; 64 << 10]);
    let mut stored = 0;
    let refused = loop {
        let sent = stream.append(&[&app, "x"], None, large.clone()).unwrap();
        match soon(sent).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "it holds at most some hundred KiB");
    };
    assert!(matches!(refused, PublishError::Full), "{refused:?}");
    let mut consumer = soon(stream.consume(ConsumeOptions {
        durable: app.clone(),
        prefix: vec![app.clone()],
        ..options(&suite.app)
    }))
    .await
    .unwrap();
    let mut pulled = 0;
    while pulled < stored {
        for message in pull(&mut *consumer, 3).await {
            pulled += 1;
            assert_eq!(message.data, large);
            soon(message.ack()).await.unwrap();
        }
    }
    append(&*stream, &[&app, "x"], None, "again").await;
    let pulled = pull(&mut *consumer, 3).await;
    assert_eq!(texts(&pulled), ["again"]);
    soon(pulled[0].ack()).await.unwrap();
}
