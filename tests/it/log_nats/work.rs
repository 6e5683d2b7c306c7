//! The deployment's own streams while their servers change and die.

use std::time::Duration;

use slipstream::{
    log::{ConsumeOptions, Log, PublishError, StreamName, WorkStream},
    task::Tasks,
};

use crate::support::{
    nats::{Cluster, TestLog, log_config, nats_config},
    within,
};

const MESSAGES: u64 = 60;

/// Appends until it is acknowledged, as who numbers its messages does.
async fn append(stream: &dyn WorkStream, number: u64) {
    let id = format!("id-{number}");
    loop {
        let sent = match stream.append(&["dev", "x"], Some(&id), number.to_string().into()) {
            Ok(sent) => within(sent).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(_) => return,
            Err(PublishError::Unavailable(_) | PublishError::Unknown) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_queue_goes_on_in_order_when_its_leader_goes_and_dies() {
    let mut cluster = Cluster::start(3).await;
    let mut config = log_config();
    config.classes.iter_mut().for_each(|class| class.replicas = 3);
    config.streams.usage.replicas = 3;
    let log = TestLog::start_with(&nats_config(&cluster.urls()), &config)
        .await
        .unwrap();
    let stream = log.work_stream(StreamName::Usage);
    let tasks = Tasks::default();
    let (got, mut received) = tokio::sync::mpsc::unbounded_channel();
    tasks.spawn({
        let stream = stream.clone();
        async move {
            let options = ConsumeOptions {
                durable: "one".to_owned(),
                prefix: Vec::new(),
                max_ack_pending: 1,
                ack_wait: Duration::from_secs(2),
                forget_after: None,
            };
            loop {
                let Ok(mut consumer) = stream.consume(options.clone()).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                while let Ok(messages) = consumer.pull(5, Duration::from_secs(2)).await {
                    for message in messages {
                        let number: u64 = std::str::from_utf8(&message.data).unwrap().parse().unwrap();
                        let _ = got.send(number);
                        // After an error it comes again.
                        let _ = message.ack().await;
                    }
                }
            }
        }
    });
    for number in 1..=MESSAGES {
        if number == 20 {
            cluster.step_down("slip_usage").await;
        }
        if number == 40 {
            let leader = cluster.leader_of("slip_usage").await;
            cluster.servers[leader].kill().await;
        }
        append(&*stream, number).await;
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&MESSAGES) {
        seen.push(within(received.recv()).await.unwrap());
    }
    tasks.stop();
    // Each may have come again before the next, and none later.
    seen.dedup();
    assert_eq!(seen, (1..=MESSAGES).collect::<Vec<_>>());
}
