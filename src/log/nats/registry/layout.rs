//! The fixed part of a deployment: entry `log` (L2).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Found, Registry, failed};
use crate::{
    config::ClassConfig,
    log::nats::{
        error::{Difference, StartError},
        format::{FORMAT, HASH},
    },
    model::ClassName,
};

/// The layout as the registry holds it. The order of the classes numbers the shards on all nodes:
/// a class is only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::log::nats) struct Layout {
    format: u32,
    hash: String,
    pub(in crate::log::nats) classes: Vec<Class>,
}

/// A retention class, without what an operator may change while it runs (replicas, placement).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::log::nats) struct Class {
    name: String,
    pub(in crate::log::nats) shards: u16,
    max_age_ms: u64,
    pub(in crate::log::nats) max_bytes: u64,
    pub(in crate::log::nats) max_per_channel: Option<u64>,
    duplicate_window_ms: u64,
}

impl Class {
    fn of(config: &ClassConfig) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: config.name.as_str().to_owned(),
            shards: config.shards,
            max_age_ms: millis(config.max_age),
            max_bytes: config.max_bytes,
            max_per_channel: config.max_per_channel,
            duplicate_window_ms: millis(config.duplicate_window),
        }
    }

    /// Its name, if it is one.
    pub(in crate::log::nats) fn name(&self) -> Option<ClassName> {
        ClassName::new(&self.name)
    }

    /// How long publications are kept.
    pub(in crate::log::nats) fn max_age(&self) -> Duration {
        Duration::from_millis(self.max_age_ms)
    }
}

impl Layout {
    /// The layout of a new deployment.
    pub(in crate::log::nats) fn of(classes: &[ClassConfig]) -> Self {
        Self {
            format: FORMAT,
            hash: HASH.to_owned(),
            classes: classes.iter().map(Class::of).collect(),
        }
    }

    /// What stands in this layout otherwise than in `ours`.
    fn differences(&self, ours: &Self) -> Vec<Difference> {
        let mut out = Vec::new();
        let mut check = |field: String, expected: String, found: String| {
            if expected != found {
                out.push(Difference {
                    field,
                    expected,
                    found,
                });
            }
        };
        check(
            "format".to_owned(),
            ours.format.to_string(),
            self.format.to_string(),
        );
        check("hash".to_owned(), ours.hash.clone(), self.hash.clone());
        for class in &ours.classes {
            let Some(found) = self.classes.iter().find(|found| found.name == class.name) else {
                continue;
            };
            let mut check = |field: &str, expected: String, found: String| {
                check(format!("classes.{}.{field}", class.name), expected, found);
            };
            let per_channel = |class: &Class| {
                class
                    .max_per_channel
                    .map_or("unlimited".to_owned(), |n| n.to_string())
            };
            check("shards", class.shards.to_string(), found.shards.to_string());
            check(
                "max_age",
                format!("{} ms", class.max_age_ms),
                format!("{} ms", found.max_age_ms),
            );
            check(
                "max_bytes",
                class.max_bytes.to_string(),
                found.max_bytes.to_string(),
            );
            check("max_per_channel", per_channel(class), per_channel(found));
            check(
                "duplicate_window",
                format!("{} ms", class.duplicate_window_ms),
                format!("{} ms", found.duplicate_window_ms),
            );
        }
        out
    }

    /// This layout with the room of `ours`, where that is more.
    fn resized(mut self, ours: &Self) -> Self {
        for class in &mut self.classes {
            let wanted = ours.classes.iter().find(|ours| ours.name == class.name);
            class.max_bytes = class.max_bytes.max(wanted.map_or(0, |ours| ours.max_bytes));
        }
        self
    }

    /// This layout with the classes of `ours` that it lacks behind its own.
    fn extended(mut self, ours: &Self) -> Self {
        for class in &ours.classes {
            if !self.classes.iter().any(|found| found.name == class.name) {
                self.classes.push(class.clone());
            }
        }
        self
    }
}

impl Registry {
    /// Refuses if the stored layout differs from `ours`. Writes nothing: the streams come first, so
    /// that a layout that cannot be created is never registered.
    pub(in crate::log::nats) async fn check_layout(&self, ours: &Layout) -> Result<(), StartError> {
        self.stored_layout(ours).await.map(|_| ())
    }

    /// Registers what the stored layout lacks of `ours`, and answers with the whole.
    pub(in crate::log::nats) async fn register_layout(&self, ours: &Layout) -> Result<Layout, StartError> {
        loop {
            let found = self.stored_layout(ours).await?;
            let layout = match &found.value {
                Some(stored) => stored.clone().extended(ours),
                None => ours.clone(),
            };
            // If another node was faster, its entry is looked at in turn.
            if found.value.as_ref() == Some(&layout)
                || self.set("log", &layout, found.revision).await.map_err(failed)?
            {
                return Ok(layout);
            }
        }
    }

    /// Refuses if the stored layout differs from `ours` in more than room, or has more of it.
    pub(in crate::log::nats) async fn check_resize(&self, ours: &Layout) -> Result<(), StartError> {
        self.resizable(ours).await.map(|_| ())
    }

    /// Registers the room of `ours`.
    pub(in crate::log::nats) async fn register_resize(&self, ours: &Layout) -> Result<(), StartError> {
        loop {
            let Some((resized, found)) = self.resizable(ours).await? else {
                return Ok(());
            };
            if found.value.as_ref() == Some(&resized)
                || self.set("log", &resized, found.revision).await.map_err(failed)?
            {
                return Ok(());
            }
        }
    }

    /// The stored layout with the room of `ours`; `None` if nothing is stored yet.
    async fn resizable(&self, ours: &Layout) -> Result<Option<(Layout, Found<Layout>)>, StartError> {
        let found: Found<Layout> = self.get("log").await.map_err(failed)?;
        let Some(resized) = found.value.clone().map(|stored| stored.resized(ours)) else {
            return Ok(None);
        };
        let differences = resized.differences(ours);
        if differences.is_empty() {
            Ok(Some((resized, found)))
        } else {
            Err(StartError::LayoutDiffers { differences })
        }
    }

    async fn stored_layout(&self, ours: &Layout) -> Result<Found<Layout>, StartError> {
        let found: Found<Layout> = self.get("log").await.map_err(failed)?;
        let differences = found
            .value
            .as_ref()
            .map_or_else(Vec::new, |stored| stored.differences(ours));
        if differences.is_empty() {
            Ok(found)
        } else {
            Err(StartError::LayoutDiffers { differences })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, shards: u16) -> Class {
        Class {
            name: name.to_owned(),
            shards,
            max_age_ms: 60_000,
            max_bytes: 1_000,
            max_per_channel: None,
            duplicate_window_ms: 1_000,
        }
    }

    fn layout(classes: Vec<Class>) -> Layout {
        Layout {
            format: FORMAT,
            hash: HASH.to_owned(),
            classes,
        }
    }

    #[test]
    fn l2_room_can_only_grow() {
        let of = |max_bytes| {
            layout(vec![Class {
                max_bytes,
                ..class("a", 1)
            }])
        };
        assert_eq!(of(1_000).resized(&of(2_000)), of(2_000));
        let differences = of(1_000).resized(&of(999)).differences(&of(999));
        assert_eq!(differences[0].field, "classes.a.max_bytes");
    }

    #[test]
    fn l2_classes_are_added_at_the_end_whatever_the_files_order() {
        let stored = layout(vec![class("b", 4), class("c", 2)]);
        let ours = layout(vec![class("a", 1), class("c", 2)]);
        assert_eq!(stored.differences(&ours), []);
        let names: Vec<_> = stored
            .extended(&ours)
            .classes
            .into_iter()
            .map(|class| class.name)
            .collect();
        assert_eq!(names, ["b", "c", "a"]);
    }

    #[test]
    fn l2_every_difference_is_named() {
        let mut stored = layout(vec![class("a", 4)]);
        stored.hash = "other".to_owned();
        stored.format = 2;
        stored.classes[0].max_per_channel = Some(7);
        let fields: Vec<_> = stored
            .differences(&layout(vec![class("a", 8)]))
            .into_iter()
            .map(|difference| difference.to_string())
            .collect();
        assert_eq!(
            fields,
            [
                "format is 2 (configured: 1)",
                "hash is other (configured: fnv1a-64)",
                "classes.a.shards is 4 (configured: 8)",
                "classes.a.max_per_channel is 7 (configured: unlimited)",
            ]
        );
    }
}
