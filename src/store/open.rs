use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Collection, Engine, Store, StoreError, checked::Checked, migrate, mongo::MongoStore, sqlite::SqliteStore,
};
use crate::{config::StoreConfig, task::Tasks};

/// What stands in [`Collection::Meta`] while an import is under way.
pub(super) const IMPORT: &str = "import";

/// Why there is no store. Never quotes its URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// None is configured.
    #[error("no store is configured: set store.url")]
    None,
    /// The URL is none.
    #[error("store.url {0}")]
    Url(&'static str),
    /// The file cannot be made or used.
    #[error("cannot open the store {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes, and does not end.
    #[error("the store {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// The file holds something else.
    #[error("the store {} is not a database, or is damaged", .0.display())]
    NotADatabase(PathBuf),
    /// The file holds the tables of something else.
    #[error("the store {} is the database of another program", .0.display())]
    Foreign(PathBuf),
    /// A later program has migrated it.
    #[error(
        "the store has schema version {found}, which is newer than this program knows ({known}): use a newer slipstream"
    )]
    Newer {
        /// Its version.
        found: u64,
        /// The program's.
        known: u64,
    },
    /// It has not been migrated.
    #[error("the store has schema version {found}, this program {known}: run `slipstream store migrate`")]
    Older {
        /// Its version.
        found: u64,
        /// The program's.
        known: u64,
    },
    /// Only a part of the documents is there.
    #[error("the store holds an import that was not finished: run `slipstream store import` again")]
    HalfImported,
    /// No thread can be started.
    #[error("cannot start a thread for the store: {0}")]
    Thread(#[source] io::Error),
    /// It does not answer, or not as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the store, made and migrated if necessary.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn open(config: &StoreConfig, tasks: &Tasks) -> Result<Arc<dyn Store>, OpenError> {
    let engine = connect(config, tasks).await?;
    migrate(&*engine).await?;
    if engine.get(Collection::Meta, IMPORT).await?.is_some() {
        return Err(OpenError::HalfImported);
    }
    Ok(engine)
}

/// Opens the store as it is, whatever its version.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn connect(config: &StoreConfig, tasks: &Tasks) -> Result<Arc<dyn Engine>, OpenError> {
    let url = config.url.as_ref().ok_or(OpenError::None)?.expose();
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Ok(Arc::new(Checked(
            SqliteStore::open(Path::new(path), config).await?,
        )));
    }
    if url.starts_with("mongodb://") {
        return Ok(Arc::new(Checked(MongoStore::open(url, config, tasks).await?)));
    }
    Err(OpenError::Url("must be sqlite:PATH or mongodb://..."))
}
