use std::{
    env,
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// The oldest version that will do: batched Direct Get came with it.
const OLDEST: Version = Version { major: 2, minor: 11 };

/// Where `make run` installs one, below the working directory.
const CACHE: &str = ".cache/nats-server/bin/nats-server";

/// What to do about a missing one, on one line.
const ADVICE: &str = "`make nats-server` installs one for this project; or install nats-server 2.11 or newer and \
                      name it with --nats-server PATH or SLIPSTREAM_NATS_SERVER";

/// A nats-server that is new enough.
#[derive(Clone, Debug)]
pub struct NatsBinary {
    /// Where it is.
    pub path: PathBuf,
    /// What `--version` says, for people.
    pub version: String,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NatsBinaryError {
    /// Neither in PATH nor in the project's cache.
    #[error("no nats-server found: {ADVICE}")]
    Missing,
    /// It does not run.
    #[error("cannot run {}: {source}; {ADVICE}", path.display())]
    Broken {
        /// The one that was tried.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too old.
    #[error("{} is version {version}, but 2.11 is needed: {ADVICE}", path.display())]
    TooOld {
        /// The one that was found.
        path: PathBuf,
        /// Its version.
        version: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl NatsBinary {
    /// The one at `named` if there is one, otherwise the first new enough one in PATH, otherwise
    /// the project's own.
    pub async fn find(named: Option<&Path>) -> Result<Self, NatsBinaryError> {
        match named {
            Some(path) => Self::check(path.to_owned()).await,
            None => Self::first(candidates(env::var_os("PATH").as_deref())).await,
        }
    }

    async fn first(candidates: Vec<PathBuf>) -> Result<Self, NatsBinaryError> {
        let mut first_error = None;
        for path in candidates {
            match Self::check(path).await {
                Ok(found) => return Ok(found),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(NatsBinaryError::Missing))
    }

    async fn check(path: PathBuf) -> Result<Self, NatsBinaryError> {
        let mut command = Command::new(&path);
        command.arg("--version").kill_on_drop(true);
        let answer = match timeout(Duration::from_secs(10), command.output()).await {
            Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            Ok(Err(source)) => Err(source),
            Err(_) => Err(io::Error::other("it does not answer to --version")),
        };
        let (version, text) = match answer.and_then(|text| match Version::parse(&text) {
            Some(version) => Ok((version, text)),
            None => Err(io::Error::other("its answer to --version is not a nats-server's")),
        }) {
            Ok(found) => found,
            Err(source) => return Err(NatsBinaryError::Broken { path, source }),
        };
        if version < OLDEST {
            let version = version.to_string();
            return Err(NatsBinaryError::TooOld { path, version });
        }
        Ok(Self { path, version: text })
    }
}

fn candidates(search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let in_path = search_path.into_iter().flat_map(env::split_paths);
    in_path
        .map(|folder| folder.join("nats-server"))
        .chain([PathBuf::from(CACHE)])
        .filter(|path| path.is_file())
        .collect()
}

impl Version {
    /// Reads `nats-server: v2.15.1`.
    fn parse(text: &str) -> Option<Self> {
        let (_, numbers) = text.lines().next()?.split_once("nats-server: v")?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn versions_as_nats_server_prints_them() {
        for (text, new_enough) in [
            ("nats-server: v2.15.1", Some(true)),
            ("nats-server: v2.11.0-RC.1", Some(true)),
            ("nats-server: v3.0.0", Some(true)),
            ("nats-server: v2.10.29", Some(false)),
            ("nats-server: v1.4.1", Some(false)),
            ("gnatsd 1.0", None),
            ("", None),
        ] {
            let version = Version::parse(text).map(|version| version >= OLDEST);
            assert_eq!(version, new_enough, "{text}");
        }
    }

    fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
        let folder = dir.join(name);
        fs::create_dir(&folder).unwrap();
        let path = folder.join("nats-server");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn the_first_that_is_new_enough_is_taken_and_otherwise_the_first_is_blamed() {
        let dir = tempfile::tempdir().unwrap();
        let old = script(dir.path(), "old", "echo 'nats-server: v2.9.0'");
        let new = script(dir.path(), "new", "echo 'nats-server: v2.12.3'");
        let other = script(dir.path(), "other", "echo hello");

        let found = NatsBinary::first(vec![old.clone(), new.clone()]).await.unwrap();
        assert_eq!(found.path, new);

        for (tried, message) in [
            (
                vec![old.clone(), other.clone()],
                "is version 2.9, but 2.11 is needed",
            ),
            (vec![other], "not a nats-server's"),
            (vec![dir.path().join("none")], "cannot run"),
            (vec![], "no nats-server found"),
        ] {
            let error = NatsBinary::first(tried).await.unwrap_err().to_string();
            assert!(
                error.contains(message) && error.contains("--nats-server"),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1);
        }
    }
}
