//! Nodes whose configurations do not fit together.

use slipstream::{app::StartError, log::nats};

use crate::support::{client::Client, edge::Edge, nats::NatsServer, publisher::Publisher};

const EXTRA: &str = "[[apps.namespaces]]\nname = \"extra\"\nrecovery = true\nsubscribe = \"anyone\"\n\
                     publish = \"anyone\"\nhistory = ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_node_whose_namespace_is_in_another_class_does_not_start() {
    let nats = NatsServer::start().await;
    let edge = || Edge::builder().nats(&[nats.url()]);
    let first = edge().start().await;

    let other_class = edge().set("apps.0.namespaces.0.history", "few").try_start().await;
    let Err(StartError::Log(nats::StartError::NamespaceDiffers { differences })) = other_class else {
        panic!("the second node starts, or fails in another way");
    };
    assert!(
        differences[0].to_string().contains("dev/public"),
        "{}",
        differences[0]
    );

    // A namespace that the first node does not know is added, and then holds for all.
    let second = edge().file(&format!("{EXTRA}\"std\"")).start().await;
    let refused = edge().file(&format!("{EXTRA}\"few\"")).try_start().await;
    let refused = refused.err().unwrap();
    assert!(
        matches!(
            refused,
            StartError::Log(nats::StartError::NamespaceDiffers { .. })
        ),
        "{refused}"
    );

    let client = Client::connect(first.addr).await;
    client.subscribe("public:here").await;
    let publisher = Publisher::start(second.addr);
    let last = publisher.one("public:here").await;
    client.wait_for("public:here", last.offset).await;
    publisher.one("extra:there").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_a_node_whose_shards_or_limits_differ_does_not_start() {
    let nats = NatsServer::start().await;
    let edge = || Edge::builder().nats(&[nats.url()]);
    let first = edge().start().await;
    for (key, value) in [("shards", "3"), ("max_age", "20m"), ("max_bytes", "1GiB")] {
        let refused = edge()
            .set(&format!("log.classes.0.{key}"), value)
            .try_start()
            .await;
        let refused = refused.err().unwrap();
        assert!(matches!(refused, StartError::Log(_)), "{key}: {refused}");
    }
    edge().start().await.stop().await;
    first.stop().await;
}
