//! An app as it is stored, and what can be done to it. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::diff;
use crate::{
    apps::{AppRecord, FORMAT, KeyRecord},
    control::audit::Change,
    model::Quotas,
};

/// An app as it is stored, under its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppDocument {
    /// Whose it is.
    pub team: String,
    /// What people call it.
    pub name: String,
    /// Where it is meant to run.
    #[serde(default)]
    pub region: String,
    /// The plan it is on; none has no limits.
    #[serde(default)]
    pub plan: Option<String>,
    /// As which revision of its plan this was published.
    #[serde(default)]
    pub plan_revision: u64,
    /// Its features.
    #[serde(default)]
    pub flags: Vec<String>,
    /// As in `[[apps]]`.
    pub settings: Value,
    /// Its keys.
    #[serde(default)]
    pub keys: Vec<KeyDocument>,
    /// Which version this is.
    pub version: u64,
    /// Who has made it.
    pub author: String,
    /// When, ms since 1970.
    pub changed_ms: i64,
    /// What it has otherwise than the one before.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// When the app was made, ms since 1970.
    pub created_ms: i64,
    /// Who has made the app.
    #[serde(default)]
    pub maker: String,
    /// All names that its namespaces have had, in their order.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// It is no more. What is left keeps its id from being given to another, who would inherit stored history
    /// and be taken for it by whoever is late.
    #[serde(default)]
    pub deleted: bool,
}

/// A key as it is stored: never its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocument {
    /// What it is known by; the `kid` of tokens.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The SHA-256 of its text, hexadecimal.
    pub hash: String,
    /// Its text, sealed, if tokens are signed with it.
    #[serde(default)]
    pub secret: Option<String>,
    /// Seconds since 1970 until which it is good.
    #[serde(default)]
    pub until: Option<i64>,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
}

/// An app as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Which.
    pub version: u64,
    /// Who had made it.
    pub author: String,
    /// When, ms since 1970.
    pub changed_ms: i64,
    /// What it had otherwise than the one before.
    pub changes: Vec<Change>,
    /// Its features.
    pub flags: Vec<String>,
    /// Its settings.
    pub settings: Value,
}

/// What is done to an app.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Other settings instead of all that it has.
    Settings(Value),
    /// Another name or region.
    Details {
        /// The name, if it is another.
        name: Option<String>,
        /// The region, if it is another.
        region: Option<String>,
    },
    /// Other features.
    Flags(Vec<String>),
    /// Another plan.
    Plan(Option<String>),
    /// One more key.
    AddKey(KeyDocument),
    /// A key is good only until this time (seconds since 1970), or no shorter.
    EndKey {
        /// Which.
        id: String,
        /// Until when.
        until: i64,
    },
    /// A key is good no more, nor what was signed with it.
    RevokeKey(String),
    /// Its plan allows something else now: the nodes must hear of it.
    Renew {
        /// The plan. An app that is on another is not changed.
        plan: String,
        /// The plan's revision.
        revision: u64,
    },
    /// All of these, as one change.
    Several(Vec<Edit>),
    /// Settings and features as they were. Keys stay as they are: one that was revoked stays so.
    RollBack(Version),
    /// The end of it.
    Delete,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoEdit {
    /// There is no such key.
    NoKey,
    /// It is as it was.
    Same,
}

impl Edit {
    /// Whether the app has one more key after it.
    pub(super) fn adds_key(&self) -> bool {
        match self {
            Self::AddKey(_) => true,
            Self::Several(edits) => edits.iter().any(Self::adds_key),
            _ => false,
        }
    }

    /// Whether it does nothing but make, end and revoke keys, and makes one.
    pub(super) fn is_about_keys(&self) -> bool {
        let about_keys =
            |edit: &Self| matches!(edit, Self::AddKey(_) | Self::EndKey { .. } | Self::RevokeKey(_));
        match self {
            Self::Several(edits) => self.adds_key() && edits.iter().all(about_keys),
            edit => edit.adds_key(),
        }
    }

    /// Whether it does nothing but take keys, or the app, away, or tell the nodes what its plan allows: which
    /// must be possible whatever else is wrong with the app.
    pub(super) fn only_takes(&self) -> bool {
        match self {
            Self::EndKey { .. } | Self::RevokeKey(_) | Self::Renew { .. } | Self::Delete => true,
            Self::Several(edits) => edits.iter().all(Self::only_takes),
            _ => false,
        }
    }
}

impl AppDocument {
    /// The app after `edit`, as version `version`.
    pub(super) fn edited(
        &self,
        edit: &Edit,
        version: u64,
        author: &str,
        now_ms: i64,
    ) -> Result<Self, NoEdit> {
        let mut next = self.clone();
        next.apply(edit)?;
        next.changes = diff(&self.shown(), &next.shown());
        if next.changes.is_empty() && next.plan_revision == self.plan_revision {
            return Err(NoEdit::Same);
        }
        if next.deleted {
            // It is kept for its id.
            (next.settings, next.namespaces) = (Value::Null, Vec::new());
        }
        next.version = version;
        author.clone_into(&mut next.author);
        next.changed_ms = now_ms;
        Ok(next)
    }

    fn apply(&mut self, edit: &Edit) -> Result<(), NoEdit> {
        let place = |keys: &[KeyDocument], id: &str| {
            let found = keys.iter().position(|key| key.id == id);
            found.ok_or(NoEdit::NoKey)
        };
        match edit {
            Edit::Settings(settings) => self.settings.clone_from(settings),
            Edit::Details { name, region } => {
                if let Some(name) = name {
                    self.name.clone_from(name);
                }
                if let Some(region) = region {
                    self.region.clone_from(region);
                }
            }
            Edit::Flags(flags) => self.flags.clone_from(flags),
            Edit::Plan(plan) => self.plan.clone_from(plan),
            Edit::AddKey(key) => self.keys.push(key.clone()),
            Edit::EndKey { id, until } => {
                let at = place(&self.keys, id)?;
                let key = &mut self.keys[at];
                // A key that is over already does not become good again.
                key.until = Some(key.until.map_or(*until, |before| before.min(*until)));
            }
            Edit::RevokeKey(id) => {
                self.keys.remove(place(&self.keys, id)?);
            }
            Edit::Renew { plan, revision } => {
                if self.plan.as_ref() == Some(plan) {
                    self.plan_revision = *revision;
                }
            }
            Edit::Several(edits) => edits.iter().try_for_each(|edit| self.apply(edit))?,
            Edit::RollBack(version) => {
                self.settings.clone_from(&version.settings);
                self.flags.clone_from(&version.flags);
            }
            Edit::Delete => {
                self.deleted = true;
                self.keys.clear();
            }
        }
        Ok(())
    }

    /// What of it is compared and told: nothing secret.
    pub(in crate::control) fn shown(&self) -> Value {
        let keys = self.keys.iter();
        let keys: Vec<_> = keys
            .map(|key| json!({"id": key.id, "name": key.name, "until": key.until}))
            .collect();
        let mut shown = json!({
            "name": self.name,
            "region": self.region,
            "plan": self.plan,
            "flags": self.flags,
            "keys": keys,
            "settings": self.settings,
        });
        if self.deleted {
            shown["deleted"] = true.into();
        }
        shown
    }

    /// It as a version to go back to.
    pub(super) fn as_version(&self) -> Version {
        Version {
            version: self.version,
            author: self.author.clone(),
            changed_ms: self.changed_ms,
            changes: self.changes.clone(),
            flags: self.flags.clone(),
            settings: self.settings.clone(),
        }
    }

    /// What the nodes are told, with what its plan allows.
    pub(super) fn record(&self, quotas: Quotas) -> AppRecord {
        let keys = self.keys.iter().map(|key| KeyRecord {
            id: key.id.clone(),
            hash: key.hash.clone(),
            secret: key.secret.clone(),
            until: key.until,
        });
        AppRecord {
            format: FORMAT,
            version: self.version,
            settings: self.settings.clone(),
            keys: keys.collect(),
            quotas,
        }
    }

    /// Whether it has keys that tokens are signed with.
    pub(super) fn signs(&self) -> bool {
        self.keys.iter().any(|key| key.secret.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> KeyDocument {
        KeyDocument {
            id: id.to_owned(),
            name: "backend".to_owned(),
            hash: "planted hash".to_owned(),
            secret: Some("planted secret".to_owned()),
            until: None,
            created_ms: 1,
        }
    }

    fn app() -> AppDocument {
        AppDocument {
            team: "t".to_owned(),
            name: "Shop".to_owned(),
            region: String::new(),
            plan: None,
            plan_revision: 0,
            flags: Vec::new(),
            settings: json!({"anonymous": true}),
            keys: vec![key("k1")],
            version: 1,
            author: "ann".to_owned(),
            changed_ms: 1,
            changes: Vec::new(),
            created_ms: 1,
            maker: "ann".to_owned(),
            namespaces: Vec::new(),
            deleted: false,
        }
    }

    #[test]
    fn each_edit_has_a_version_an_author_and_a_difference() {
        let edits = [
            (Edit::Settings(json!({"anonymous": false})), "settings.anonymous"),
            (
                Edit::Details {
                    name: Some("Store".to_owned()),
                    region: None,
                },
                "name",
            ),
            (Edit::Flags(vec!["push".to_owned()]), "flags"),
            (Edit::Plan(Some("small".to_owned())), "plan"),
            (
                Edit::EndKey {
                    id: "k1".to_owned(),
                    until: 5,
                },
                "keys[k1].until",
            ),
            (
                Edit::RollBack(
                    app()
                        .edited(&Edit::Settings(json!({})), 2, "", 0)
                        .unwrap()
                        .as_version(),
                ),
                "settings.anonymous",
            ),
        ];
        for (edit, path) in edits {
            let edited = app().edited(&edit, 7, "bob", 9).unwrap();
            assert_eq!(edited.changes.len(), 1, "{:?}", edited.changes);
            assert_eq!(edited.changes[0].path, path);
            assert_eq!(
                (edited.version, edited.author.as_str(), edited.changed_ms),
                (7, "bob", 9)
            );
        }
    }

    #[test]
    fn differences_hold_nothing_secret() {
        let added = app().edited(&Edit::AddKey(key("k2")), 2, "bob", 9).unwrap();
        let revoked = added
            .edited(&Edit::RevokeKey("k1".to_owned()), 3, "bob", 9)
            .unwrap();
        for app in [added, revoked] {
            let told = serde_json::to_string(&app.changes).unwrap();
            assert!(told.contains("backend") && !told.contains("planted"), "{told}");
            let version = serde_json::to_string(&app.as_version()).unwrap();
            assert!(!version.contains("planted"), "{version}");
        }
    }

    #[test]
    fn what_is_deleted_has_no_keys_any_more() {
        let deleted = app().edited(&Edit::Delete, 2, "bob", 9).unwrap();
        assert!(deleted.deleted && deleted.keys.is_empty() && deleted.settings.is_null());
    }

    #[test]
    fn what_changes_nothing_is_no_version() {
        for (edit, why) in [
            (Edit::Settings(json!({"anonymous": true})), NoEdit::Same),
            (Edit::RevokeKey("k9".to_owned()), NoEdit::NoKey),
            (Edit::RollBack(app().as_version()), NoEdit::Same),
        ] {
            assert_eq!(app().edited(&edit, 2, "bob", 9), Err(why));
        }
    }

    #[test]
    fn an_end_never_moves_back() {
        let end = |app: &AppDocument, until| {
            let id = "k1".to_owned();
            app.edited(&Edit::EndKey { id, until }, 2, "bob", 9)
        };
        let ended = end(&app(), 50).unwrap();
        assert_eq!(end(&ended, 60), Err(NoEdit::Same));
        assert_eq!(end(&ended, 40).unwrap().keys[0].until, Some(40));
    }

    #[test]
    fn the_nodes_are_told_what_they_need() {
        let record = app().record(Quotas::default());
        assert_eq!((record.version, record.keys.len()), (1, 1));
        assert_eq!(record.keys[0].secret.as_deref(), Some("planted secret"));
        assert!(app().signs());
    }
}
