//! Issue 4, "Limits": each bound over the wire, and that one tenant's abuse is its own.

mod arrivals;
mod conduct;
mod users;

use serde_json::{Value, json};

use crate::{
    doors::{Guest, enter, token},
    support::{
        edge::{Builder, Edge},
        nats::NatsServer,
    },
};

const SECRET: &str = "the secret of the app a: 32 bytes, at least";

/// Two apps, `a` with `limits` and `b` without.
fn edge(nats: &NatsServer, limits: &str) -> Builder {
    let app = |id: &str, more: &str| {
        format!(
            "[[apps]]\nid = \"{id}\"\nanonymous = true\napi_keys = [\"the-key-of-{id}\"]\n{more}\n\
             [apps.auth]\nhmac_secret = \"{SECRET}\"\n\
             [[apps.namespaces]]\nname = \"\"\nsubscribe = \"anyone\"\npublish = \"anyone\"\n"
        )
    };
    Edge::builder()
        .nats(&[nats.url()])
        .file(&(app("a", limits) + &app("b", "")))
}

fn path(app: &str) -> String {
    format!("/apps/{app}/connection/websocket")
}

async fn guest(edge: &Edge, app: &str, user: Option<&str>) -> Guest {
    let token = user.map(|user| token(&json!({ "sub": user }), SECRET));
    enter(edge.addr, &path(app), None, token.as_deref()).await.guest()
}

/// Publishes; the code of the error, or 0.
async fn publish(guest: &mut Guest, data: &str) -> Result<u64, u16> {
    let publish = json!({ "publish": { "channel": "x", "data": data } });
    guest.command(publish).await.map(|reply| code(&reply))
}

fn code(reply: &Value) -> u64 {
    reply["error"]["code"].as_u64().unwrap_or(0)
}

fn hit(edge: &Edge, app: &str, limit: &str) -> f64 {
    edge.metric(&format!(
        "slipstream_limits_hit_total{{app=\"{app}\",limit=\"{limit}\"}}"
    ))
}
