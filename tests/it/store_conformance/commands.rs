//! `slipstream store`, as a process.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
};

use rusqlite::Connection;
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command};

use super::places::{PLAIN, Place, UNIQUE, draft, get, insert, with_body, with_unique};
use crate::support::{mongowire::Mongowire, within};

async fn slipstream(args: &[&str], input: Option<&[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_slipstream"))
        .arg("store")
        .args(args)
        .env_clear()
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    within(async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // It may end before it has read all.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await.unwrap()
    })
    .await
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// The exit code of a failure, and its one line.
#[track_caller]
fn failed(output: &Output) -> (i32, String) {
    let lines: Vec<&str> = text(&output.stderr)
        .lines()
        .filter_map(|line| line.strip_prefix("slipstream: "))
        .collect();
    let [line] = lines[..] else { panic!("{output:?}") };
    (output.status.code().unwrap(), line.to_owned())
}

/// A configuration file with the store of a place, whose URL stands in a file of its own.
fn configuration(place: &Place) -> String {
    let folder = place.folder.path();
    let (url, file) = (folder.join("url"), folder.join("config.toml"));
    fs::write(&url, format!("{}\n", place.url())).unwrap();
    fs::write(&file, format!("[store]\nurl_file = {url:?}\ntimeout = \"20s\"\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

fn file(place: &Place, name: &str) -> String {
    place.folder.path().join(name).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_moves_from_a_file_to_a_database() {
    let server = Mongowire::start().await;
    let (old, new) = (Place::file(), Place::database(&server));
    let (from, to) = (configuration(&old), configuration(&new));
    let said = slipstream(&["migrate", "--config", &from], None).await;
    assert_eq!(succeeded(&said), "the store has schema version 1, before 0\n");
    let said = slipstream(&["migrate", "--config", &from], None).await;
    assert_eq!(succeeded(&said), "the store has schema version 1 already\n");
    {
        let store = old.open().await;
        insert(&*store, UNIQUE, "ann", with_unique("ann@example.com")).await;
        insert(&*store, PLAIN, "a", with_body(json!({ "secret": "hunter2" }))).await;
        store.replace(PLAIN, "a", 1, draft(7)).await.unwrap();
    }
    let export = file(&old, "export");
    let said = slipstream(&["export", "--config", &from, "--file", &export], None).await;
    assert_eq!(succeeded(&said), "");
    assert!(text(&said.stderr).contains("exported 2 documents"), "{said:?}");
    assert_eq!(fs::metadata(&export).unwrap().permissions().mode() & 0o777, 0o600);
    let said = slipstream(&["export", "--config", &from, "--file", &export], None).await;
    assert_eq!(failed(&said).0, 1);

    let said = slipstream(&["import", "--config", &to, "--file", &export], None).await;
    succeeded(&said);
    let said = slipstream(&["import", "--config", &to, "--file", &export], None).await;
    let (code, line) = failed(&said);
    assert!(
        code == 1 && line.contains("not empty (2 documents)"),
        "{code} {line}"
    );
    let said = slipstream(&["import", "--config", &to, "--file", &export, "--merge"], None).await;
    succeeded(&said);
    let said = slipstream(&["check", "--config", &to], None).await;
    let report = succeeded(&said);
    for line in ["schema version 1 of 1", "accounts 1", "apps 1", "plans 0"] {
        assert!(report.lines().any(|said| said == line), "{report}");
    }
    let store = new.open().await;
    assert_eq!(get(&*store, PLAIN, "a").await.revision, 2);
    assert_eq!(
        get(&*store, UNIQUE, "ann").await.unique.as_deref(),
        Some("ann@example.com")
    );

    // And back, by pipes.
    let said = slipstream(&["export", "--config", &to], None).await;
    let lines = succeeded(&said).as_bytes().to_vec();
    let back = Place::file();
    let config = configuration(&back);
    let cut = slipstream(&["import", "--config", &config], Some(&lines[..lines.len() - 9])).await;
    let (code, line) = failed(&cut);
    assert!(code == 1 && line.starts_with("line 4: "), "{code} {line}");
    let said = slipstream(&["import", "--config", &config], Some(&lines)).await;
    succeeded(&said);
    assert_eq!(get(&*back.open().await, PLAIN, "a").await.body, json!({ "n": 7 }));
}

#[tokio::test]
async fn a_file_that_was_cut_changes_nothing() {
    let place = Place::file();
    let config = configuration(&place);
    {
        insert(&*place.open().await, PLAIN, "a", draft(1)).await;
    }
    let export = file(&place, "export");
    succeeded(&slipstream(&["export", "--config", &config, "--file", &export], None).await);
    let whole = fs::read(&export).unwrap();
    fs::write(&export, &whole[..whole.len() - 2]).unwrap();
    let to = Place::file();
    let said = slipstream(
        &["import", "--config", &configuration(&to), "--file", &export],
        None,
    )
    .await;
    assert_eq!(failed(&said).0, 1);
    assert_eq!(to.open().await.count(PLAIN).await.unwrap(), 0);
}

#[tokio::test]
async fn check_exits_with_1_if_something_is_wrong() {
    let place = Place::file();
    let config = configuration(&place);
    {
        insert(
            &*place.open().await,
            PLAIN,
            "a",
            with_body(json!({ "x": "hunter2" })),
        )
        .await;
    }
    let db = Connection::open(place.folder.path().join("store.db")).unwrap();
    db.execute("UPDATE apps SET keys = 'hunter2'", []).unwrap();
    let said = slipstream(&["check", "--config", &config], None).await;
    assert_eq!(failed(&said), (1, "the store has problems: 1".to_owned()));
    assert!(
        text(&said.stdout).contains("apps \"a\" cannot be read"),
        "{said:?}"
    );
    assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
    // What cannot be read cannot be exported, and no half of an export is left.
    let export = file(&place, "export");
    let said = slipstream(&["export", "--config", &config, "--file", &export], None).await;
    let (code, line) = failed(&said);
    assert!(code == 1 && line.contains("apps cannot be read"), "{code} {line}");
    assert!(!Path::new(&export).exists());
}

#[tokio::test]
async fn without_a_store_the_caller_is_told() {
    let place = Place::file();
    let config = file(&place, "none.toml");
    for (lines, expected) in [
        ("", "no store is configured: set store.url"),
        ("[store]\nurl = \"postgres://ann:hunter2@db\"", "store.url"),
        (
            "[store]\nurl = \"mongodb+srv://ann:hunter2@db\"",
            "mongodb+srv is not supported",
        ),
    ] {
        fs::write(&config, lines).unwrap();
        let said = slipstream(&["check", "--config", &config], None).await;
        assert_eq!(said.status.code(), Some(64), "{said:?}");
        assert!(text(&said.stderr).contains(expected), "{said:?}");
        assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
    }
}
