//! JetStream behind the product's back, as an operator or an accident would use it.

use async_nats::Client;
use serde_json::{Value, json};

use super::NatsServer;
use crate::support::{until, within};

/// The streams of the class that [`crate::support::edge`] gives its durable namespaces.
pub(crate) const SHARDS: [&str; 2] = ["slipstream_std_0", "slipstream_std_1"];

/// Lines of server configuration for [`NatsServer::subscriptions`]; other clients need no password.
pub(crate) const WITH_SYSTEM_ACCOUNT: &str = "accounts { A { jetstream: enabled, users: [{user: a, password: a}] }, \
     SYS { users: [{user: sys, password: sys}] } }\nsystem_account: SYS\nno_auth_user: a";

impl NatsServer {
    /// One request to JetStream's API, which must succeed.
    pub(crate) async fn api(&self, what: &str, request: &Value) -> Value {
        let client = within(async_nats::connect(self.url())).await.unwrap();
        let answer = within(api(&client, what, request))
            .await
            .expect("JetStream answers");
        assert!(answer.get("error").is_none(), "{what}: {answer}");
        answer
    }

    /// Deletes a stream and creates it again, with the same settings and nothing in it.
    pub(crate) async fn recreate(&self, stream: &str) {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await;
        // Deleting is denied by the stream's own settings only for messages.
        self.api(&format!("STREAM.DELETE.{stream}"), &json!({})).await;
        self.api(&format!("STREAM.CREATE.{stream}"), &info["config"])
            .await;
    }

    /// Lets everything in a stream go but the last `keep` messages, as a limit would.
    pub(crate) async fn trim(&self, stream: &str, keep: u64) {
        self.api(&format!("STREAM.PURGE.{stream}"), &json!({"keep": keep}))
            .await;
    }

    /// Stores messages on a subject, and waits until the last one is.
    pub(crate) async fn store(&self, subject: &str, count: usize) {
        let client = within(async_nats::connect(self.url())).await.unwrap();
        for _ in 0..count {
            let stored = client.request(subject.to_owned(), "{}".into());
            within(stored).await.unwrap();
        }
    }

    /// The first and the last sequence of a stream.
    pub(crate) async fn range(&self, stream: &str) -> (u64, u64) {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await;
        let of = |name: &str| info["state"][name].as_u64().unwrap();
        (of("first_seq"), of("last_seq"))
    }

    /// Waits until everything stored in a stream by now has grown too old.
    pub(crate) async fn outlive(&self, stream: &str) {
        let (_, last) = self.range(stream).await;
        until("the messages have expired", || async {
            (self.range(stream).await.0 > last).then_some(())
        })
        .await;
    }

    /// How many subscriptions the server has. It must have the system account of
    /// [`WITH_SYSTEM_ACCOUNT`].
    pub(crate) async fn subscriptions(&self) -> u64 {
        self.count("SUBSZ", "num_subscriptions").await
    }

    /// How many clients the server has, this question's included.
    pub(crate) async fn clients(&self) -> u64 {
        self.count("CONNZ", "num_connections").await
    }

    async fn count(&self, page: &str, field: &str) -> u64 {
        let options = async_nats::ConnectOptions::with_user_and_password("sys".to_owned(), "sys".to_owned());
        let client = within(options.connect(self.url())).await.unwrap();
        let answer = within(client.request(format!("$SYS.REQ.SERVER.PING.{page}"), "".into()))
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        answer["data"][field].as_u64().unwrap()
    }
}

/// One request to JetStream's API; `None` if nobody answers.
pub(super) async fn api(client: &Client, what: &str, request: &Value) -> Option<Value> {
    let payload = serde_json::to_vec(request).unwrap();
    let answer = client
        .request(format!("$JS.API.{what}"), payload.into())
        .await
        .ok()?;
    serde_json::from_slice(&answer.payload).ok()
}
