//! The application as clients call it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use serde_json::json;
use slipstream::edge::handler::{Caller, Handled, Handler, HandlerError};

use crate::support::{edge::Edge, holds, nats::NatsServer, raw::Raw};

#[derive(Default)]
struct Echo {
    told: AtomicUsize,
}

impl Handler for Echo {
    fn rpc<'a>(
        &'a self,
        caller: Caller,
        method: &'a str,
        data: Bytes,
    ) -> Handled<'a, Result<Bytes, HandlerError>> {
        Box::pin(async move {
            match method {
                "echo" => {
                    let data: serde_json::Value = serde_json::from_slice(&data).unwrap();
                    let answer = json!({ "app": caller.app, "user": caller.user, "data": data });
                    // On lines of its own, as some would write it.
                    Ok(serde_json::to_vec_pretty(&answer).unwrap().into())
                }
                "odd" => Err(HandlerError {
                    code: 109,
                    message: "token expired".to_owned(),
                    temporary: true,
                }),
                "broken" => Ok(Bytes::from_static(b"{")),
                _ => Err(HandlerError {
                    code: 404,
                    message: format!("no \"{method}\""),
                    temporary: false,
                }),
            }
        })
    }

    fn message<'a>(&'a self, _: Caller, data: Bytes) -> Handled<'a, ()> {
        Box::pin(async move {
            assert_eq!(&data[..], b"[1]");
            self.told.fetch_add(1, Ordering::SeqCst);
        })
    }
}

#[tokio::test]
async fn calls_reach_the_application_and_its_answers_the_client() {
    let nats = NatsServer::start().await;
    let echo = Arc::new(Echo::default());
    let edge = Edge::builder().nats(&[nats.url()]).start_with(echo.clone()).await;
    let mut client = Raw::connect(edge.addr, "").await;
    let call = |method: &str| json!({ "rpc": { "method": method, "data": { "a": [1] } } });
    let reply = client.command(call("echo")).await;
    assert_eq!(
        reply["rpc"]["data"],
        json!({ "app": "dev", "user": "", "data": { "a": [1] } })
    );
    let reply = client.command(call("other")).await;
    assert_eq!(reply["error"], json!({ "code": 404, "message": "no \"other\"" }));
    let reply = client.command(call("broken")).await;
    assert_eq!(reply["error"]["code"], 100, "what is no JSON reaches nobody");
    let reply = client.command(call("odd")).await;
    assert_eq!(reply["error"]["code"], 100, "an SDK would fetch another token");
    // Messages have no reply; the next command proves that the connection is there.
    for sent in 1..=3 {
        client.say(json!({ "send": { "data": [1] } })).await;
        holds("told", || echo.told.load(Ordering::SeqCst) == sent).await;
    }
    assert!(client.command(call("echo")).await["error"].is_null());
}

#[tokio::test]
async fn without_an_application_calls_are_refused() {
    let nats = NatsServer::start().await;
    let edge = Edge::start(&[nats.url()]).await;
    let mut client = Raw::connect(edge.addr, "").await;
    let reply = client.command(json!({ "rpc": { "method": "echo" } })).await;
    assert_eq!(reply["error"]["code"], 108);
    client.say(json!({ "send": { "data": {} } })).await;
    assert_eq!(client.closed().await, 3508);
}
