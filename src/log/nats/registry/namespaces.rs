//! The class of each namespace (L2): set once, by the first node that uses it.

use serde::{Deserialize, Serialize};

use super::{Found, Registry, failed};
use crate::{
    log::nats::{
        api::ApiError,
        error::{Difference, StartError},
        subject::escape,
    },
    model::{AppId, History},
};

/// An entry; no class means ephemeral.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Entry {
    class: Option<String>,
}

impl Entry {
    fn of(history: &History) -> Self {
        Self {
            class: match history {
                History::None => None,
                History::Class(class) => Some(class.as_str().to_owned()),
            },
        }
    }

    fn shown(&self) -> String {
        self.class
            .clone()
            .unwrap_or_else(|| "none (ephemeral)".to_owned())
    }
}

impl Registry {
    /// Registers `namespaces`. If one of them is registered otherwise, nothing is written.
    pub(in crate::log::nats) async fn register_namespaces(
        &self,
        namespaces: &[(AppId, String, History)],
    ) -> Result<(), StartError> {
        let wanted = namespaces
            .iter()
            .map(|(app, namespace, history)| (app, namespace.as_str(), history));
        let different = self.register_all(wanted).await.map_err(failed)?;
        if different.is_empty() {
            return Ok(());
        }
        let differences = different
            .into_iter()
            .map(|(app, namespace, expected, found)| Difference {
                field: format!("{app}/{namespace}"),
                expected: expected.shown(),
                found: found.shown(),
            });
        Err(StartError::NamespaceDiffers {
            differences: differences.collect(),
        })
    }

    /// The same of one app; the namespaces that are registered otherwise.
    pub(in crate::log::nats) async fn claim(
        &self,
        app: &AppId,
        namespaces: &[(String, History)],
    ) -> Result<Vec<String>, ApiError> {
        let wanted = namespaces
            .iter()
            .map(|(namespace, history)| (app, namespace.as_str(), history));
        let different = self.register_all(wanted).await?;
        Ok(different
            .into_iter()
            .map(|(_, namespace, ..)| namespace.to_owned())
            .collect())
    }

    /// What is registered otherwise: what was wanted, and what is there.
    async fn register_all<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a AppId, &'a str, &'a History)>,
    ) -> Result<Vec<(&'a AppId, &'a str, Entry, Entry)>, ApiError> {
        let mut missing = Vec::new();
        let mut different = Vec::new();
        for (app, namespace, history) in wanted {
            let (key, entry) = (key(app, namespace), Entry::of(history));
            let found: Found<Entry> = self.get(&key).await?;
            match found.value {
                Some(stored) if stored == entry => {}
                Some(stored) => different.push((app, namespace, entry, stored)),
                None => missing.push((app, namespace, key, entry)),
            }
        }
        if !different.is_empty() {
            return Ok(different);
        }
        for (app, namespace, key, entry) in missing {
            if let Some(stored) = self.register(&key, &entry).await? {
                different.push((app, namespace, entry, stored));
            }
        }
        Ok(different)
    }

    /// Adds an entry, unless there is one by now; answers with that if it differs.
    async fn register(&self, key: &str, entry: &Entry) -> Result<Option<Entry>, ApiError> {
        loop {
            let found: Found<Entry> = self.get(key).await?;
            match found.value {
                Some(stored) => return Ok((stored != *entry).then_some(stored)),
                None if self.set(key, entry, found.revision).await? => return Ok(None),
                None => {}
            }
        }
    }
}

/// `ns.<app>.<namespace>`. A key takes `-/_=.A-Za-z0-9`: other bytes of the namespace, and `=` and
/// `.`, are `=XX`; without a namespace the token is a lone `=`.
fn key(app: &AppId, namespace: &str) -> String {
    if namespace.is_empty() {
        return format!("ns.{app}.=");
    }
    let mut escaped = String::new();
    escape(&mut escaped, namespace.as_bytes(), |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/' | b'_')
    });
    format!("ns.{app}.{}", escaped.replace('%', "="))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn l2_any_namespace_has_a_key() {
        let app = AppId::new("dev").unwrap();
        for (namespace, expected) in [
            ("chat", "ns.dev.chat"),
            ("", "ns.dev.="),
            ("a.b", "ns.dev.a=2Eb"),
            ("=", "ns.dev.=3D"),
            ("%", "ns.dev.=25"),
            ("é *", "ns.dev.=C3=A9=20=2A"),
        ] {
            assert_eq!(key(&app, namespace), expected);
        }
    }

    proptest! {
        #[test]
        fn l2_two_namespaces_never_share_a_key(a in "[a=%.: é]{0,6}", b in "[a=%.: é]{0,6}") {
            let app = AppId::new("dev").unwrap();
            prop_assert_eq!(a == b, key(&app, &a) == key(&app, &b));
            prop_assert!(key(&app, &a).bytes().all(|b| b.is_ascii_alphanumeric() || b"-/_=.".contains(&b)));
        }
    }
}
