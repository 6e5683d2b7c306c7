//! The streams: created if missing, verified if there, never altered (L1).
//!
//! What all streams of a kind have in common is data: `nats/stream.json`, `nats/registry.json`,
//! `nats/bucket.json` and `nats/work.json`, which an operator can also read or create streams from.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    api::{Api, ApiError, Refusal},
    error::{Difference, StartError},
    format::{Names, join},
};
use crate::{
    config::{ClassConfig, StreamConfig},
    log::{BucketName, StreamName},
};

const STREAM: &str = include_str!("../../../nats/stream.json");
const REGISTRY: &str = include_str!("../../../nats/registry.json");
const WORK: &str = include_str!("../../../nats/work.json");
const BUCKET: &str = include_str!("../../../nats/bucket.json");

/// Between two attempts to create or read a stream; `nats.start_timeout` ends them.
const PAUSE: Duration = Duration::from_millis(500);

/// A stream as it must be.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    name: String,
    fields: Map<String, Value>,
}

impl Definition {
    /// The stream of one shard of `class`.
    pub(super) fn shard(names: &Names, class: &ClassConfig, shard: u16) -> Result<Self, StartError> {
        let tokens = format!("{}.{shard}.>", class.name);
        let (history, live) = (join(&names.history, &tokens), join(&names.live, &tokens));
        Self::new(
            names.stream(class.name.as_str(), shard),
            STREAM,
            json!({
                "subjects": [history],
                "republish": { "src": history, "dest": live, "headers_only": false },
                "num_replicas": class.replicas,
                "max_age": nanos(class.max_age),
                "max_bytes": class.max_bytes,
                "max_msgs_per_subject": class.max_per_channel.map_or(-1, u64::cast_signed),
                "duplicate_window": nanos(class.duplicate_window),
                "placement": placement(&class.placement_tags),
            }),
        )
    }

    /// The stream under the registry's KV bucket.
    pub(super) fn registry(names: &Names, replicas: u8) -> Result<Self, StartError> {
        let bucket = names.bucket();
        Self::new(
            format!("KV_{bucket}"),
            REGISTRY,
            json!({ "subjects": [format!("$KV.{bucket}.>")], "num_replicas": replicas }),
        )
    }

    /// The stream under one of the buckets that nodes share.
    pub(super) fn bucket(names: &Names, bucket: BucketName, replicas: u8) -> Result<Self, StartError> {
        let bucket = names.shared_bucket(bucket);
        Self::new(
            format!("KV_{bucket}"),
            BUCKET,
            json!({ "subjects": [format!("$KV.{bucket}.>")], "num_replicas": replicas }),
        )
    }

    /// One of the deployment's own streams.
    pub(super) fn work(names: &Names, stream: StreamName, config: &StreamConfig) -> Result<Self, StartError> {
        let (retention, discard) = if stream.is_work_queue() {
            ("workqueue", "new")
        } else {
            ("limits", "old")
        };
        Self::new(
            names.work_stream(stream),
            WORK,
            json!({
                "subjects": [join(&names.work_root(stream), ">")],
                "retention": retention,
                "discard": discard,
                "num_replicas": config.replicas,
                "max_age": nanos(config.max_age),
                "max_bytes": config.max_bytes,
                "duplicate_window": nanos(config.duplicate_window),
            }),
        )
    }

    fn new(name: String, common: &str, own: Value) -> Result<Self, StartError> {
        let unreadable = |why: String| StartError::Request {
            what: format!("get the definition of {name}"),
            why,
        };
        let mut fields: Map<String, Value> =
            serde_json::from_str(common).map_err(|error| unreadable(error.to_string()))?;
        if let Value::Object(own) = own {
            fields.extend(own);
        }
        fields.insert("name".to_owned(), json!(name));
        Ok(Self { name, fields })
    }

    /// Makes sure that the stream exists and is as defined. Tries for as long as `patience`: a cluster
    /// that has just started elects first.
    pub(super) async fn ensure(&self, api: &Api, patience: Duration) -> Result<(), StartError> {
        let failed = |error| StartError::request(format!("create or read the stream {}", self.name))(error);
        let deadline = Instant::now() + patience;
        loop {
            match self.found(api).await {
                Ok(found) => {
                    let differences = self.differences(&found);
                    return if differences.is_empty() {
                        Ok(())
                    } else {
                        Err(StartError::StreamDiffers {
                            stream: self.name.clone(),
                            differences,
                        })
                    };
                }
                Err(ApiError::Refused(refusal)) if is_disabled(&refusal) => {
                    return Err(StartError::JetStreamDisabled);
                }
                Err(error) if Instant::now() < deadline && may_pass(&error) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The stream's configuration, after creating it if there is none.
    async fn found(&self, api: &Api) -> Result<Value, ApiError> {
        #[derive(serde::Deserialize)]
        struct Info {
            config: Value,
        }
        let info = api
            .call::<Info>(&format!("STREAM.INFO.{}", self.name), &json!({}))
            .await;
        match info {
            Err(ApiError::Refused(refusal)) if refusal.err_code == Refusal::NO_STREAM => {
                let what = format!("STREAM.CREATE.{}", self.name);
                match api.call::<Info>(&what, &self.fields).await {
                    // Another node was faster, with another definition.
                    Err(ApiError::Refused(refusal)) if refusal.err_code == Refusal::NAME_IN_USE => {
                        let what = format!("STREAM.INFO.{}", self.name);
                        Ok(api.call::<Info>(&what, &json!({})).await?.config)
                    }
                    created => Ok(created?.config),
                }
            }
            info => Ok(info?.config),
        }
    }

    fn differences(&self, found: &Value) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (field, expected) in &self.fields {
            let found = found.get(field).unwrap_or(&Value::Null);
            compare(field, expected, found, &mut differences);
        }
        differences
    }
}

/// Adds what differs. Objects are compared by the fields expected of them, so that a server may add
/// some; all ways to say "not set" are equal.
fn compare(field: &str, expected: &Value, found: &Value, out: &mut Vec<Difference>) {
    match expected {
        Value::Object(fields) if !is_unset(found) => {
            for (name, expected) in fields {
                let found = found.get(name).unwrap_or(&Value::Null);
                compare(&format!("{field}.{name}"), expected, found, out);
            }
        }
        _ if expected == found || (is_unset(expected) && is_unset(found)) => {}
        _ => out.push(Difference {
            field: field.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn placement(tags: &[String]) -> Value {
    if tags.is_empty() {
        Value::Null
    } else {
        json!({ "tags": tags })
    }
}

/// JetStream's unit of durations. A duration beyond 584 years is as good as 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether JetStream is off here for good.
fn is_disabled(refusal: &Refusal) -> bool {
    matches!(refusal.err_code, Refusal::NOT_FOR_ACCOUNT | Refusal::NOT_ENABLED)
}

fn may_pass(error: &ApiError) -> bool {
    match error {
        ApiError::NoAnswer | ApiError::NoResponders => true,
        // 500 is also what a definition that cannot be met is refused with.
        ApiError::Refused(refusal) => refusal.is_temporary() && refusal.code != 500,
        ApiError::Unreadable(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClassName;

    fn definition() -> Definition {
        let class = ClassConfig {
            name: ClassName::new("std").unwrap(),
            shards: 2,
            max_age: Duration::from_secs(60),
            max_bytes: 1_000_000,
            max_per_channel: None,
            duplicate_window: Duration::from_secs(30),
            replicas: 3,
            placement_tags: vec!["ssd".to_owned()],
        };
        Definition::shard(&Names::new("slip").unwrap(), &class, 1).unwrap()
    }

    #[test]
    fn l1_a_shard_is_defined_by_its_class() {
        let definition = definition();
        let found = Value::Object(definition.fields.clone());
        assert_eq!(found["name"], "slip_std_1");
        assert_eq!(found["subjects"], json!(["h.std.1.>"]));
        assert_eq!(
            found["republish"],
            json!({ "src": "h.std.1.>", "dest": "l.std.1.>", "headers_only": false })
        );
        assert_eq!(found["max_age"], json!(60_000_000_000_u64));
        assert_eq!(
            (&found["deny_delete"], &found["allow_direct"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(definition.differences(&found), []);
    }

    #[test]
    fn l1_every_field_that_differs_is_named() {
        let definition = definition();
        let mut found = definition.fields.clone();
        // What a server adds or leaves out does not matter.
        found.remove("no_ack");
        found.insert("metadata".to_owned(), json!({ "_nats.level": "5" }));
        found.insert(
            "republish".to_owned(),
            json!({ "src": "h.std.1.>", "dest": "x.>", "headers_only": true }),
        );
        found.insert("allow_msg_ttl".to_owned(), json!(true));
        found.insert("num_replicas".to_owned(), json!(1));
        found.remove("placement");
        let mut fields: Vec<_> = definition
            .differences(&Value::Object(found))
            .into_iter()
            .map(|difference| difference.field)
            .collect();
        fields.sort();
        assert_eq!(
            fields,
            [
                "allow_msg_ttl",
                "num_replicas",
                "placement",
                "republish.dest",
                "republish.headers_only"
            ]
        );
    }

    #[test]
    fn a_work_queue_refuses_what_is_too_much_and_events_lose_the_oldest() {
        let config = StreamConfig {
            max_age: Duration::from_secs(60),
            max_bytes: 1_000,
            duplicate_window: Duration::from_secs(2),
            replicas: 3,
        };
        let names = Names::new("blue").unwrap();
        for (stream, name, subjects, retention, discard) in [
            (
                StreamName::Usage,
                "blue_usage",
                "w-blue.usage.>",
                "workqueue",
                "new",
            ),
            (
                StreamName::Overflow,
                "blue_overflow",
                "w-blue.overflow.>",
                "workqueue",
                "new",
            ),
            (
                StreamName::Events,
                "blue_events",
                "w-blue.events.>",
                "limits",
                "old",
            ),
        ] {
            let fields = Definition::work(&names, stream, &config).unwrap().fields;
            assert_eq!(
                (
                    &fields["name"],
                    &fields["subjects"],
                    &fields["retention"],
                    &fields["discard"]
                ),
                (
                    &json!(name),
                    &json!([subjects]),
                    &json!(retention),
                    &json!(discard)
                )
            );
            assert_eq!(
                (
                    &fields["max_bytes"],
                    &fields["duplicate_window"],
                    &fields["num_replicas"]
                ),
                (&json!(1_000), &json!(2_000_000_000_u64), &json!(3))
            );
        }
    }

    #[test]
    fn the_registry_is_a_kv_bucket() {
        let definition = Definition::registry(&Names::new("blue").unwrap(), 1).unwrap();
        assert_eq!(definition.name, "KV_blue");
        assert_eq!(definition.fields["subjects"], json!(["$KV.blue.>"]));
    }
}
