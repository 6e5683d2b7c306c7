//! Answers that get lost on the way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use slipstream::task::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::Server;

/// A way to a server on which answers get lost: the server has done what it was asked.
struct Way {
    addr: SocketAddr,
    losses: Arc<AtomicU32>,
    lost: Arc<AtomicU32>,
    tasks: Tasks,
}

impl Way {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Self {
            addr: listener.local_addr().unwrap(),
            losses: Arc::default(),
            lost: Arc::default(),
            tasks: Tasks::default(),
        };
        let (losses, lost, tasks) = (way.losses.clone(), way.lost.clone(), way.tasks.clone());
        way.tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (losses, lost) = (losses.clone(), lost.clone());
                tasks.spawn(async move {
                    let server = TcpStream::connect(target).await.unwrap();
                    pass(client, server, &losses, &lost).await;
                });
            }
        });
        way
    }

    /// The next answers get lost.
    fn lose(&self, answers: u32) {
        self.losses.store(answers, Ordering::SeqCst);
    }

    fn lost(&self) -> u32 {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, losses: &AtomicU32, lost: &AtomicU32) {
    let less = |losses: u32| losses.checked_sub(1);
    if losses
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_err()
    {
        // Ends however the two end it.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    let mut bytes = [0; 16 * 1024];
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    loop {
        let mut answer = [0; 1024];
        tokio::select! {
            read = from_client.read(&mut bytes) => match read.unwrap() {
                0 => break,
                read => to_server.write_all(&bytes[..read]).await.unwrap(),
            },
            read = from_server.read(&mut answer) => {
                assert!(read.unwrap() > 0);
                lost.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
    }
    let _ = to_client.shutdown().await;
}

/// What makes something is done once, also if it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_done_once() {
    let server = Server::start().await;
    let way = Way::to(server.node.addr).await;
    let mut ann = server.stranger("ann");
    ann.url = format!("http://{}", way.addr);
    ann.login("ann");
    way.lose(1);
    let made = ann.json(&["team", "create", "Shop"]);
    assert_eq!(way.lost(), 1);
    let teams = ann.json(&["team", "list"]);
    assert_eq!(teams["items"].as_array().unwrap().len(), 1);
    assert_eq!(teams["items"][0]["id"], made["id"]);

    // Not more than once, and what may have been done is told so.
    way.lose(2);
    let (code, said) = ann.fails(&["team", "create", "Other"]);
    assert!(code == 2 && said.contains("did not answer"), "{said}");
    // What changes something is not sent again by itself.
    way.lose(1);
    let team = made["id"].as_str().unwrap();
    assert_eq!(ann.fails(&["team", "rename", team, "Store"]).0, 2);
    assert_eq!(ann.json(&["team", "show", team])["name"], "Store");
    // What reads is.
    way.lose(1);
    ann.tells(&["team", "show", team]);
    assert_eq!(way.lost(), 5);
    server.node.stop().await;
}

/// A deployment that keeps no answers: things are made, and not twice.
#[tokio::test(flavor = "multi_thread")]
async fn without_kept_answers() {
    let server = Server::start_with(|builder| builder.set("tenants.sealing_keys", "")).await;
    let way = Way::to(server.node.addr).await;
    let mut ann = server.stranger("ann");
    ann.url = format!("http://{}", way.addr);
    ann.login("ann");
    ann.tells(&["team", "create", "Shop"]);
    let teams = ann.json(&["team", "list"]);
    assert_eq!(teams["items"].as_array().unwrap().len(), 1);
    server.node.stop().await;
}

/// New tokens that got lost cost the session, which is told so.
#[tokio::test(flavor = "multi_thread")]
async fn new_tokens_get_lost() {
    let server = Server::start_with(|builder| {
        builder
            .set("control.access_lifetime", "20s")
            .set("control.refresh_grace", "10s")
    })
    .await;
    let way = Way::to(server.node.addr).await;
    let mut ann = server.stranger("ann");
    ann.url = format!("http://{}", way.addr);
    ann.login("ann");
    way.lose(1);
    let (code, said) = ann.fails(&["account", "show"]);
    assert!(code == 1 && said.starts_with("refresh_rotated: "), "{said}");
    assert!(ann.fails(&["account", "show"]).1.starts_with("not signed in"));
    ann.login("ann");
    ann.tells(&["account", "show"]);
    server.node.stop().await;
}
