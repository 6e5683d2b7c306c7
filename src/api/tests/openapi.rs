use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::Value;

use super::support::{Node, request};
use crate::{
    api::{control, document, error::ApiError, input::MAX_ITEMS, operation_routes, routes},
    model::MAX_IDEMPOTENCY_KEY_BYTES,
    publish::{MAX_TAG_NAME_BYTES, MAX_TAG_VALUE_BYTES, MAX_TAGS},
};

#[tokio::test]
async fn the_document_is_served() {
    let node = Node::start().await;
    let served = node.call("GET", "/v1/openapi.json", "", "").await;
    let served = served.ok(200);
    assert!(served.text("openapi").starts_with("3.1"));
    assert_eq!(served.0, serde_json::from_str::<Value>(&document()).unwrap());
}

#[tokio::test]
async fn every_route_and_method_is_in_the_document() {
    let node = Node::start().await;
    let document: Value = serde_json::from_str(&document()).unwrap();
    let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let all = routes().into_iter().chain(operation_routes());
    let mut routed: BTreeSet<_> = all.map(|(path, _)| path.to_owned()).collect();
    routed.insert("/v1/openapi.json".to_owned());
    let people: BTreeSet<_> = control::paths().into_iter().map(str::to_owned).collect();
    assert!(routed.is_disjoint(&people));
    assert_eq!(&routed | &people, documented);
    for path in &routed {
        let real = path
            .replace("{channel}", "chat:x")
            .replace("{method}", "rpc")
            .replace("{user}", "ann")
            .replace("{id}", "before");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            // The call itself checks the status against the document.
            let reply = node.call(method, &real, "", "").await;
            let known = node
                .documented(&Method::try_from(method).unwrap(), &real)
                .is_some();
            assert_eq!(reply.status != 405, known, "{method} {path}");
        }
    }
}

/// A node whose store has never answered: what is there tells so, the rest is not there.
#[tokio::test]
async fn every_route_and_method_of_people_is_in_the_document() {
    let node = Node::with_people(control::tests::closed()).await;
    for path in control::paths() {
        let real = path.replace("{version}", "1").replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let headers = [("authorization", "Bearer x")];
            let reply = node
                .send(request(method, &real, "", &headers, "{}".to_owned()))
                .await;
            let known = node.documented(&Method::try_from(method).unwrap(), &real);
            match known {
                None => assert_eq!(reply.status, 405, "{method} {path}"),
                // What cannot be read is told before that nobody is there to read it.
                Some(_) => assert!(
                    matches!(reply.status, 503 | 422),
                    "{method} {path}: {}",
                    reply.status
                ),
            }
        }
    }
}

#[test]
fn operations_have_names_and_references_lead_somewhere() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let mut names = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(operation["summary"].is_string(), "{method} {path}");
            let secured = operation["security"].is_array();
            let open = operation["tags"][0] == "sign-in" && !path.contains("logout")
                || path.starts_with("/v1/openapi")
                || !(path.starts_with("/v1") || path.starts_with("/api"));
            assert_eq!(secured, !open, "{method} {path}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

/// Every error that REST has is documented where it can happen.
#[test]
fn statuses_of_errors_are_documented() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let operations = document["paths"]["/v1/channels/{channel}/publications"]
        .as_object()
        .unwrap();
    for error in ApiError::examples() {
        let status = error.status().as_str().to_owned();
        let somewhere = operations
            .values()
            .any(|it| it["responses"].get(&status).is_some());
        assert!(somewhere || status == "405", "{error}");
    }
}

/// docs/api.md names every code, and every limit that is a number in the code.
#[test]
fn the_page_names_every_error_and_limit() {
    let page = include_str!("../../../docs/api.md");
    for error in ApiError::examples() {
        let row = format!("| {} | `{}` |", error.status().as_u16(), error.code());
        assert!(page.contains(&row), "{row}");
    }
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for limit in [
        format!("At most {} publications", thousands(MAX_ITEMS)),
        format!("at most {MAX_TAGS} texts"),
        format!("1 to {MAX_TAG_NAME_BYTES} bytes"),
        format!("up to {MAX_TAG_VALUE_BYTES}"),
        format!("1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes"),
    ] {
        assert!(page.contains(&limit), "{limit}");
    }
}
