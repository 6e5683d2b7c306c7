//! Versions of what is stored, and the steps from each to the next.
//!
//! The version is a document in [`Collection::Meta`], written by compare-and-set after its step. Several
//! nodes that start at once may all do a step, and one that is slow may do it after others have done those
//! that follow: **a step can be repeated at any time**. It makes what is not there, and changes documents
//! that still are as they were, by compare-and-set on their revision.

use serde_json::{Value, json};

use super::{BoxFuture, Collection, Draft, Engine, OpenError, StoreError, Written};

/// The version of what this program stores.
pub const VERSION: u64 = STEPS.len() as u64;

/// The document that holds the version.
pub(super) const DOCUMENT: &str = "schema";

type Step = for<'a> fn(&'a dyn Engine) -> BoxFuture<'a, Result<(), StoreError>>;

/// The step at `n` leads from version `n` to the next.
const STEPS: &[Step] = &[
    // Tables, collections and indexes.
    |engine| engine.lay_out(),
];

/// The version of a store: 0 if it has just been made.
///
/// # Errors
///
/// If the store does not answer, or what it answers is no version.
pub async fn version(engine: &dyn Engine) -> Result<u64, OpenError> {
    Ok(present(engine).await?.0)
}

/// The version, and the revision of its document.
async fn present(engine: &dyn Engine) -> Result<(u64, Option<u64>), StoreError> {
    let Some(document) = engine.get(Collection::Meta, DOCUMENT).await? else {
        return Ok((0, None));
    };
    let version = document.body.get("version").and_then(Value::as_u64);
    let version =
        version.ok_or_else(|| StoreError::Failed("the version of its schema is no number".to_owned()))?;
    Ok((version, Some(document.revision)))
}

/// Brings a store to the version of this program; the version it had before.
///
/// # Errors
///
/// [`OpenError::Newer`] if it has a later one, which is left as it is.
pub async fn migrate(engine: &dyn Engine) -> Result<u64, OpenError> {
    take(engine, STEPS).await
}

async fn take(engine: &dyn Engine, steps: &[Step]) -> Result<u64, OpenError> {
    let known = steps.len() as u64;
    let mut before = None;
    loop {
        let (found, revision) = present(engine).await?;
        if found > known {
            return Err(OpenError::Newer { found, known });
        }
        let before = *before.get_or_insert(found);
        let Some(step) = usize::try_from(found).ok().and_then(|found| steps.get(found)) else {
            return Ok(before);
        };
        step(engine).await?;
        let draft = Draft {
            unique: None,
            keys: Vec::new(),
            expires_ms: None,
            body: json!({ "version": found + 1 }),
        };
        let written = match revision {
            None => engine.insert(Collection::Meta, DOCUMENT, draft).await?,
            Some(revision) => {
                engine
                    .replace(Collection::Meta, DOCUMENT, revision, draft)
                    .await?
            }
        };
        // On a conflict another node was faster; what it wrote says how to go on.
        if written == Written::Done {
            tracing::info!(version = found + 1, "the store has been migrated");
        }
    }
}

#[cfg(test)]
mod tests;
