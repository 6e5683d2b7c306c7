use super::{Collection, Engine, OpenError, StoreError, migrate, rules};

/// Documents that are read at once.
const PAGE: usize = 100;

/// What [`check`] has found.
#[derive(Debug)]
pub struct Report {
    /// The version of what is stored.
    pub version: u64,
    /// How many documents there are.
    pub counts: Vec<(Collection, u64)>,
    /// How many have something wrong; all of it has been said.
    pub problems: u64,
}

/// Reads all documents, and says which cannot be read or break a rule.
///
/// # Errors
///
/// If the store does not answer, or is of a later version than this program.
pub async fn check(engine: &dyn Engine, mut say: impl FnMut(String)) -> Result<Report, OpenError> {
    let version = migrate::version(engine).await?;
    if version > migrate::VERSION {
        return Err(OpenError::Newer {
            found: version,
            known: migrate::VERSION,
        });
    }
    let mut report = Report {
        version,
        counts: Vec::new(),
        problems: 0,
    };
    // Before the first step only this is there.
    let collections = match version {
        0 => &[Collection::Meta][..],
        _ => &Collection::ALL,
    };
    for &collection in collections {
        let count = engine.count(collection).await?;
        report.counts.push((collection, count));
        let mut after = None;
        let mut walked = 0;
        loop {
            let page = engine.walk(collection, after.clone(), PAGE).await?;
            let last = page.last().map(|walked| walked.id.clone());
            // Ids ascend; one that was damaged may not be told as it is, and would come again and again.
            if last.is_none() || last <= after {
                break;
            }
            after = last;
            walked += page.len() as u64;
            for walked in page {
                let wrong = match walked.document {
                    Err(why) => format!("cannot be read: {why}"),
                    Ok(document) => match rules::document(collection, &document) {
                        Err(StoreError::Invalid(why)) => format!("breaks a rule: {why}"),
                        _ => continue,
                    },
                };
                report.problems += 1;
                say(format!("{} {:?} {wrong}", collection.as_str(), walked.id));
            }
        }
        // Documents may have come or gone meanwhile, but one whose id is no text never comes by.
        let again = engine.count(collection).await?;
        if walked < count.min(again) {
            let hidden = count.min(again) - walked;
            report.problems += hidden;
            say(format!(
                "{}: {hidden} documents cannot be listed: their ids are no texts",
                collection.as_str()
            ));
        }
    }
    Ok(report)
}
