//! `slipstream account`, `team`, `app`, `key`, `plan` and `usage`: the real binary against nodes with a store.

mod doors;
mod letters;
mod lost;
mod sessions;
mod story;
mod terminal;
mod usage;

use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use slipstream::app::Roles;
use tempfile::TempDir;

use crate::support::{
    edge::{Builder, Edge},
    nats::NatsServer,
    people::{OPERATOR, PASSWORD, with_control},
};

/// A node with all roles, over a store in a file.
struct Server {
    node: Edge,
    _nats: NatsServer,
    _folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    async fn start_with(more: impl FnOnce(Builder) -> Builder) -> Self {
        let nats = NatsServer::start().await;
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", folder.path().join("store.db").display());
        let builder = with_control(Edge::builder().nats(&[nats.url()]), &store).roles(Roles::ALL);
        Self {
            node: more(builder).start().await,
            _nats: nats,
            _folder: folder,
        }
    }

    fn operator(&self) -> Person {
        Person {
            token: Some(OPERATOR.to_owned()),
            ..Person::at(self.node.addr)
        }
    }

    /// Somebody with an account, who has not signed in.
    fn stranger(&self, name: &str) -> Person {
        let email = format!("{name}@x.example");
        let made = self
            .operator()
            .run_with(&["account", "create", &email, name], &format!("{PASSWORD}\n"));
        done(&made);
        Person::at(self.node.addr)
    }

    /// Somebody who has signed in.
    fn person(&self, name: &str) -> Person {
        let person = self.stranger(name);
        person.login(name);
        person
    }
}

/// Somebody with a machine of his own.
struct Person {
    home: TempDir,
    url: String,
    token: Option<String>,
}

impl Person {
    fn at(addr: SocketAddr) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            url: format!("http://{addr}"),
            token: None,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("TMPDIR", self.home.path())
            .env("SLIPSTREAM_URL", &self.url)
            .envs(self.token.iter().map(|token| ("SLIPSTREAM_TOKEN", token)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn run_with(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // It may end before it has read all.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn login(&self, name: &str) {
        let input = format!("{name}@x.example\n{PASSWORD}\n");
        done(&self.run_with(&["account", "login"], &input));
    }

    /// What a command prints.
    #[track_caller]
    fn tells(&self, args: &[&str]) -> String {
        done(&self.run(args))
    }

    /// What it prints as JSON.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        serde_json::from_str(&self.tells(&args)).unwrap()
    }

    /// Why a command failed: exit code and what it says.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> (i32, String) {
        failed(&self.run(args))
    }

    /// A team and an app of it; the team's id.
    #[track_caller]
    fn shop(&self) -> String {
        let team = self.json(&["team", "create", "Shop"])["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let settings = self.file("settings.json", &crate::support::people::settings());
        let create = [
            "app",
            "create",
            "Shop",
            "--id",
            "shop",
            "--team",
            &team,
            "--settings",
        ];
        self.tells(&[&create[..], &[&settings]].concat());
        team
    }

    /// A file with JSON.
    fn file(&self, name: &str, value: &Value) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.display().to_string()
    }

    fn session_file(&self) -> PathBuf {
        self.home.path().join("slipstream/session.json")
    }

    /// What is kept of the session.
    fn session(&self) -> Value {
        let file: Value = serde_json::from_slice(&std::fs::read(self.session_file()).unwrap()).unwrap();
        file["sessions"][&self.url].clone()
    }

    fn keep_session(&self, session: &Value) {
        let file = json!({"sessions": {self.url.as_str(): session}});
        std::fs::write(self.session_file(), file.to_string()).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command has printed that has done what it should.
#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout)
}

/// Exit code, and what is said on standard error.
#[track_caller]
fn failed(output: &Output) -> (i32, String) {
    let said = text(&output.stderr);
    let said = said.strip_prefix("slipstream: ").unwrap_or(&said).trim_end();
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), said.to_owned())
}

/// The cells of a table's lines.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().map(|line| line.split("  ").map(str::trim));
    lines
        .map(|cells| cells.filter(|cell| !cell.is_empty()).collect())
        .collect()
}
