//! The session that is kept on a machine.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use aws_lc_rs::hmac;
use serde_json::Value;

use super::{Person, Server, done, failed};
use crate::support::{people::PASSWORD, until};

/// Access tokens that are near their end from the beginning.
async fn brief() -> Server {
    Server::start_with(|builder| {
        builder
            .set("control.access_lifetime", "2s")
            .set("control.refresh_grace", "1s")
    })
    .await
}

/// New tokens are taken when the old ones end: by the clock of this machine, or by that of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on() {
    let server = brief().await;
    let ann = server.person("ann");
    let mode = fs::metadata(ann.session_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = ann.session();
    ann.tells(&["account", "show"]);
    let second = ann.session();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(first["session"], second["session"]);

    // This machine believes the access token to be good.
    let mut believed = second.clone();
    believed["access_expires_ms"] = 4_102_444_800_000_i64.into();
    ann.keep_session(&believed);
    ann.tells(&["account", "show"]);
    assert_eq!(ann.session(), believed);
    until("the server takes it no more", || async {
        ann.tells(&["account", "show"]);
        (ann.session() != believed).then_some(())
    })
    .await;
    assert_eq!(ann.session()["session"], first["session"]);
    server.node.stop().await;
}

/// Many processes with one session: none takes a refresh token that another has used.
#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_session() {
    let server = brief().await;
    let ann = server.person("ann");
    let children: Vec<_> = (0..8)
        .map(|_| ann.command(&["account", "show"]).spawn().unwrap())
        .collect();
    for child in children {
        done(&child.wait_with_output().unwrap());
    }
    ann.tells(&["account", "show"]);
    server.node.stop().await;
}

/// A session that was ended is told so and forgotten; signing out ends it, here and there.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends() {
    let server = brief().await;
    let ann = server.person("ann");
    let other = Person::at(server.node.addr);
    other.login("ann");
    let sessions = ann.json(&["account", "sessions", "list"]);
    let sessions = sessions["items"].as_array().unwrap();
    let theirs = sessions
        .iter()
        .find(|session| session["current"] == false)
        .unwrap();
    ann.tells(&["account", "sessions", "end", theirs["id"].as_str().unwrap()]);
    let (code, said) = other.fails(&["account", "show"]);
    assert!(code == 1 && said.starts_with("session_ended: "), "{said}");
    assert!(
        said.ends_with("sign in again: slipstream account login"),
        "{said}"
    );
    assert_eq!(other.session(), Value::Null);

    let kept = ann.session();
    assert_eq!(ann.tells(&["account", "logout"]), "signed out\n");
    assert_eq!(ann.session(), Value::Null);
    assert_eq!(ann.fails(&["account", "logout"]).0, 1);
    ann.keep_session(&kept);
    assert_eq!(ann.fails(&["account", "show"]).0, 1);
    server.node.stop().await;
}

/// Another password ends other sessions, and the old one lets nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed() {
    let server = Server::start().await;
    let ann = server.person("ann");
    let input = format!("{PASSWORD}\nanother horse battery\n");
    done(&ann.run_with(&["account", "password"], &input));
    ann.tells(&["account", "show"]);
    let login = ["account", "login", "--email", "ann@x.example"];
    assert_eq!(failed(&ann.run_with(&login, &format!("{PASSWORD}\n"))).0, 1);
    done(&ann.run_with(&login, "another horse battery\n"));
    server.node.stop().await;
}

/// With a second factor a code is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor() {
    let server = Server::start().await;
    let ann = server.person("ann");
    let factor = |command: &str, input: &str| {
        let args = ["account", "second-factor", command, "--json"];
        done(&ann.run_with(&args, input))
    };
    let begun: Value = serde_json::from_str(&factor("setup", &format!("{PASSWORD}\n"))).unwrap();
    let seed = begun["seed"].as_str().unwrap();
    let codes: Value = serde_json::from_str(&factor("confirm", &format!("{}\n", code(seed)))).unwrap();
    let mut codes = codes["recovery_codes"].as_array().unwrap().iter();
    let mut code = || codes.next().unwrap().as_str().unwrap();
    let login = ["account", "login", "--email", "ann@x.example"];
    let wrong = failed(&ann.run_with(&login, &format!("{PASSWORD}\n000\n")));
    assert!(
        wrong.0 == 1 && wrong.1.starts_with("second_factor_invalid"),
        "{wrong:?}"
    );
    done(&ann.run_with(&login, &format!("{PASSWORD}\n{}\n", code())));
    assert_eq!(factor("disable", &format!("{PASSWORD}\n{}\n", code())), "");
    ann.login("ann");
    server.node.stop().await;
}

/// A code of RFC 6238.
fn code(seed: &str) -> String {
    let mut bits = (0_u64, 0);
    let mut secret = Vec::new();
    for c in seed.bytes().filter(u8::is_ascii_alphanumeric) {
        let value = if c.is_ascii_digit() {
            c - b'2' + 26
        } else {
            c.to_ascii_uppercase() - b'A'
        };
        bits = (bits.0 << 5 | u64::from(value), bits.1 + 5);
        if bits.1 >= 8 {
            bits.1 -= 8;
            secret.push(u8::try_from(bits.0 >> bits.1 & 0xff).unwrap());
        }
    }
    let step = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 30;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let number = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// Nothing that a command prints, but what it has just made, is a secret.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed() {
    let server = brief().await;
    let ann = server.stranger("ann");
    let login = ["account", "login", "--email", "ann@x.example", "--json"];
    let mut child = ann.command(&login).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(
        &mut child.stdin.take().unwrap(),
        format!("{PASSWORD}\n").as_bytes(),
    )
    .unwrap();
    let told = done(&child.wait_with_output().unwrap());
    let session = ann.session();
    let mut all = told;
    for args in [
        &["account", "show"][..],
        &["account", "sessions", "list"],
        &["account", "audit"],
    ] {
        all.push_str(&ann.tells(args));
        all.push_str(&ann.json(args).to_string());
    }
    for secret in [&session, &ann.session()] {
        for field in ["access_token", "refresh_token"] {
            assert!(!all.contains(secret[field].as_str().unwrap()), "{field}");
        }
    }
    server.node.stop().await;
}
