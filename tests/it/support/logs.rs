//! What nodes log is looked through for what nobody may find there: whatever test they run in, in this process
//! or in one of their own.

use std::{io, sync::Once};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    edge::{API_KEY, TOKEN_SECRET},
    people::{OPERATOR, PASSWORD, SEALING, SESSION_SECRET},
};

/// What keys, personal tokens, access and other tokens begin with. Each is followed by more.
const PREFIXES: [&str; 3] = ["sls_", "slp_", "eyJ"];

/// So many characters behind a prefix make a secret.
const BODY: usize = 20;

/// The first secret that `text` holds: one of the tests' own, or what looks like one.
pub(crate) fn secret_in(text: &str) -> Option<String> {
    let token = std::str::from_utf8(TOKEN_SECRET).unwrap();
    let known = [API_KEY, token, OPERATOR, PASSWORD, SEALING, SESSION_SECRET];
    if let Some(secret) = known.iter().find(|secret| text.contains(**secret)) {
        return Some((*secret).to_owned());
    }
    let is_body = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    PREFIXES.iter().find_map(|prefix| {
        text.match_indices(prefix).find_map(|(at, _)| {
            let body: String = text[at + prefix.len()..]
                .chars()
                .take_while(|&c| is_body(c))
                .collect();
            (body.len() >= BODY).then(|| format!("{prefix}{body}"))
        })
    })
}

/// Fails the test that runs if `text`, which a node has logged, holds a secret.
#[track_caller]
pub(crate) fn assert_clean(text: &str) {
    let line = text.lines().find(|line| secret_in(line).is_some());
    assert!(
        line.is_none(),
        "a node has logged a secret: {}",
        line.unwrap_or_default()
    );
}

/// From now on everything that nodes of this process log is looked through. A secret ends the process, since a
/// panic in a task of a node would be its alone.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let logged = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("warn,slipstream=debug"))
            .with_writer(Watching)
            .with_ansi(false)
            .try_init();
        logged.expect("nothing else of the tests logs");
    });
}

struct Watching;

impl MakeWriter<'_> for Watching {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl io::Write for Watching {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        if let Some(secret) = secret_in(&text) {
            eprintln!("a node has logged a secret ({secret}): {text}");
            std::process::exit(101);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn secrets_are_found() {
    for (text, found) in [
        ("all is well, sls_ and eyJ", false),
        (API_KEY, true),
        ("key=sls_0123456789abcdefghijKLMN end", true),
        (
            "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1In0.x",
            true,
        ),
        ("password: correct horse battery", true),
    ] {
        assert_eq!(secret_in(text).is_some(), found, "{text}");
    }
}
