use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::config::Secret;

/// The folder that holds everything of a `slipstream dev`. While this value lives no other process
/// can open it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // Locked; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

/// Why a folder cannot be the data folder.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error(
        "{} is in use by another `slipstream dev`: stop that one, or give this one its own with --data-dir DIR",
        .0.display()
    )]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error(
        "cannot use {} as the data folder: {source}; choose a folder you may write to with --data-dir DIR",
        path.display()
    )]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataDir {
    /// Opens the folder, creating it if it is not there, readable by nobody else.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Unusable { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable(path))?;
        // The nats-server gets this path, and has another working directory in mind than we do.
        let path = fs::canonicalize(path).map_err(unusable(path))?;
        let lock_path = path.join("lock");
        let lock = private().open(&lock_path).map_err(unusable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path)),
            Err(TryLockError::Error(source)) => Err(DataDirError::Unusable {
                path: lock_path,
                source,
            }),
        }
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret in the file `name`: generated the first time, the same ever after.
    pub fn secret(&self, name: &str) -> Result<Secret, DataDirError> {
        let path = self.path.join(name);
        self.read_or_generate(&path)
            .map_err(|source| DataDirError::Unusable { path, source })
    }

    fn read_or_generate(&self, path: &Path) -> io::Result<Secret> {
        match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                let why = "the file is empty: remove it to get a new secret";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            Ok(text) => return Ok(Secret::new(text.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let secret = random_secret()?;
        // Renamed into place, so that a crash never leaves half a secret.
        let half = self.path.join("secret.tmp");
        let mut file = private().truncate(true).open(&half)?;
        writeln!(file, "{}", secret.expose())?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        Ok(secret)
    }
}

/// 128 random bits in hexadecimal digits, behind a letter: NATS reads a value that looks like a
/// number as one.
pub(super) fn random_secret() -> io::Result<Secret> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(Secret::new(format!("k{:032x}", u128::from_be_bytes(bytes))))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A process that another test starts at this moment has the lock until it has become another program.
    fn open_again(path: &Path) -> DataDir {
        loop {
            match DataDir::open(path) {
                Err(DataDirError::InUse(_)) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn a_secret_is_generated_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path).unwrap().secret("api-key").unwrap();
        let again = open_again(&path);
        assert_eq!(again.secret("api-key").unwrap(), first);
        assert_ne!(again.secret("token-secret").unwrap(), first);
        assert_eq!(first.expose().len(), 33);

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("api-key")), 0o600);
    }

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("in use") && error.contains("--data-dir"),
            "{error}"
        );
        drop(first);
        open_again(dir.path());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::open(&file.join("data")).unwrap_err().to_string();
        assert!(
            error.contains("file/data") && error.contains("--data-dir"),
            "{error}"
        );
    }
}
