//! How a node gets at NATS: by TLS, with credentials; and how it leaves.

use std::path::PathBuf;

use slipstream::{
    config::{NatsConfig, Secret},
    log::{Log, nats::StartError},
};

use super::{publish, record, route, text};
use crate::support::{
    nats::{NatsServer, Operator, TestLog, WITH_SYSTEM_ACCOUNT, log_config, nats_config},
    tls::Authority,
    until, within,
};

/// Starts on a server with these settings, and publishes; or says why it cannot.
async fn works(config: &NatsConfig) -> Result<(), StartError> {
    let log = TestLog::start_with(config, &log_config()).await?;
    let route = route(&log, "std", "chat:x");
    publish(&log, &route, "hello").await;
    let page = within(log.read(&route, 0, 1, 1_000)).await.unwrap();
    assert_eq!(text(&page.messages[0].body), "hello");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_is_trusted_by_its_ca_file_alone() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = NatsServer::start_with(&authority.nats_lines()).await;
    let config = |ca_file: Option<PathBuf>| NatsConfig {
        ca_file,
        ..nats_config(&[server.url()])
    };
    works(&config(Some(authority.ca_file()))).await.unwrap();
    for ca_file in [None, Some(stranger.ca_file())] {
        let error = works(&config(ca_file.clone())).await.unwrap_err();
        assert!(
            matches!(error, StartError::Connect { .. }),
            "{ca_file:?}: {error}"
        );
    }

    // Who was given a file is never satisfied with less.
    let plain = NatsServer::start().await;
    let config = NatsConfig {
        ca_file: Some(authority.ca_file()),
        ..nats_config(&[plain.url()])
    };
    let error = works(&config).await.unwrap_err();
    assert!(matches!(error, StartError::Connect { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_every_connection() {
    let server = NatsServer::start_with("authorization { token: open-sesame }").await;
    let config = |token: Option<&str>| NatsConfig {
        token: token.map(Secret::new),
        ..nats_config(&[server.url()])
    };
    works(&config(Some("open-sesame"))).await.unwrap();
    for token in [None, Some("open")] {
        let error = works(&config(token)).await.unwrap_err();
        assert!(matches!(error, StartError::Connect { .. }), "{token:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_with_the_credentials_of_its_operator() {
    let (operator, stranger) = (Operator::new(), Operator::new());
    let server = NatsServer::start_with(&operator.nats_lines()).await;
    let folder = tempfile::tempdir().unwrap();
    let files = ["good.creds", "strange.creds", "none.creds"].map(|name| folder.path().join(name));
    operator.write_credentials(&files[0]);
    let seed = stranger.write_credentials(&files[1]);
    std::fs::write(&files[2], "no credentials").unwrap();
    let config = |file: Option<&PathBuf>| NatsConfig {
        credentials: file.cloned(),
        ..nats_config(&[server.url()])
    };
    works(&config(Some(&files[0]))).await.unwrap();
    for file in [None, Some(&files[1]), Some(&files[2])] {
        let error = works(&config(file)).await.unwrap_err();
        let expected = matches!(error, StartError::Connect { .. } | StartError::Credentials { .. });
        assert!(expected, "{file:?}: {error}");
        assert!(!format!("{error} {error:?}").contains(&seed), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_sends_what_was_published_and_leaves_nothing_behind() {
    let server = NatsServer::start_with(WITH_SYSTEM_ACCOUNT).await;
    let before = server.clients().await;
    let log = TestLog::start(&[server.url()]).await;
    let busy = route(&log, "std", "chat:x");
    let _copies = within(log.subscribe(&busy)).await.unwrap();
    let acks: Vec<_> = (0..100)
        .map(|n| log.publish(&busy, &record(format!("{n}")), None).unwrap())
        .collect();
    within(log.close()).await;
    for ack in acks {
        within(ack).await.unwrap();
    }
    assert_eq!(log.in_flight(), 0);
    log.tasks.stop();
    until("the connections are closed", || async {
        (server.clients().await <= before).then_some(())
    })
    .await;
    let other = TestLog::start(&[server.url()]).await;
    let page = within(other.read(&busy, 0, 200, 100_000)).await.unwrap();
    let stored: Vec<_> = page.messages.iter().map(|stored| text(&stored.body)).collect();
    let sent: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(stored, sent);
}
