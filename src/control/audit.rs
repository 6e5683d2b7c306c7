//! Who did what: an append-only log.
//!
//! An entry is written after the change that it tells of. If that fails the call fails with `unavailable`,
//! although the change was made: whoever repeats it finds it done. Ids begin with the time, so that the order
//! of ids is the order of time, to the clocks of the nodes.

use std::sync::Arc;

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Clock,
    clock::ms,
    context::{Actor, Who},
    error::ControlError,
    records::{PAGE, Record, Records},
};
use crate::{
    config::ControlConfig,
    random,
    store::{Collection, Query},
};

mod change;

pub use change::{Change, HIDDEN};

/// Changes that an entry lists; those beyond are left out, and the last one says so.
const MAX_CHANGES: usize = 100;

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its id: the greater the later.
    #[serde(default)]
    pub id: String,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// `account`, `token`, `system` or `anybody`.
    pub actor_kind: String,
    /// The account, the token's account, or the part of the program. Empty for anybody.
    pub actor: String,
    /// The token, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What was done, like `member.role`.
    pub action: String,
    /// What kind of thing it was done to.
    pub target_kind: String,
    /// Which one.
    pub target: String,
    /// In which team, if in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// From which address.
    pub ip: String,
    /// With which program.
    pub user_agent: String,
    /// What has changed.
    pub changes: Vec<Change>,
}

impl Record for Kept {
    const COLLECTION: Collection = Collection::Audit;
    const NAME: &'static str = "entry";
    fn keys(&self) -> Vec<String> {
        let Entry {
            actor, target, team, ..
        } = &self.entry;
        let mut keys = vec![format!("target:{target}")];
        if !actor.is_empty() {
            keys.push(format!("actor:{actor}"));
        }
        for team in team.iter().chain(&self.also_in) {
            keys.push(format!("team:{team}"));
            keys.push(format!("team:{team} actor:{actor}"));
            keys.push(format!("team:{team} target:{target}"));
        }
        keys
    }
    fn expires_ms(&self) -> Option<i64> {
        self.expires_ms
    }
}

/// An entry on its way to the store.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip)]
    also_in: Vec<String>,
    #[serde(skip)]
    expires_ms: Option<i64>,
}

/// What was done, to what: all of an entry but who and when.
#[derive(Clone, Debug, Default)]
pub struct Deed {
    /// Like `member.role`.
    pub action: &'static str,
    /// What kind of thing it was done to, like `account`.
    pub target_kind: &'static str,
    /// Which one.
    pub target: String,
    /// In which team.
    pub team: Option<String>,
    /// In whose logs it stands besides.
    pub also_in: Vec<String>,
    /// What has changed.
    pub changes: Vec<Change>,
}

impl Deed {
    /// `action` was done to the `kind` with this id.
    pub fn new(action: &'static str, kind: &'static str, target: &str) -> Self {
        Self {
            action,
            target_kind: kind,
            target: target.to_owned(),
            ..Self::default()
        }
    }

    /// In this team.
    #[must_use]
    pub fn in_team(mut self, team: &str) -> Self {
        self.team = Some(team.to_owned());
        self
    }

    /// It has changed this.
    #[must_use]
    pub fn change(mut self, path: &str, old: impl Into<Value>, new: impl Into<Value>) -> Self {
        self.changes.push(Change::new(path, old, new));
        self
    }
}

/// Whose entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// All of a team.
    Team(String),
    /// Of a team, by one account.
    TeamActor(String, String),
    /// Of a team, to one thing.
    TeamTarget(String, String),
    /// By one account, in whatever team.
    Actor(String),
    /// To one thing.
    Target(String),
    /// Everything: for the operator.
    All,
}

impl About {
    fn key(&self) -> Option<String> {
        Some(match self {
            Self::Team(team) => format!("team:{team}"),
            Self::TeamActor(team, actor) => format!("team:{team} actor:{actor}"),
            Self::TeamTarget(team, target) => format!("team:{team} target:{target}"),
            Self::Actor(actor) => format!("actor:{actor}"),
            Self::Target(target) => format!("target:{target}"),
            Self::All => return None,
        })
    }
}

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Whose.
    pub about: About,
    /// None from before it, ms since 1970.
    pub from_ms: Option<i64>,
    /// None from this time on, ms since 1970.
    pub to_ms: Option<i64>,
    /// The cursor of the page before.
    pub cursor: Option<String>,
    /// The latest first.
    pub newest_first: bool,
    /// So many at most; 1 to 1,000.
    pub limit: usize,
}

impl Search {
    /// The latest hundred.
    pub fn of(about: About) -> Self {
        Self {
            about,
            from_ms: None,
            to_ms: None,
            cursor: None,
            newest_first: true,
            limit: 100,
        }
    }

    fn query(&self) -> Query {
        let mut after = self.from_ms.map(stamp);
        let mut before = self.to_ms.map(stamp);
        if let Some(cursor) = self.cursor.clone() {
            if self.newest_first {
                before = Some(before.map_or(cursor.clone(), |before| before.min(cursor)));
            } else {
                after = Some(after.map_or(cursor.clone(), |after| after.max(cursor)));
            }
        }
        Query {
            key: self.about.key(),
            after,
            before,
            descending: self.newest_first,
            limit: self.limit.clamp(1, PAGE),
        }
    }
}

/// A page of entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// In the order that was asked for.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` if this is the last.
    pub cursor: Option<String>,
}

/// The beginning of the ids of a time: of a fixed length, so that their order is that of the times. It is
/// smaller than every id of its time.
fn stamp(at_ms: i64) -> String {
    format!("{:015}", at_ms.max(0))
}

/// The log.
#[derive(Clone)]
pub struct Audit {
    records: Records,
    clock: Clock,
    keep_ms: Option<i64>,
    /// The time of the last id, and how many were of it: one node's ids always ascend.
    last: Arc<Mutex<(i64, u32)>>,
}

impl Audit {
    pub(super) fn new(records: Records, clock: Clock, config: &ControlConfig) -> Self {
        let keep = config.audit_retention;
        Self {
            records,
            clock,
            keep_ms: (!keep.is_zero()).then(|| ms(keep)),
            last: Arc::new(Mutex::new((0, 0))),
        }
    }

    /// Writes that `actor` did it. The caller has done it already.
    ///
    /// # Errors
    ///
    /// `unavailable`: it is done and (perhaps) not in the log.
    pub async fn write(&self, actor: &Actor, deed: Deed) -> Result<(), ControlError> {
        let (kind, who, token) = match &actor.who {
            Who::Anybody => ("anybody", "", None),
            Who::Session { account, .. } => ("account", account.as_str(), None),
            Who::Token { account, token, .. } => ("token", account.as_str(), Some(token.clone())),
            Who::System(name) => ("system", *name, None),
        };
        let at_ms = self.clock.now_ms();
        let mut changes = deed.changes;
        if changes.len() > MAX_CHANGES {
            let left_out = changes.len() - (MAX_CHANGES - 1);
            changes.truncate(MAX_CHANGES - 1);
            changes.push(Change::new("left_out", Value::Null, left_out));
        }
        let entry = Entry {
            id: String::new(),
            at_ms,
            actor_kind: kind.to_owned(),
            actor: who.to_owned(),
            token,
            action: deed.action.to_owned(),
            target_kind: deed.target_kind.to_owned(),
            target: deed.target,
            team: deed.team,
            ip: actor.origin.ip_text(),
            user_agent: actor.origin.user_agent().to_owned(),
            changes,
        };
        let kept = Kept {
            entry,
            also_in: deed.also_in,
            expires_ms: self.keep_ms.map(|keep| at_ms.saturating_add(keep)),
        };
        let written = self.records.insert(self.next_id(at_ms), kept).await;
        written.map(|_| ()).map_err(|error| {
            tracing::error!(%error, "a change was made that is not in the audit log");
            ControlError::Unavailable
        })
    }

    fn next_id(&self, now_ms: i64) -> String {
        let mut last = self.last.lock();
        *last = match *last {
            (at, count) if at >= now_ms => (at, count + 1),
            _ => (now_ms, 0),
        };
        format!("{}-{:06}-{}", stamp(last.0), last.1, random::name(8))
    }

    /// A page. **Nobody is asked for a permission here**: see [`super::Control::team_audit`] and
    /// [`super::Control::own_audit`].
    ///
    /// # Errors
    ///
    /// `unavailable`.
    pub async fn search(&self, search: &Search) -> Result<Page, ControlError> {
        let query = search.query();
        let limit = query.limit;
        let found = self.records.store().list(Collection::Audit, query).await?;
        let cursor = (found.len() == limit)
            .then(|| found.last().map(|document| document.id.clone()))
            .flatten();
        let entries = found.into_iter().map(|document| {
            let mut entry: Entry =
                serde_json::from_value(document.body).map_err(|_| ControlError::Internal)?;
            entry.id = document.id;
            Ok(entry)
        });
        Ok(Page {
            entries: entries.collect::<Result<_, ControlError>>()?,
            cursor,
        })
    }

    /// All that is found, as lines of JSON (NDJSON), a page at a time: each is read when the one before was
    /// taken. Ends after an error. Permissions as for [`Audit::search`].
    pub fn export(
        &self,
        mut search: Search,
    ) -> impl Stream<Item = Result<String, ControlError>> + Send + use<> {
        search.limit = PAGE;
        stream::unfold(Some((self.clone(), search)), |state| async {
            let (audit, mut search) = state?;
            let page = match audit.search(&search).await {
                Ok(page) => page,
                Err(error) => return Some((Err(error), None)),
            };
            let mut lines = String::new();
            for entry in &page.entries {
                let Ok(line) = serde_json::to_string(entry) else {
                    return Some((Err(ControlError::Internal), None));
                };
                lines.push_str(&line);
                lines.push('\n');
            }
            let next = page.cursor.map(|cursor| {
                search.cursor = Some(cursor);
                (audit, search)
            });
            Some((Ok(lines), next))
        })
    }
}
