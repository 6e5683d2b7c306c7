//! The binary as a person or a script meets it: `slipstream dev` from the first line to the exit
//! code. Needs a nats-server (`make nats-server`), like everything that is real.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fs::{self, File},
    io::{BufRead, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn slipstream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

/// The one line that a failed start leaves for the caller.
async fn failure(command: &mut Command) -> (Option<i32>, String) {
    let output = output(command).await;
    let text = String::from_utf8(output.stderr).unwrap();
    let mut said = text.lines().filter_map(|line| line.strip_prefix("slipstream: "));
    let line = said
        .next()
        .unwrap_or_else(|| panic!("no line in {text:?}"))
        .to_owned();
    assert_eq!(said.next(), None, "more than one line: {text}");
    (output.status.code(), line)
}

/// A `slipstream dev` that serves.
struct Dev {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    addr: String,
    nats: String,
}

impl Dev {
    async fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[]).await
    }

    async fn start_with(data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let data_dir = data_dir.to_str().unwrap();
        let mut child = slipstream(&["dev", "--listen", "127.0.0.1:0", "--data-dir", data_dir])
            .envs(env.iter().copied())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut nats = String::new();
        let addr = loop {
            let line = timeout(PATIENCE, stdout.next_line()).await.unwrap().unwrap();
            let line = line.expect("ended before it was ready");
            if let Some((_, url)) = line.split_once("nats://") {
                nats = url.split(' ').next().unwrap().to_owned();
            }
            if let Some(addr) = line.strip_prefix("ready http://") {
                break addr.to_owned();
            }
        };
        Self {
            child,
            stdout,
            addr,
            nats,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end and answers what else it printed.
    async fn end(mut self) -> (ExitStatus, Vec<String>) {
        let mut printed = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.stdout.next_line()).await.unwrap().unwrap() {
            printed.push(line);
        }
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (status, printed)
    }

    async fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.addr).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.addr
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(PATIENCE, socket.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        answer
    }
}

/// Waits until no nats-server has the store in `data_dir`.
async fn store_is_free(data_dir: &Path) {
    let lock = File::open(data_dir.join("nats/lock")).unwrap();
    let locked = tokio::task::spawn_blocking(move || lock.lock());
    timeout(PATIENCE, locked).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn dev_serves_stops_cleanly_and_keeps_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path()).await;
    let ready = dev.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let page = dev.get("/").await;
    assert!(page.contains("<title>Slipstream"), "{page}");
    let key = fs::read_to_string(dir.path().join("api-key")).unwrap();

    dev.signal(Signal::INT);
    let (status, printed) = dev.end().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(printed, Vec::<String>::new(), "`ready` is the last line");
    store_is_free(dir.path()).await;

    let again = Dev::start(dir.path()).await;
    assert_eq!(fs::read_to_string(dir.path().join("api-key")).unwrap(), key);
    again.signal(Signal::TERM);
    assert_eq!(again.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_data_folder_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path()).await;
    let data_dir = dir.path().to_str().unwrap();
    let (code, line) = failure(&mut slipstream(&["dev", "--data-dir", data_dir])).await;
    assert_eq!(code, Some(1));
    assert!(line.contains("in use by another"), "{line}");
    dev.signal(Signal::INT);
    dev.end().await;
}

#[tokio::test]
async fn a_killed_dev_takes_its_nats_server_along() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path()).await;
    TcpStream::connect(&dev.nats)
        .await
        .expect("the nats-server is there");
    dev.signal(Signal::KILL);
    dev.end().await;
    store_is_free(dir.path()).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than the patience of this test: only the second signal can end it in time.
    let slow = [
        ("SLIPSTREAM__DRAIN__GRACE", "10m"),
        ("SLIPSTREAM__DRAIN__DEADLINE", "20m"),
    ];
    let dev = Dev::start_with(dir.path(), &slow).await;
    dev.signal(Signal::INT);
    while dev.get("/readyz").await.starts_with("HTTP/1.1 200") {
        tokio::task::yield_now().await;
    }
    dev.signal(Signal::TERM);
    assert_eq!(dev.end().await.0.code(), Some(130));
    store_is_free(dir.path()).await;
}

#[tokio::test]
async fn dev_does_not_outlive_its_nats_server() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path()).await;
    let nats = fs::read_dir(dir.path().join("nats"))
        .unwrap()
        .find_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let id = name.strip_suffix(".ports")?.rsplit('_').next()?.to_owned();
            Pid::from_raw(id.parse().ok()?)
        })
        .expect("a ports file");
    kill_process(nats, Signal::KILL).unwrap();
    assert_eq!(dev.end().await.0.code(), Some(1));
}

#[tokio::test]
async fn a_start_that_fails_says_what_to_do_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (code, line) = failure(&mut slipstream(&[
        "dev",
        "--listen",
        &addr,
        "--data-dir",
        data_dir,
    ]))
    .await;
    assert_eq!(code, Some(1));
    assert!(line.contains(&addr) && line.contains("--listen"), "{line}");
    store_is_free(Path::new(data_dir)).await;

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below_a_file = file.join("data");
    let (code, line) = failure(&mut slipstream(&[
        "dev",
        "--data-dir",
        below_a_file.to_str().unwrap(),
    ]))
    .await;
    assert_eq!(code, Some(1));
    assert!(line.contains("--data-dir"), "{line}");

    let old = dir.path().join("nats-server");
    fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.25'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    for (path, message) in [
        (old.to_str().unwrap(), "2.11 is needed"),
        ("/no/such/server", "cannot run"),
    ] {
        let args = ["dev", "--data-dir", data_dir, "--nats-server", path];
        let (code, line) = failure(&mut slipstream(&args)).await;
        assert_eq!(code, Some(1));
        assert!(line.contains(message) && line.contains("--nats-server"), "{line}");
    }

    let nowhere = dir.path().to_str().unwrap();
    let mut no_server = slipstream(&["dev", "--data-dir", data_dir]);
    no_server
        .env_remove("SLIPSTREAM_NATS_SERVER")
        .env("PATH", nowhere)
        .current_dir(nowhere);
    let (code, line) = failure(&mut no_server).await;
    assert_eq!(code, Some(1));
    // The old one lies in that folder.
    assert!(line.contains("2.11 is needed"), "{line}");
    fs::remove_file(&old).unwrap();
    let (code, line) = failure(&mut no_server).await;
    assert_eq!(code, Some(1));
    assert!(line.contains("no nats-server found"), "{line}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_one_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    // As much of a nats-server as a client needs to be connected.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut writer = stream.unwrap();
            let reader = std::io::BufReader::new(writer.try_clone().unwrap());
            std::thread::spawn(move || {
                let info = "INFO {\"server_id\":\"old\",\"server_name\":\"old\",\"version\":\"2.9.25\",\"go\":\"go1\",\
                            \"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576,\
                            \"proto\":1,\"client_id\":1,\"jetstream\":true}\r\n";
                let _ = writer.write_all(info.as_bytes());
                for line in reader.lines().map_while(Result::ok) {
                    if line.starts_with("PING") {
                        let _ = writer.write_all(b"PONG\r\n");
                    }
                }
            });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slipstream.toml");
    let config = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[nats]\nservers = [\"{url}\"]\n\
         [[apps]]\nid = \"shop\"\nanonymous = true\n"
    );
    fs::write(&file, config).unwrap();
    let (code, line) = failure(&mut slipstream(&["serve", "--config", file.to_str().unwrap()])).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        line,
        "nats-server 2.9.25 is too old: install 2.11 or newer (batched direct get)"
    );
}

#[tokio::test]
async fn a_configuration_is_checked_and_shown_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.toml");
    let key = "0123456789abcdef0123456789abcdef";
    fs::write(
        &good,
        format!("[[apps]]\nid = \"shop\"\nanonymous = true\napi_keys = [\"{key}\"]\n"),
    )
    .unwrap();
    let bad = dir.path().join("bad.toml");
    fs::write(&bad, "[edge]\nping_intervall = \"1s\"\nmax_channels = \"many\"\n").unwrap();

    let good = good.to_str().unwrap();
    let checked = output(&mut slipstream(&["config", "check", "--config", good])).await;
    assert_eq!(checked.status.code(), Some(0));
    let shown = output(&mut slipstream(&["config", "show", "--config", good])).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("shop") && !shown.contains(key), "{shown}");

    let checked = output(&mut slipstream(&[
        "config",
        "check",
        "--config",
        bad.to_str().unwrap(),
    ]))
    .await;
    assert_eq!(checked.status.code(), Some(64));
    let problems = String::from_utf8(checked.stderr).unwrap();
    for key in ["edge.ping_intervall", "edge.max_channels"] {
        assert!(problems.contains(key), "{problems}");
    }
    for command in [&["serve"][..], &["config", "check"], &["dev"]] {
        let args = [command, &["--config", "/no/such/file"]].concat();
        let mut command = slipstream(&args);
        let (code, line) = failure(command.current_dir(dir.path())).await;
        assert_eq!(code, Some(64));
        assert!(line.contains("/no/such/file"), "{line}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_the_callers_fault() {
    for args in [&["fly"][..], &["dev", "--listen", "nowhere"], &[]] {
        assert_eq!(
            output(&mut slipstream(args)).await.status.code(),
            Some(64),
            "{args:?}"
        );
    }
    for args in [["--help"], ["--version"]] {
        assert_eq!(output(&mut slipstream(&args)).await.status.code(), Some(0));
    }
}
