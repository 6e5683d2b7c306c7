//! Where the control plane keeps what must outlive everything: accounts, teams, apps, plans, usage.
//!
//! One narrow trait over documents, so that a second implementation is small and one suite of tests
//! (`tests/it/store_conformance`) holds both to the same behaviour: SQLite in a file for one machine,
//! MongoDB, or what speaks its protocol, for a deployment. What needs more than one document to change at
//! once does not exist here: a thing that must be consistent in itself is one document, changed by
//! compare-and-set on its revision. The data plane never waits for this module.

use std::{collections::BTreeMap, future::Future, pin::Pin};

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod check;
mod checked;
mod engine;
mod migrate;
mod mongo;
mod open;
mod queue;
mod rules;
mod sqlite;
mod transfer;

pub use check::{Report, check};
pub use migrate::{VERSION, migrate, version};
pub use open::{OpenError, connect, open};
pub use transfer::{Counts, TransferError, export, import, verify};

/// What an implementation does beyond [`Store`], for migrations, `check` and export.
pub use engine::{Engine, Walked};

/// A boxed future, so that the trait is object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Kinds of documents. Each has its own ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collection {
    /// People. Unique: the e-mail address.
    Accounts,
    /// Teams, with their members.
    Teams,
    /// Invitations to a team, and to sign up. Unique: the hash of what the letter holds.
    Invitations,
    /// Sessions of people. Unique: the hash of the present refresh token.
    Sessions,
    /// Personal API tokens. Unique: the hash of the token.
    ApiTokens,
    /// Apps as they are.
    Apps,
    /// Apps as they were: one document for each version.
    AppVersions,
    /// Plans.
    Plans,
    /// Who did what: only ever inserted.
    Audit,
    /// Sums over intervals.
    Usage,
    /// Answers to requests that may be repeated.
    Idempotency,
    /// What the store says of itself, its schema's version.
    Meta,
}

impl Collection {
    /// All of them, in the order in which they are exported.
    pub const ALL: [Self; 12] = [
        Self::Accounts,
        Self::Teams,
        Self::Invitations,
        Self::Sessions,
        Self::ApiTokens,
        Self::Apps,
        Self::AppVersions,
        Self::Plans,
        Self::Audit,
        Self::Usage,
        Self::Idempotency,
        Self::Meta,
    ];

    /// Its name in the database: of the table, or the collection.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Teams => "teams",
            Self::Invitations => "invitations",
            Self::Sessions => "sessions",
            Self::ApiTokens => "api_tokens",
            Self::Apps => "apps",
            Self::AppVersions => "app_versions",
            Self::Plans => "plans",
            Self::Audit => "audit",
            Self::Usage => "usage",
            Self::Idempotency => "idempotency",
            Self::Meta => "meta",
        }
    }

    /// Whether each of its documents has a value that no other of them has. If so, every one must.
    pub const fn has_unique(self) -> bool {
        matches!(
            self,
            Self::Accounts | Self::Invitations | Self::Sessions | Self::ApiTokens
        )
    }
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its id in its collection. 1 to 200 bytes without control characters; ordered by bytes.
    pub id: String,
    /// How often it has been written, from 1 on.
    pub revision: u64,
    /// See [`Collection::has_unique`]: there exactly if that is true; 1 to 300 bytes without control
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<String>,
    /// What it is found by in [`Store::list`]; any number of documents may share one. At most 1,000, of
    /// 1 to 300 bytes without control characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// When [`Store::sweep`] may remove it, ms since 1970. Until then it is there, also when that is past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// What it holds: an object.
    pub body: Value,
    /// What [`Store::add`] has added up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, i64>,
    /// How far each source has added to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<String, i64>,
}

/// A document that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// As in [`Document::unique`].
    pub unique: Option<String>,
    /// As in [`Document::keys`].
    pub keys: Vec<String>,
    /// As in [`Document::expires_ms`].
    pub expires_ms: Option<i64>,
    /// As in [`Document::body`]. No name in it may be empty, begin with `$`, or hold `.` or NUL, no whole
    /// number may lie outside of an `i64`: not every database can keep those. It is at most 32 levels deep
    /// and 1 MiB large, each value counted with 16 bytes and its name and text besides.
    pub body: Value,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Done,
    /// It is not: there is one with this id, or the one that was to be replaced has another revision or is
    /// gone.
    Conflict,
    /// It is not: another has its unique value.
    Taken,
}

/// Which documents to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only those that have this key.
    pub key: Option<String>,
    /// Only those with a greater id.
    pub after: Option<String>,
    /// Only those with a smaller id.
    pub before: Option<String>,
    /// From the greatest id down, instead of up.
    pub descending: bool,
    /// So many at most; 1 to 1,000.
    pub limit: usize,
}

/// What is to be added to the numbers of a document, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// Whose addition it is: letters, digits, `-`, `_`; at most 64 bytes.
    pub source: String,
    /// Which of the source's: it counts if it is greater than all that the source has added to this
    /// document before. Greater than 0.
    pub sequence: i64,
    /// Added to the numbers of these names (letters, digits, `_`; at most 64 bytes). What was not there was
    /// 0. If one of them would leave what an `i64` holds, nothing is added, and that is [`StoreError::Invalid`].
    pub sums: BTreeMap<String, i64>,
    /// These numbers, which must be none of `sums`, become at least so large; what was not there becomes
    /// this.
    pub peaks: BTreeMap<String, i64>,
    /// If the document is made by this: its keys.
    pub keys: Vec<String>,
    /// If the document is made by this: when it may be removed.
    pub expires_ms: Option<i64>,
}

/// Why the store did nothing, or it is not known whether it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not answer in time, or takes no more work. What was to be written may be written.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// What was asked cannot be stored.
    #[error("the store cannot keep this: {0}")]
    Invalid(&'static str),
    /// It answered with an error that no repetition will cure.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Documents, kept for good. All methods may be called from many tasks; what one has answered all see.
///
/// What cannot be stored is refused with [`StoreError::Invalid`] before anything is sent. Reading and
/// removing by an id, key or unique value that no document can have finds nothing, and is no error.
pub trait Store: Send + Sync + 'static {
    /// One document.
    fn get<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>>;

    /// The document with this unique value.
    fn find<'a>(
        &'a self,
        collection: Collection,
        unique: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>>;

    /// Stores a new document, with revision 1.
    fn insert<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>>;

    /// Replaces a document that still has this revision; it has the next one then. Its numbers stay.
    fn replace<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: u64,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>>;

    /// Removes a document, if it still has this revision (`None`: whatever it has). False if there is no
    /// such document.
    fn remove<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Lists documents in the order of their ids.
    fn list(&self, collection: Collection, query: Query) -> BoxFuture<'_, Result<Vec<Document>, StoreError>>;

    /// Adds to the numbers of a document, which is made with an empty body if there is none (which takes a
    /// collection without unique values). False if it was added before. Not a write of the document in the
    /// sense of [`Document::revision`].
    fn add<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        addition: Addition,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Removes documents that have expired at `now_ms`, at most `limit`; how many it has removed.
    fn sweep(
        &self,
        collection: Collection,
        now_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Puts a document in its place as it is, revision and numbers included: for an import. An older one
    /// with its id is gone then.
    fn put(&self, collection: Collection, document: Document) -> BoxFuture<'_, Result<Written, StoreError>>;

    /// How many documents there are.
    fn count(&self, collection: Collection) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Whether it answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
