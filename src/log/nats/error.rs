use std::{fmt, path::PathBuf};

use super::api::ApiError;
use crate::config::NatsConfig;

/// Why a node cannot use the log. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `log.prefix` cannot be part of NATS names.
    #[error("log.prefix must be 1 to 32 letters, digits, '-' or '_'")]
    Prefix,
    /// No server answers, or it refuses us.
    #[error(
        "cannot connect to NATS at {servers}: {why}; is nats-server running there, and are [nats] servers and credentials right?"
    )]
    Connect {
        /// The servers tried, without credentials.
        servers: String,
        /// What went wrong.
        why: String,
    },
    /// The credentials file cannot be used.
    #[error("cannot use the credentials file {}: {why}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server is older than what the log needs.
    #[error("nats-server {found} is too old: install 2.11 or newer (batched direct get)")]
    ServerTooOld {
        /// Its version.
        found: String,
    },
    /// There is no JetStream.
    #[error(
        "JetStream is not enabled: start nats-server with -js and a store directory, and enable JetStream for the account"
    )]
    JetStreamDisabled,
    /// JetStream did not do what was asked.
    #[error("JetStream did not {what}: {why}")]
    Request {
        /// What was asked.
        what: String,
        /// Why it was not done.
        why: String,
    },
    /// A stream exists with other settings than the configuration's.
    #[error(
        "stream {stream} differs from the configuration, and is never altered by itself: {}; correct [[log.classes]] or [log.streams], or change the stream by hand",
        list(differences)
    )]
    StreamDiffers {
        /// Its name.
        stream: String,
        /// Each field that differs.
        differences: Vec<Difference>,
    },
    /// The deployment was set up with another layout.
    #[error(
        "the configuration differs from what this deployment was set up with: {}; correct [log] (`slipstream log resize` can raise max_bytes), or use another log.prefix for a new deployment",
        list(differences)
    )]
    LayoutDiffers {
        /// Each field that differs.
        differences: Vec<Difference>,
    },
    /// A namespace is in another class than on the other nodes.
    #[error(
        "namespaces differ from what other nodes use: {}; a namespace cannot change its class: correct this node's configuration",
        list(differences)
    )]
    NamespaceDiffers {
        /// Each namespace that differs, as `app/namespace`.
        differences: Vec<Difference>,
    },
    /// A namespace names a class that does not exist.
    #[error("namespace {namespace} uses the class {class}, which is not in [[log.classes]]")]
    UnknownClass {
        /// As `app/namespace`.
        namespace: String,
        /// The class.
        class: String,
    },
}

impl StartError {
    pub(super) fn connect(nats: &NatsConfig, why: &dyn fmt::Display) -> Self {
        let servers: Vec<_> = nats.servers.iter().map(|url| without_credentials(url)).collect();
        Self::Connect {
            servers: servers.join(", "),
            why: why.to_string(),
        }
    }

    pub(super) fn request(what: impl Into<String>) -> impl FnOnce(ApiError) -> Self {
        let what = what.into();
        move |why| Self::Request {
            what,
            why: why.to_string(),
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub field: String,
    /// What this node's configuration says.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {} (configured: {})",
            self.field, self.found, self.expected
        )
    }
}

fn list(differences: &[Difference]) -> String {
    let texts: Vec<_> = differences.iter().map(Difference::to_string).collect();
    texts.join(", ")
}

/// `url` without what stands before an `@`.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_reach_an_error() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://user:p@ss@host:4222", "nats://host:4222"),
            ("tls://token@host", "tls://host"),
            ("host:4222", "nats://host:4222"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn all_differences_are_named() {
        let difference = |field: &str| Difference {
            field: field.to_owned(),
            expected: "1".to_owned(),
            found: "2".to_owned(),
        };
        let error = StartError::StreamDiffers {
            stream: "slip_std_0".to_owned(),
            differences: vec![difference("max_age"), difference("max_bytes")],
        };
        let text = error.to_string();
        assert!(
            text.contains("max_age is 2 (configured: 1), max_bytes is 2 (configured: 1)"),
            "{text}"
        );
    }
}
