//! Why a command over the control API failed, and what a script learns from it.

use std::{error::Error as _, io, path::PathBuf};

use serde_json::Value;

use super::table::plain;

/// Wrong arguments (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// What was asked for was refused, or cannot be.
const REFUSED: u8 = 1;
/// It may be otherwise later.
const UNAVAILABLE: u8 = 2;

/// Why it was not done, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    /// What the caller has given cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Nobody was asked.
    #[error("{url} cannot be reached: {why}")]
    Unreachable { url: String, why: String },
    /// Somebody was asked, and did not answer.
    #[error("{url} was asked and did not answer ({why}): look whether it was done before asking again")]
    Lost { url: String, why: String },
    /// The answer is not of this API.
    #[error("{0} does not answer as the control API does")]
    NotOurs(String),
    /// There is no session for this server.
    #[error("not signed in at {0}: slipstream account login")]
    NotSignedIn(String),
    /// There was one.
    #[error("{0}\n  sign in again: slipstream account login")]
    SessionOver(Refusal),
    /// Another process has the session file.
    #[error("another process keeps {} locked", .0.display())]
    Locked(PathBuf),
    /// A file of the caller.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Standard input or output.
    #[error("{0}")]
    Terminal(#[from] io::Error),
    /// It was asked whether to, and the answer was no.
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
    /// The editor failed.
    #[error("{0}")]
    Editor(String),
    /// The same, with what was written kept.
    #[error("{error}\nwhat you wrote is in {}", path.display())]
    Kept { error: Box<Self>, path: PathBuf },
}

/// What the server said no with.
#[derive(Debug)]
pub(in crate::cli) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    message: String,
    /// Path and text of each.
    reasons: Vec<(String, String)>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", plain(&self.code), plain(&self.message))?;
        for (path, text) in &self.reasons {
            write!(f, "\n  {}: {}", plain(path), plain(text))?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Out of an answer that is no success.
    pub(super) fn new(status: u16, body: &Value) -> Self {
        let error = &body["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reasons = error["reasons"].as_array().into_iter().flatten();
        let reasons = reasons.map(|reason| (text(&reason["path"]), text(&reason["message"])));
        Self {
            status,
            code: match error["code"].as_str() {
                Some(code) => code.to_owned(),
                None => format!("http_{status}"),
            },
            message: match error["message"].as_str() {
                Some(message) => message.to_owned(),
                None => "an answer that is not of the control API".to_owned(),
            },
            reasons: reasons.collect(),
        }
    }
}

impl Error {
    /// What the process ends with.
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Refused(refusal) => match refusal.status {
                408 | 429 | 500.. => UNAVAILABLE,
                _ => REFUSED,
            },
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Locked(_) => UNAVAILABLE,
            Self::Kept { error, .. } => error.exit_code(),
            Self::NotOurs(_)
            | Self::NotSignedIn(_)
            | Self::SessionOver(_)
            | Self::File { .. }
            | Self::Terminal(_)
            | Self::NotConfirmed
            | Self::Editor(_) => REFUSED,
        }
    }

    /// The code of a refusal.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

/// The root of an error of the connection, without the URL, which the message has already.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    match error.source() {
        Some(_) => root.to_string(),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => "the connection failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reason_has_a_line() {
        let body = json!({"error": {"code": "refused", "message": "it cannot be so", "reasons": [
            {"path": "limits.publish_rate", "message": "is negative"},
            {"path": "flags", "message": "push\u{1b}[2J"},
        ]}});
        let refusal = Refusal::new(422, &body);
        assert_eq!(
            refusal.to_string(),
            "refused: it cannot be so\n  limits.publish_rate: is negative\n  flags: push\\u{1b}[2J"
        );
        let strange = Refusal::new(502, &Value::Null);
        assert_eq!(
            strange.to_string(),
            "http_502: an answer that is not of the control API"
        );
    }

    #[test]
    fn exit_codes_tell_what_to_do() {
        let refused = |status| Error::Refused(Refusal::new(status, &Value::Null));
        let path = PathBuf::from("x");
        for (error, code) in [
            (Error::Usage(String::new()), 64),
            (refused(400), 1),
            (refused(404), 1),
            (refused(412), 1),
            (refused(422), 1),
            (refused(408), 2),
            (refused(429), 2),
            (refused(500), 2),
            (refused(503), 2),
            (Error::NotSignedIn(String::new()), 1),
            (Error::Locked(path.clone()), 2),
            (
                Error::Kept {
                    error: Box::new(refused(503)),
                    path,
                },
                2,
            ),
        ] {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }
}
