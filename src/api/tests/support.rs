//! A node without a listener.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, header},
};
use bytes::Bytes;
use hyper::service::Service;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    api::{ApiState, ControlState, Doors, Front, Readiness, Services, document, router},
    apps::Apps,
    channel::{Encoder, Entry, Hub},
    cluster::{About, Nodes},
    config::{Config, Sources},
    log::{
        Log,
        memory::{ClassSpec, Faults, MemoryLog},
    },
    model::{AppId, ChannelName, ClassName, Publication, TokenFacts},
    overflow::Overflow,
    presence::{Encoders, Member, Membership, Presence},
    protocol::centrifuge::encode_publication_body,
    publish::{Publisher, Target},
    revocation::Revocations,
    survey::Survey,
    task::Tasks,
    telemetry::Metrics,
    users::{Index, Users},
};

/// Long enough for any answer; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three apps: `a` and `b` have the same namespaces, `small` has limits.
pub(super) const APPS: &str = r#"
    [http]
    max_body_bytes = "100KiB"
    [[apps]]
    anonymous = true
    id = "a"
    api_keys = ["key-of-a-0123456789", "second-of-a-0123456789"]
    limits.rate_channels = 8
    [[apps.namespaces]]
    name = "chat"
    subscribe = "anyone"
    history = "std"
    max_size = "1KiB"
    [[apps.namespaces]]
    name = ""
    subscribe = "anyone"
    history = "std"
    max_size = "1KiB"
    [[apps.namespaces]]
    name = "live"
    subscribe = "anyone"
    max_size = "1KiB"
    [[apps.namespaces]]
    name = "late"
    subscribe = "anyone"
    history = "std"
    rate = 5
    overflow = "queue"
    [[apps.namespaces]]
    name = "typed"
    subscribe = "anyone"
    history = "std"
    schema_compatibility = "backward"
    [[apps.namespaces.schemas]]
    version = 1
    schema = {type = "object", properties = {n = {type = "integer", minimum = 0.5}}}
    [[apps.namespaces.schemas]]
    version = 2
    schema = '{"type": "object", "properties": {"n": {"type": "number"}}}'
    [[apps.namespaces]]
    name = "slow"
    subscribe = "anyone"
    history = "std"
    rate = 1
    [[apps]]
    anonymous = true
    id = "b"
    api_keys = ["key-of-b-0123456789"]
    [[apps.namespaces]]
    name = "chat"
    subscribe = "anyone"
    history = "std"
    max_size = "1KiB"
    [[apps.namespaces]]
    name = ""
    subscribe = "anyone"
    history = "std"
    max_size = "1KiB"
    [[apps.namespaces]]
    name = "only_b"
    subscribe = "anyone"
    history = "std"
    [[apps]]
    anonymous = true
    id = "small"
    api_keys = ["key-of-small-0123456789"]
    limits.publish_rate = 1
    limits.publish_burst = 2
    limits.publish_bytes = "1KiB"
    [[apps.namespaces]]
    name = "chat"
    subscribe = "anyone"
    history = "std"
"#;

pub(super) const A: &str = "key-of-a-0123456789";
pub(super) const B: &str = "key-of-b-0123456789";
pub(super) const SMALL: &str = "key-of-small-0123456789";

pub(super) struct Node {
    pub(super) faults: Faults,
    pub(super) hub: Arc<Hub>,
    presence: Arc<Presence>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) apps: Apps,
    pub(super) survey: Arc<Survey>,
    service: Front,
    document: Value,
    tasks: Tasks,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::with(APPS).await
    }

    pub(super) async fn with(file: &str) -> Self {
        Self::with_doors(file, None).await
    }

    pub(super) async fn with_people(people: ControlState) -> Self {
        Self::with_doors(APPS, Some(people)).await
    }

    async fn with_doors(file: &str, people: Option<ControlState>) -> Self {
        let file = Some(("test.toml".into(), file.to_owned()));
        let config = Config::load(&Sources {
            file,
            ..Sources::default()
        });
        let config = config.unwrap();
        let class = ClassName::new("std").unwrap();
        let log = MemoryLog::new(vec![ClassSpec::new(class, 4)]);
        let faults = log.faults();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        faults.advance(i64::try_from(now).unwrap() - faults.now_ms());
        let log: Arc<dyn Log> = Arc::new(log);
        let (metrics, tasks) = (Arc::new(Metrics::new()), Tasks::default());
        let about = About {
            name: "node-1".to_owned(),
            address: String::new(),
        };
        let nodes = Nodes::start(
            log.clone(),
            &config.cluster,
            about,
            PATIENCE,
            metrics.clone(),
            &tasks,
        )
        .await;
        let enforce = Box::new(|_: &AppId, _: Option<&str>, _: &dyn Fn(&str, &TokenFacts) -> bool| {});
        let revocations = Revocations::start(
            &log,
            &config.revocations,
            enforce,
            PATIENCE,
            metrics.clone(),
            &tasks,
        );
        let revocations = revocations.await.unwrap();
        let presence = Presence::start(
            nodes.clone(),
            log.clone(),
            &config.presence,
            Encoders {
                join: |_, _| Bytes::new(),
                leave: |_, _| Bytes::new(),
                update: |_, _| Bytes::new(),
            },
            metrics.clone(),
            &tasks,
        )
        .await;
        let index = Arc::new(Index::default());
        let users = Users::start(
            log.clone(),
            nodes.clone(),
            index.clone(),
            &config.users,
            metrics.clone(),
            &tasks,
        );
        let apps = Apps::new(config.apps, &config.tenants, tasks.clone()).unwrap();
        let hub = Hub::start(
            log.clone(),
            &config.log,
            &config.channel,
            &config.catchup,
            (Arc::default(), apps.meters().clone()),
            Encoder {
                publication: entry,
                body: |_, _, _, _| unreachable!("no other node vouches"),
            },
            metrics.clone(),
            &tasks,
        );
        let overflow = Overflow::start(
            log.clone(),
            hub.clone(),
            apps.clone(),
            &config.queue,
            metrics.clone(),
            &tasks,
        )
        .await;
        let survey = Survey::start(
            log,
            nodes,
            (hub.clone(), index),
            (config.http.max_surveys, config.http.max_surveys_per_app),
            metrics.clone(),
            &tasks,
        );
        let readiness = Arc::new(Readiness::default());
        let state = ApiState::new(
            "node-1",
            (&config.http, &config.users),
            Services {
                apps: apps.clone(),
                publisher: Publisher::new(hub.clone(), config.http.max_json_depth, metrics.clone())
                    .with_queue(overflow),
                hub: hub.clone(),
                presence: presence.clone(),
                users,
                survey: survey.clone(),
                revocations,
            },
            readiness.clone(),
            metrics.clone(),
        );
        let service = Front::new(
            router(
                state.clone(),
                &Doors {
                    backends: true,
                    people,
                },
            ),
            Some(state),
            metrics.clone(),
        );
        Self {
            faults,
            hub,
            presence,
            readiness,
            metrics,
            apps,
            survey,
            service,
            document: serde_json::from_str(&document()).unwrap(),
            tasks,
        }
    }

    /// Makes a connection a member of a channel of an app.
    pub(super) fn member(&self, app: &str, channel: &str, client: &str, user: &str) -> Membership {
        let member = Member {
            client: client.into(),
            user: user.into(),
            joined_ms: 0,
            conn_info: Some("{\"n\":1}".into()),
            chan_info: None,
            state: None,
        };
        let (app, channel) = (AppId::new(app).unwrap(), ChannelName::new(channel).unwrap());
        self.presence
            .admit(&app, &channel, member, None)
            .unwrap()
            .join(None)
    }

    /// Calls, and holds the answer to what the OpenAPI document says of it.
    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let reply = self.raw(request).await;
        self.hold_to_document(&method, &path, &reply);
        reply
    }

    /// Calls.
    pub(super) async fn raw(&self, request: Request<Body>) -> Reply {
        let answered = timeout(PATIENCE, self.service.call(request)).await;
        let (head, body) = answered.expect("an answer in time").unwrap().into_parts();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            bytes: to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    fn hold_to_document(&self, method: &Method, path: &str, reply: &Reply) {
        let status = reply.status;
        let documented = self.documented(method, path);
        match documented {
            Some(responses) => assert!(
                responses.contains_key(&status.to_string()),
                "{method} {path}: {status} is not documented"
            ),
            None => assert!(matches!(status, 404 | 405), "{method} {path}: {status}"),
        }
        if path.starts_with("/v1/") && status >= 400 {
            let error = &reply.json()["error"];
            assert!(
                error["code"].is_string() && error["message"].is_string(),
                "{path}"
            );
        }
        assert_eq!(
            reply.headers.contains_key(header::RETRY_AFTER),
            matches!(status, 429 | 503) && !path.starts_with("/readyz"),
            "{method} {path}: {status}"
        );
    }

    /// The documented responses of a method of a path.
    pub(super) fn documented(&self, method: &Method, path: &str) -> Option<BTreeMap<String, Value>> {
        let fits = |template: &str| {
            let (mut parts, mut wanted) = (path.split('/'), template.split('/'));
            loop {
                match (parts.next(), wanted.next()) {
                    (None, None) => return true,
                    (Some(part), Some(wanted)) if part == wanted => {}
                    (Some(_), Some(wanted)) if wanted.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        let paths = self.document["paths"].as_object().unwrap();
        let found = paths.get(path).or_else(|| {
            paths
                .iter()
                .find(|(template, _)| fits(template))
                .map(|(_, it)| it)
        })?;
        let operation = found.get(method.as_str().to_ascii_lowercase())?;
        serde_json::from_value(operation["responses"].clone()).unwrap()
    }

    /// Calls with a key and, if it is not empty, a JSON body.
    pub(super) async fn call(&self, method: &str, path: &str, key: &str, body: &str) -> Reply {
        self.send(request(method, path, key, &[], body.to_owned())).await
    }

    pub(super) async fn post(&self, key: &str, channel: &str, body: &str) -> Reply {
        self.call("POST", &publications(channel), key, body).await
    }

    pub(super) async fn get(&self, key: &str, channel: &str, query: &str) -> Reply {
        let path = format!("{}?{query}", publications(channel));
        self.call("GET", &path, key, "").await
    }

    /// The payloads of a channel, oldest first.
    pub(super) async fn payloads(&self, key: &str, channel: &str) -> Vec<Value> {
        let reply = self.get(key, channel, "limit=1000").await;
        reply
            .ok(200)
            .array("publications")
            .iter()
            .map(|it| it["data"].clone())
            .collect()
    }

    /// The shard of a channel of app `a`.
    pub(super) fn shard(&self, channel: &str) -> crate::log::ShardId {
        let app = self.apps.get("a").unwrap();
        let target = Target::find(&app.rules, channel).unwrap();
        let id = AppId::new("a").unwrap();
        let route = self.hub.route(&id, &target.channel, &target.rule.history);
        route.unwrap().shard().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The body, if the status is as expected.
    pub(super) fn ok(&self, status: u16) -> Json {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status, status, "{text}");
        Json(self.json())
    }

    /// Status and code of an error of REST.
    pub(super) fn error(&self) -> (u16, String) {
        let code = self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (self.status, code)
    }
}

/// A JSON object whose fields are there.
#[derive(Debug)]
pub(super) struct Json(pub(super) Value);

impl Json {
    pub(super) fn number(&self, field: &str) -> u64 {
        self.0[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} in {}", self.0))
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.0[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field} in {}", self.0))
    }

    pub(super) fn array(&self, field: &str) -> &[Value] {
        self.0[field]
            .as_array()
            .unwrap_or_else(|| panic!("{field} in {}", self.0))
    }
}

pub(super) fn request(
    method: &str,
    path: &str,
    key: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("X-API-Key", key);
    }
    if method == "POST" && !headers.iter().any(|(name, _)| *name == "Content-Type") {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

pub(super) fn publications(channel: &str) -> String {
    format!("/v1/channels/{}/publications", percent_encoded(channel))
}

pub(super) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn entry(_: &ChannelName, publication: &Publication) -> Arc<Entry> {
    let mut body = Vec::new();
    encode_publication_body(publication, &mut body);
    let end = u32::try_from(body.len()).unwrap();
    Entry::new(publication.offset, publication.time_ms, body.into(), 0..end)
}
