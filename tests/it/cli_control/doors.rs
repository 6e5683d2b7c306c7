//! Which server, as whom, and what it means when there is no answer.

use std::net::TcpListener;

use super::{Person, Server};
use crate::support::{edge::Edge, nats::NatsServer, people::OPERATOR};

/// Exit codes: 64 for wrong arguments, 2 for what may be otherwise later.
#[tokio::test(flavor = "multi_thread")]
async fn exit_codes() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let somebody = Person {
        token: Some("x".to_owned()),
        ..Person::at(addr)
    };
    let (code, said) = somebody.fails(&["team", "list"]);
    assert!(code == 2 && said.contains("cannot be reached"), "{said}");
    assert_eq!(somebody.fails(&["team", "list", "--url", "ftp://x"]).0, 64);
    assert_eq!(somebody.fails(&["team", "show", ".."]).0, 64);
    assert_eq!(somebody.fails(&["team", "fly"]).0, 64);
    assert_eq!(somebody.fails(&["team", "list", "--token-file", "/nosuch"]).0, 1);

    // A database that does not answer: the node refuses, and says so.
    let nats = NatsServer::start().await;
    let closed = crate::support::people::with_control(
        Edge::builder().nats(&[nats.url()]),
        &format!("mongodb://{addr}/x?serverSelectionTimeoutMS=500"),
    );
    let node = closed.roles(slipstream::app::Roles::ALL).start().await;
    let operator = Person {
        token: Some(OPERATOR.to_owned()),
        ..Person::at(node.addr)
    };
    let (code, said) = operator.fails(&["team", "list"]);
    assert!(code == 2 && said.starts_with("unavailable: "), "{said}");
    node.stop().await;
}

/// A token in a file is taken before one of the environment, and either before the session.
#[tokio::test(flavor = "multi_thread")]
async fn as_whom() {
    let server = Server::start().await;
    let mut ann = server.person("ann");
    let create = ["account", "tokens", "create", "ci", "--scope", "team.read"];
    let token = ann.json(&create)["token"].as_str().unwrap().to_owned();
    let invite = ["account", "invite", "carl@x.example"];
    assert_eq!(ann.fails(&invite).0, 1);
    ann.token = Some(OPERATOR.to_owned());
    assert!(ann.json(&invite)["invitation"].is_string());
    let path = ann.home.path().join("token");
    std::fs::write(&path, format!("{token}\n")).unwrap();
    let file = path.display().to_string();
    let args = [&invite[..], &["--token-file", &file]].concat();
    assert_eq!(ann.fails(&args).0, 1);
    ann.tells(&["team", "list", "--token-file", &file]);
    // Signing out is about the session, whatever token there is.
    ann.tells(&["account", "logout"]);
    ann.token = None;
    assert_eq!(ann.fails(&["team", "list"]).0, 1);
    server.node.stop().await;
}

/// What is no control API is told from one that refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_role() {
    let nats = NatsServer::start().await;
    let node = Edge::start(&[nats.url()]).await;
    let somebody = Person {
        token: Some("x".to_owned()),
        ..Person::at(node.addr)
    };
    let (code, said) = somebody.fails(&["team", "list"]);
    assert!(code == 1 && said.lines().count() == 1, "{said}");
    node.stop().await;
}
