//! The sessions of who uses this machine: one for each server, in a file that only he can read.
//!
//! A refresh token counts once, and who presents an old one ends the session. So whoever takes new tokens has the
//! lock from before he reads the old ones until the new ones are on the disk. The lock is a file of its own, since
//! the other one is replaced each time.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::error::Error;

/// How often the lock is tried, and how long it is waited in between: more than a refresh may take.
const TRIES: u32 = 1_800;
const PAUSE: Duration = Duration::from_millis(50);

/// A session. Holds secrets, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The account's id.
    pub(super) account: String,
    /// The session's id.
    pub(super) session: String,
    pub(super) access_token: String,
    /// Ms since 1970.
    pub(super) access_expires_ms: i64,
    pub(super) refresh_token: String,
    /// Ms since 1970.
    pub(super) refresh_expires_ms: i64,
}

/// By the names of servers.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sessions {
    pub(super) sessions: BTreeMap<String, Session>,
}

/// Where sessions are kept.
pub(super) struct SessionFile {
    path: PathBuf,
}

/// The right to change the file, until it is dropped.
pub(super) struct Locked<'a> {
    file: &'a SessionFile,
    _lock: File,
}

impl SessionFile {
    /// `slipstream/session.json` in the folder for configurations.
    ///
    /// # Errors
    ///
    /// There is no such folder, as the environment has it.
    pub(super) fn of(env: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        // A relative path is none, by the XDG base directory specification.
        let absolute = |name| env(name).filter(|path| path.is_absolute());
        let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        let folder = folder.ok_or_else(|| {
            Error::Usage("neither XDG_CONFIG_HOME nor HOME says where sessions are kept".to_owned())
        })?;
        Ok(Self {
            path: folder.join("slipstream").join("session.json"),
        })
    }

    /// What it holds; nothing if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn read(&self) -> Result<Sessions, Error> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                let why = "not a session file; remove it and sign in again";
                self.error(io::Error::new(io::ErrorKind::InvalidData, why))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Sessions::default()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Waits for the lock.
    ///
    /// # Errors
    ///
    /// Another has it for too long, or it cannot be made.
    pub(super) async fn lock(&self) -> Result<Locked<'_>, Error> {
        let path = self.path.with_extension("lock");
        let error = |source| Error::File {
            path: path.clone(),
            source,
        };
        let folder = self.folder();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(error)?;
        let mut open = OpenOptions::new();
        let lock = open.create(true).truncate(false).write(true).mode(0o600);
        let lock = lock.open(&path).map_err(error)?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Locked {
                        file: self,
                        _lock: lock,
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::Error(source)) => return Err(error(source)),
            }
        }
        Err(Error::Locked(path))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn error(&self, source: io::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl Locked<'_> {
    /// What the file holds.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn read(&self) -> Result<Sessions, Error> {
        self.file.read()
    }

    /// Puts this in the place of what the file holds: all of it, or nothing if the machine stops meanwhile.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn write(&self, sessions: &Sessions) -> Result<(), Error> {
        self.replace(sessions).map_err(|source| self.file.error(source))
    }

    fn replace(&self, sessions: &Sessions) -> io::Result<()> {
        let new = self.file.path.with_extension("new");
        // Left by one who was stopped: the lock says that nobody else is writing it.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(sessions)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.file.path)?;
        File::open(self.file.folder())?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn session(name: &str) -> Session {
        Session {
            account: name.to_owned(),
            session: "s".to_owned(),
            access_token: "a".to_owned(),
            access_expires_ms: 1,
            refresh_token: "r".to_owned(),
            refresh_expires_ms: 2,
        }
    }

    fn file(folder: &Path) -> SessionFile {
        SessionFile::of(|name| (name == "XDG_CONFIG_HOME").then(|| folder.to_owned())).unwrap()
    }

    #[test]
    fn where_it_is() {
        for (xdg, home, path) in [
            (Some("/x"), Some("/h"), Some("/x/slipstream/session.json")),
            (Some("x"), Some("/h"), Some("/h/.config/slipstream/session.json")),
            (None, Some("/h"), Some("/h/.config/slipstream/session.json")),
            (None, None, None),
        ] {
            let env = |name: &str| match name {
                "XDG_CONFIG_HOME" => xdg.map(PathBuf::from),
                "HOME" => home.map(PathBuf::from),
                _ => None,
            };
            let found = SessionFile::of(env).ok().map(|file| file.path);
            assert_eq!(found.as_deref(), path.map(Path::new));
        }
    }

    #[tokio::test]
    async fn sessions_are_kept_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        assert!(file.read().unwrap().sessions.is_empty());
        let locked = file.lock().await.unwrap();
        // Of a process that was stopped in the middle.
        fs::write(file.path.with_extension("new"), "{").unwrap();
        for name in ["ann", "bob"] {
            let mut sessions = locked.read().unwrap();
            sessions.sessions.insert(format!("http://{name}"), session(name));
            locked.write(&sessions).unwrap();
        }
        drop(locked);
        let sessions = file.read().unwrap().sessions;
        assert_eq!(sessions.len(), 2);
        assert!(sessions["http://ann"] == session("ann"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file.path), 0o600);
        assert_eq!(mode(file.folder()), 0o700);
        let names = fs::read_dir(file.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["session.json", "session.lock"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (file(folder.path()), file(folder.path()));
        let locked = first.lock().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(5), second.lock()).await;
        assert!(waited.is_err());
        assert!(matches!(second.lock().await, Err(Error::Locked(_))));
        drop(locked);
        assert!(second.lock().await.is_ok());
    }

    #[test]
    fn what_is_no_session_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        fs::create_dir_all(file.folder()).unwrap();
        fs::write(&file.path, "[]").unwrap();
        assert!(matches!(file.read(), Err(Error::File { .. })));
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "[]");
    }
}
