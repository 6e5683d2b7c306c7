//! Out of descriptors: the limit is the process's, so this test runs itself in a process of its own.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const CHILD: &str = "SLIPSTREAM_TEST_DESCRIPTORS";

#[test]
fn the_listener_survives_a_lack_of_descriptors() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "listener::exhausted::with_few_descriptors",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Does nothing unless [`the_listener_survives_a_lack_of_descriptors`] runs it.
#[tokio::test]
async fn with_few_descriptors() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let server = start(&config());
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(open + 20),
            maximum,
        },
    )
    .unwrap();
    // Both ends are this process's: it runs out when the last connections are made, or accepted.
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(server.address).await {
        held.push(stream);
    }
    assert!(held.len() > 5);
    // One descriptor for a client, none for the server's end: the accept loop meets the error.
    held.pop();
    let mut waiting = server.connect().await;
    send(
        &mut waiting,
        "GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    // Not a measure: time for the accept loop to try more than once.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(held);
    let answer = read_to_end(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
