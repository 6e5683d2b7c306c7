//! Export and import: all documents as lines of JSON, the same from and for every implementation.
//!
//! The first line is a header, the last one a footer with the numbers of documents, so that a file that was
//! cut is noticed. Both directions go page by page.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Collection, Document, Draft, Engine, OpenError, StoreError, Written,
    migrate::{self, VERSION},
    open::IMPORT,
    rules,
};
use crate::random;

/// The version of the form of the lines.
const FORMAT: u64 = 1;

/// Documents that are read at once.
const PAGE: usize = 100;

/// The longest line that is read: more than a document can have, escapes included.
const MAX_LINE: u64 = 16 << 20;

/// How many documents there are of each collection that has any.
pub type Counts = BTreeMap<Collection, u64>;

/// Why documents were not moved, or not all.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store does not do it.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The file cannot be read or written.
    #[error("cannot read or write the documents: {0}")]
    Io(#[from] io::Error),
    /// A document cannot be read.
    #[error("the document {id:?} of {} cannot be read: {why}", collection.as_str())]
    Damaged {
        /// Where it is.
        collection: Collection,
        /// Which.
        id: String,
        /// Why.
        why: String,
    },
    /// What is to be imported is none, or not all of it.
    #[error("line {line}: {why}")]
    Line {
        /// From 1 on.
        line: u64,
        /// Why.
        why: &'static str,
    },
    /// It is of another version.
    #[error(
        "the export has schema version {found}, this program {VERSION}: import it with the slipstream that wrote it"
    )]
    Version {
        /// Its version.
        found: u64,
    },
    /// There are documents that the import could overwrite.
    #[error("the store is not empty ({0} documents): --merge writes over those with the same ids")]
    NotEmpty(u64),
    /// Another document has the unique value of one that is imported.
    #[error("line {line}: another document of {} has its unique value", collection.as_str())]
    Taken {
        /// From 1 on.
        line: u64,
        /// Where it is.
        collection: Collection,
    },
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    slipstream_export: u64,
    schema: u64,
    /// Which export it is, for an import that is done again.
    id: String,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    /// The header's id.
    end_of: String,
    counts: Counts,
}

/// All lines between.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    collection: Collection,
    document: Document,
}

/// Whether a document says something of the store it is in, and stays there.
fn stays(collection: Collection, id: &str) -> bool {
    collection == Collection::Meta && (id == migrate::DOCUMENT || id == IMPORT)
}

/// Writes all documents of a store. Each is as it was at some time during the export; together they are of
/// one moment only if nobody writes meanwhile.
///
/// # Errors
///
/// If the store has another version than this program, a document cannot be read, or the writing fails.
pub async fn export(engine: &dyn Engine, out: &mut (dyn Write + Send)) -> Result<Counts, TransferError> {
    let found = migrate::version(engine).await?;
    if found != VERSION {
        return Err(outdated(found));
    }
    let id = random::name(32);
    line(
        out,
        &Header {
            slipstream_export: FORMAT,
            schema: VERSION,
            id: id.clone(),
        },
    )?;
    let mut counts = Counts::new();
    for collection in Collection::ALL {
        let mut after = None;
        loop {
            let page = engine.walk(collection, after.take(), PAGE).await?;
            let Some(last) = page.last().map(|walked| walked.id.clone()) else {
                break;
            };
            for walked in page {
                if stays(collection, &walked.id) {
                    continue;
                }
                let document = walked.document.map_err(|why| TransferError::Damaged {
                    collection,
                    id: walked.id,
                    why,
                })?;
                line(out, &Entry { collection, document })?;
                *counts.entry(collection).or_insert(0) += 1;
            }
            after = Some(last);
        }
    }
    let footer = Footer {
        end_of: id,
        counts: counts.clone(),
    };
    line(out, &footer)?;
    out.flush()?;
    Ok(counts)
}

fn outdated(found: u64) -> TransferError {
    let error = if found > VERSION {
        OpenError::Newer {
            found,
            known: VERSION,
        }
    } else {
        OpenError::Older {
            found,
            known: VERSION,
        }
    };
    TransferError::Store(error)
}

fn line(out: &mut (dyn Write + Send), value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// The lines of an export, checked as they come.
struct Lines<'a> {
    input: &'a mut (dyn BufRead + Send),
    header: Header,
    counts: Counts,
    number: u64,
}

impl<'a> Lines<'a> {
    fn new(input: &'a mut (dyn BufRead + Send)) -> Result<Self, TransferError> {
        let no_export = TransferError::Line {
            line: 1,
            why: "this is no export of slipstream",
        };
        let Some(text) = read(input, 1)? else {
            return Err(no_export);
        };
        let Ok(header) = serde_json::from_slice::<Header>(&text) else {
            return Err(no_export);
        };
        if header.slipstream_export != FORMAT {
            return Err(TransferError::Line {
                line: 1,
                why: "this export has a form that this program does not know",
            });
        }
        if header.schema != VERSION {
            return Err(TransferError::Version { found: header.schema });
        }
        Ok(Self {
            input,
            header,
            counts: Counts::new(),
            number: 1,
        })
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, TransferError> {
        Err(TransferError::Line {
            line: self.number,
            why,
        })
    }

    /// The next document; `None` after the last one, when the footer has been found and is right.
    fn next(&mut self) -> Result<Option<Entry>, TransferError> {
        self.number += 1;
        let Some(text) = read(self.input, self.number)? else {
            return self.wrong("the export ends here without its last line: it was cut");
        };
        if let Ok(Entry { collection, document }) = serde_json::from_slice(&text) {
            if stays(collection, &document.id) {
                return self.wrong("an export holds no such document");
            }
            if let Err(StoreError::Invalid(why)) = rules::document(collection, &document) {
                return self.wrong(why);
            }
            *self.counts.entry(collection).or_insert(0) += 1;
            return Ok(Some(Entry { collection, document }));
        }
        let Ok(footer) = serde_json::from_slice::<Footer>(&text) else {
            return self.wrong("this is no document");
        };
        if footer.end_of != self.header.id || footer.counts != self.counts {
            return self.wrong("the last line does not go with those before it: some are missing");
        }
        if read(self.input, self.number + 1)?.is_some() {
            return self.wrong("something stands behind the last line");
        }
        Ok(None)
    }
}

/// One line without its end; `None` at the end of the input.
fn read(input: &mut (dyn BufRead + Send), line: u64) -> Result<Option<Vec<u8>>, TransferError> {
    let mut text = Vec::new();
    io::Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut text)?;
    if text.len() as u64 == MAX_LINE {
        return Err(TransferError::Line {
            line,
            why: "it is too long",
        });
    }
    if text.pop_if(|byte| *byte == b'\n').is_none() && text.is_empty() {
        return Ok(None);
    }
    Ok(Some(text))
}

/// Reads an export to its end and writes nothing.
///
/// # Errors
///
/// If it is none, or not all of it.
pub fn verify(input: &mut (dyn BufRead + Send)) -> Result<Counts, TransferError> {
    let mut lines = Lines::new(input)?;
    while lines.next()?.is_some() {}
    Ok(lines.counts)
}

/// Writes all documents of an export into a store, which is migrated first. Until the end a document in
/// [`Collection::Meta`] says that only a part is there; the same import can then be done again.
///
/// # Errors
///
/// If the store holds documents and not `merge`, or the export is none or was cut.
pub async fn import(
    engine: &dyn Engine,
    input: &mut (dyn BufRead + Send),
    merge: bool,
) -> Result<Counts, TransferError> {
    let mut lines = Lines::new(input)?;
    migrate::migrate(engine).await?;
    begin(engine, &lines.header.id, merge).await?;
    while let Some(Entry { collection, document }) = lines.next()? {
        if engine.put(collection, document).await? == Written::Taken {
            return Err(TransferError::Taken {
                line: lines.number,
                collection,
            });
        }
    }
    engine.remove(Collection::Meta, IMPORT, None).await?;
    Ok(lines.counts)
}

/// Notes that an import is under way, if the store is empty or the same import was under way before.
async fn begin(engine: &dyn Engine, export: &str, merge: bool) -> Result<(), TransferError> {
    let noted = engine.get(Collection::Meta, IMPORT).await?;
    let again = noted.is_some_and(|noted| noted.body.get("export") == Some(&json!(export)));
    if !again && !merge {
        let mut present = 0;
        for collection in Collection::ALL {
            present += engine.count(collection).await?;
        }
        let known = engine.walk(Collection::Meta, None, PAGE).await?;
        present -= known
            .iter()
            .filter(|walked| stays(Collection::Meta, &walked.id))
            .count() as u64;
        if present > 0 {
            return Err(TransferError::NotEmpty(present));
        }
    }
    let draft = Draft {
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body: json!({ "export": export }),
    };
    // Put, so that the note of an import that was given up is replaced.
    engine.remove(Collection::Meta, IMPORT, None).await?;
    engine.insert(Collection::Meta, IMPORT, draft).await?;
    Ok(())
}
