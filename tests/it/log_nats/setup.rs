//! What a node finds, creates or refuses when it starts (L1, L2).

use std::time::Duration;

use async_nats::jetstream;
use slipstream::{
    config::{LogConfig, Secret},
    log::{
        ConsumeOptions, Log, LogEvent, StreamName,
        nats::{Difference, StartError, new_epochs, resize},
    },
    model::{AppId, ClassName, Epoch, History},
    task::Tasks,
};

use super::{publish, route};
use crate::support::{
    nats::{NatsServer, TestLog, binary, class, fresh_log, log_config, nats_config},
    until, within,
};

type Namespaces = Vec<(AppId, String, History)>;

fn namespaces(list: &[(&str, Option<&str>)]) -> Namespaces {
    list.iter()
        .map(|(namespace, class)| {
            let history = class.map_or(History::None, |class| {
                History::Class(ClassName::new(class).unwrap())
            });
            (AppId::new("dev").unwrap(), (*namespace).to_owned(), history)
        })
        .collect()
}

fn fields(differences: &[Difference]) -> Vec<&str> {
    differences
        .iter()
        .map(|difference| difference.field.as_str())
        .collect()
}

/// The error of a start that must fail.
async fn refused(
    server: &NatsServer,
    log: &LogConfig,
    namespaces: &[(AppId, String, History)],
) -> StartError {
    let started = TestLog::start_with_namespaces(&nats_config(&[server.url()]), log, namespaces).await;
    match started {
        Ok(_) => panic!("the node has started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_namespace_cannot_be_in_two_classes() {
    let server = NatsServer::start().await;
    let nats = nats_config(&[server.url()]);
    let start = async |list: &Namespaces| TestLog::start_with_namespaces(&nats, &log_config(), list).await;
    let first = namespaces(&[("chat", Some("std")), ("", Some("few")), ("live", None)]);
    let _one = start(&first).await.unwrap();
    let _same = start(&first).await.unwrap();
    let _more = start(&namespaces(&[("chat", Some("std")), ("a.b c", Some("std"))]))
        .await
        .unwrap();

    let other = namespaces(&[
        ("new", Some("std")),
        ("chat", Some("few")),
        ("live", Some("std")),
        ("", Some("few")),
    ]);
    let error = refused(&server, &log_config(), &other).await;
    let StartError::NamespaceDiffers { differences } = &error else {
        panic!("{error}");
    };
    assert_eq!(fields(differences), ["dev/chat", "dev/live"]);
    assert!(
        error.to_string().contains("dev/chat is std (configured: few)"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("dev/live is none (ephemeral) (configured: std)"),
        "{error}"
    );
    // What a refused node has not got through is not registered: `new` is free.
    let _free = start(&namespaces(&[("new", Some("few"))])).await.unwrap();

    let unknown = refused(&server, &log_config(), &namespaces(&[("x", Some("nope"))])).await;
    assert!(matches!(unknown, StartError::UnknownClass { .. }), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_the_layout_never_changes_but_classes_can_be_added() {
    let server = NatsServer::start().await;
    let nats = nats_config(&[server.url()]);
    let one = TestLog::start_with(&nats, &log_config()).await.unwrap();

    let mut added = log_config();
    added.classes.insert(0, class("aaa"));
    let two = TestLog::start_with(&nats, &added).await.unwrap();
    let streams = |log: &TestLog| {
        log.shards()
            .iter()
            .map(|spec| spec.stream.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(streams(&one), ["slip_std_0", "slip_std_1", "slip_few_0"]);
    assert_eq!(
        streams(&two),
        [
            "slip_std_0",
            "slip_std_1",
            "slip_few_0",
            "slip_aaa_0",
            "slip_aaa_1"
        ]
    );
    for log in [&one, &two] {
        assert!(
            log.shards()
                .iter()
                .enumerate()
                .all(|(at, spec)| usize::from(spec.id.0) == at)
        );
    }
    // A node whose file does not know the new class has it all the same.
    let three = TestLog::start_with(&nats, &log_config()).await.unwrap();
    assert_eq!(streams(&three), streams(&two));

    let mut other = log_config();
    other.classes[0].shards = 4;
    other.classes[1].max_age = Duration::from_secs(60);
    let error = refused(&server, &other, &[]).await;
    let StartError::LayoutDiffers { differences } = &error else {
        panic!("{error}");
    };
    assert_eq!(fields(differences), ["classes.std.shards", "classes.few.max_age"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_a_stream_that_differs_is_refused_and_left_alone() {
    let server = NatsServer::start().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = jetstream::new(client);
    let theirs = jetstream::stream::Config {
        name: "slip_std_1".to_owned(),
        subjects: vec!["h.std.1.>".to_owned()],
        max_age: Duration::from_secs(60),
        duplicate_window: Duration::from_secs(30),
        ..Default::default()
    };
    jetstream.create_stream(theirs).await.unwrap();
    let error = refused(&server, &log_config(), &[]).await;
    let StartError::StreamDiffers { stream, differences } = &error else {
        panic!("{error}");
    };
    assert_eq!(stream, "slip_std_1");
    let mut found = fields(differences);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "allow_direct",
            "deny_delete",
            "duplicate_window",
            "max_age",
            "max_bytes",
            "republish"
        ]
    );
    let left = jetstream
        .get_stream("slip_std_1")
        .await
        .unwrap()
        .cached_info()
        .config
        .max_age;
    assert_eq!(left, Duration::from_secs(60));
    // Nothing was registered: with the stream out of the way, any layout is free.
    jetstream.delete_stream("slip_std_1").await.unwrap();
    let mut other = log_config();
    other.classes[1].max_per_channel = Some(9);
    TestLog::start_with(&nats_config(&[server.url()]), &other)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_share_an_account_without_meeting() {
    let server = NatsServer::start().await;
    let nats = nats_config(&[server.url()]);
    let blue_config = LogConfig {
        prefix: "blue".to_owned(),
        ..log_config()
    };
    let slip = TestLog::start_with(&nats, &log_config()).await.unwrap();
    let blue = TestLog::start_with(&nats, &blue_config).await.unwrap();
    let (ours, theirs) = (route(&slip, "std", "chat:x"), route(&blue, "std", "chat:x"));
    publish(&slip, &ours, "slip").await;
    assert!(
        within(blue.read(&theirs, 0, 10, 1_000))
            .await
            .unwrap()
            .messages
            .is_empty()
    );
    publish(&blue, &theirs, "blue").await;
    assert_eq!(
        within(slip.read(&ours, 0, 10, 1_000))
            .await
            .unwrap()
            .messages
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_two_nodes_can_start_at_once() {
    let server = NatsServer::start().await;
    let nats = nats_config(&[server.url()]);
    let (config, list) = (log_config(), namespaces(&[("chat", Some("std"))]));
    let start = || TestLog::start_with_namespaces(&nats, &config, &list);
    let (one, two, three) = tokio::join!(start(), start(), start());
    for log in [one.unwrap(), two.unwrap(), three.unwrap()] {
        assert!(log.connected());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_succeed_says_what_to_do() {
    let mut server = NatsServer::start_without_jetstream().await;
    let error = refused(&server, &log_config(), &[]).await;
    assert!(matches!(error, StartError::JetStreamDisabled), "{error}");
    server.stop().await;
    let error = refused(&server, &log_config(), &[]).await;
    assert!(
        error
            .to_string()
            .contains(&format!("cannot connect to NATS at {}", server.url())),
        "{error}"
    );

    let server = NatsServer::start().await;
    let bad = LogConfig {
        prefix: "a.b".to_owned(),
        ..log_config()
    };
    assert!(matches!(refused(&server, &bad, &[]).await, StartError::Prefix));
    let mut replicated = log_config();
    replicated.classes[0].replicas = 3;
    let error = refused(&server, &replicated, &[]).await;
    assert!(error.to_string().contains("replicas"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_the_anchor_is_rewritten_before_it_expires() {
    let server = NatsServer::start().await;
    let mut config = log_config();
    config.classes.truncate(1);
    config.classes[0].shards = 1;
    config.classes[0].max_age = Duration::from_millis(1_200);
    config.classes[0].duplicate_window = Duration::from_millis(500);
    let log = TestLog::start_with(&nats_config(&[server.url()]), &config)
        .await
        .unwrap();
    let shard = log.shards()[0].id;
    let first = within(log.info(shard)).await.unwrap().last_seq;
    assert_eq!(first, 1);
    until("the anchor was rewritten and the first has expired", || async {
        let info = log.info(shard).await.ok()?;
        assert!(info.first_seq <= info.last_seq, "the shard has no anchor");
        (info.first_seq > first + 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_used_and_never_shown() {
    let server = NatsServer::start_with("authorization { user: edge, password: hunter2 }").await;
    let mut nats = nats_config(&[server.url()]);
    nats.user = Some("edge".to_owned());
    nats.password = Some(Secret::new("hunter2"));
    let _log = TestLog::start_with(&nats, &log_config()).await.unwrap();
    nats.password = Some(Secret::new("hunter3"));
    nats.servers = vec![server.url().replace("//", "//edge:hunter4@")];
    let Err(error) = TestLog::start_with(&nats, &log_config()).await else {
        panic!("a wrong password is accepted");
    };
    assert!(matches!(error, StartError::Connect { .. }), "{error}");
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("hunter"), "{text}");
    }
    nats.credentials = Some("/nowhere/x.creds".into());
    let Err(error) = TestLog::start_with(&nats, &log_config()).await else {
        panic!("a missing file is accepted");
    };
    assert!(error.to_string().contains("/nowhere/x.creds"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_an_operator_gives_every_shard_a_new_epoch() {
    let server = NatsServer::start().await;
    let nats = nats_config(&[server.url()]);
    let node = TestLog::start_with(&nats, &log_config()).await.unwrap();
    let mut events = node.events();
    let mut told = Vec::new();
    let tasks = Tasks::default();
    let say = |stream: &str, epoch: &Epoch| told.push((stream.to_owned(), epoch.clone()));
    within(new_epochs(&nats, &log_config(), &tasks, say))
        .await
        .unwrap();
    assert_eq!(told.len(), node.shards().len());
    for (spec, (stream, epoch)) in node.shards().iter().zip(&told) {
        assert_eq!(*stream, spec.stream);
        let (entry, _) = within(node.epoch(spec.id)).await.unwrap().unwrap();
        assert_eq!(entry.token, *epoch);
    }
    // A node that runs is told.
    let (first, token) = (node.shards()[0].id, told[0].1.clone());
    within(async {
        loop {
            if let LogEvent::Epoch(shard, entry) = events.recv().await.unwrap()
                && shard == first
                && entry.token == token
            {
                break;
            }
        }
    })
    .await;
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_an_operator_raises_the_room_of_a_class() {
    let server = NatsServer::start().await;
    let nats = nats_config(&[server.url()]);
    let node = TestLog::start_with(&nats, &log_config()).await.unwrap();
    let mut larger = log_config();
    larger.classes[0].max_bytes *= 2;
    larger.streams.usage.max_bytes *= 2;
    let mut smaller = log_config();
    smaller.classes[0].max_bytes /= 2;
    let mut older = log_config();
    older.classes[1].max_age *= 2;

    let tasks = Tasks::default();
    for refused in [&smaller, &older] {
        let error = within(resize(&nats, refused, &tasks, |_, _| {}))
            .await
            .unwrap_err();
        assert!(matches!(error, StartError::LayoutDiffers { .. }), "{error}");
    }
    for _again in 0..2 {
        let mut told = Vec::new();
        within(resize(&nats, &larger, &tasks, |stream, _| {
            told.push(stream.to_owned());
        }))
        .await
        .unwrap();
        let own = ["slip_usage", "slip_overflow", "slip_events"];
        assert_eq!(
            told,
            [&["slip_std_0", "slip_std_1", "slip_few_0"][..], &own].concat()
        );
    }
    let mut less = larger.clone();
    less.streams.usage.max_bytes /= 2;
    let error = within(resize(&nats, &less, &tasks, |_, _| {})).await.unwrap_err();
    assert!(error.to_string().contains("slip_usage"), "{error}");
    // The node that runs is not disturbed, a new one has the new room, and an old file is refused.
    let stored = within(node.info(node.shards()[0].id)).await.unwrap();
    assert!(stored.last_seq > 0, "its anchor");
    let new = TestLog::start_with(&nats, &larger).await.unwrap();
    assert_eq!(new.shards()[0].max_bytes, larger.classes[0].max_bytes);
    let error = refused(&server, &log_config(), &[]).await;
    assert!(matches!(error, StartError::LayoutDiffers { .. }), "{error}");
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_a_stream_of_the_deployments_own_that_differs_is_refused_and_left_alone() {
    let server = NatsServer::start().await;
    let log = TestLog::start(&[server.url()]).await;
    let mut other = log_config();
    other.streams.usage.max_bytes /= 2;
    other.streams.events.max_age /= 2;
    let error = refused(&server, &other, &[]).await;
    let StartError::StreamDiffers { stream, differences } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (stream.as_str(), fields(differences)),
        ("slip_usage", vec!["max_bytes"])
    );
    let _same = TestLog::start(&[server.url()]).await;
    drop(log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_gone_is_made_again_and_a_foreign_message_is_taken_out() {
    let (server, log) = fresh_log().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let jetstream = jetstream::new(client);
    let stream = log.work_stream(StreamName::Usage);
    let options = ConsumeOptions {
        durable: "fold".to_owned(),
        prefix: Vec::new(),
        max_ack_pending: 10,
        ack_wait: Duration::from_secs(60),
        forget_after: None,
    };
    let mut consumer = within(stream.consume(options)).await.unwrap();
    // No node spells a key so.
    let published = jetstream.publish("w.usage.a%41", "x".into()).await.unwrap();
    published.await.unwrap();
    let append = async |text: &'static str| {
        let sent = stream.append(&["dev", "1"], None, text.into()).unwrap();
        within(sent).await.unwrap();
    };
    append("1").await;
    let pulled = within(consumer.pull(10, Duration::from_secs(5))).await.unwrap();
    let keys: Vec<_> = pulled.iter().map(|message| message.key.join("/")).collect();
    assert_eq!(keys, ["dev/1"]);
    within(pulled[0].ack()).await.unwrap();
    assert_eq!(within(stream.waiting(&[])).await.unwrap().messages, 0);

    let usage = jetstream.get_stream("slip_usage").await.unwrap();
    usage.delete_consumer("fold").await.unwrap();
    append("2").await;
    let mut refused = 0;
    let pulled = loop {
        match within(consumer.pull(10, Duration::from_secs(1))).await {
            Ok(pulled) => break pulled,
            Err(_) => refused += 1,
        }
        assert!(refused < 10);
    };
    assert_eq!(pulled.len(), 1);
}

/// The configurations that the project gives to nats-servers are ones that they take.
#[test]
fn the_servers_configurations_are_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("nats");
    let store = tempfile::tempdir().unwrap();
    let variables = [
        ("NATS_NAME", "n1"),
        ("NATS_STORE", store.path().to_str().unwrap()),
        ("NATS_ROUTE_1", "nats://127.0.0.1:6222"),
        ("NATS_ROUTE_2", "nats://127.0.0.1:6223"),
        ("NATS_ROUTE_3", "nats://127.0.0.1:6224"),
        ("SLIPSTREAM_NATS_TOKEN", "a-token-of-nats"),
    ];
    for name in ["single.conf", "cluster.conf", "accounts.conf"] {
        let checked = std::process::Command::new(binary())
            .args(["-t", "-c"])
            .arg(folder.join(name))
            .envs(variables)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
}
