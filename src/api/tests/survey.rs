use serde_json::json;

use super::support::{A, APPS, B, Node};

#[tokio::test]
async fn lists_are_empty_where_nobody_is_and_have_bounds() {
    let node = Node::start().await;
    let nothing = json!({"channels": [], "missing_nodes": []});
    let long = format!("/v1/channels?prefix={}", "a".repeat(256));
    for (path, status) in [
        ("/v1/channels", 200),
        ("/v1/channels?prefix=chat%3A&limit=1000&cursor=chat%3Ax", 200),
        ("/v1/channels?limit=0", 422),
        ("/v1/channels?limit=1001", 422),
        (&long, 422),
        ("/v1/channels?pattern=x", 400),
        ("/v1/nodes?limit=1", 400),
    ] {
        let reply = node.call("GET", path, A, "").await;
        assert_eq!(reply.status, status, "{path}");
        if status == 200 {
            assert_eq!(reply.json(), nothing, "{path}");
        }
    }
    let nodes = node.call("GET", "/v1/nodes", A, "").await.json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(nodes["nodes"][0]["name"], "node-1");
    assert_eq!(nodes["nodes"][0]["connections"], 0);
}

#[tokio::test]
async fn an_app_has_its_share_of_questions() {
    let keys = "[http]\nmax_surveys = 3\nmax_surveys_per_app = 2\n";
    let node = Node::with(&APPS.replace("[http]", keys)).await;
    let [a, b] = ["a", "b"].map(|id| node.apps.get(id).unwrap().id.clone());
    let one = node.survey.turn(&a).unwrap();
    let _two = node.survey.turn(&a).unwrap();
    for (method, path) in [("GET", "/v1/channels"), ("GET", "/v1/nodes")] {
        let refused = node.call(method, path, A, "").await;
        assert_eq!(refused.error(), (429, "too_many_requests".to_owned()));
        assert_eq!(node.call(method, path, B, "").await.status, 200);
    }
    let refused = node.call("POST", "/api/channels", A, "{}").await;
    assert_eq!(refused.json()["error"]["code"], 111);
    let _three = node.survey.turn(&b).unwrap();
    assert_eq!(node.call("GET", "/v1/nodes", B, "").await.status, 429);
    drop(one);
    assert_eq!(node.call("GET", "/v1/nodes", A, "").await.status, 200);
}
