//! Against a server that answers as told and keeps what it was asked: usage, pages, and what is no answer.

use std::sync::Arc;

use parking_lot::Mutex;
use slipstream::task::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::Person;

const USAGE: &str = r#"{"items": [{"start_ms": 0, "peak_connections": 12, "namespace": "chat", "counts": {"publications": 5}},
        {"start_ms": 3600000, "peak_connections": 7, "namespace": "", "counts": {}}]}"#;

/// Answers one request after another, and keeps their first lines.
async fn server(
    kind: &'static str,
    bodies: &'static [&'static str],
) -> (Person, Arc<Mutex<Vec<String>>>, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (asked, tasks) = (Arc::<Mutex<Vec<String>>>::default(), Tasks::default());
    let person = Person {
        token: Some("x".to_owned()),
        ..Person::at(listener.local_addr().unwrap())
    };
    let (kept, mut bodies) = (asked.clone(), bodies.iter().cycle());
    tasks.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            kept.lock().push(request.lines().next().unwrap().to_owned());
            let body = bodies.next().unwrap();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (person, asked, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_a_table_of_whatever_comes() {
    let (person, asked, tasks) = server("application/json", &[USAGE]).await;
    let args = [
        "usage",
        "shop",
        "--from",
        "2026-11-28T00:00:00Z",
        "--to",
        "2026-11-29",
        "--step",
        "hour",
    ];
    assert_eq!(
        person.tells(&[&args[..], &["--group", "namespace"]].concat()),
        "start             namespace  peak_connections  publications\n\
         1970-01-01 00:00  chat                     12             5\n\
         1970-01-01 01:00  -                         7             0\n"
    );
    assert_eq!(
        asked.lock()[..],
        ["GET /v1/apps/shop/usage?from=1795824000000&to=1795910400000&step=hour&group=namespace HTTP/1.1"]
    );
    assert_eq!(person.json(&args)["items"][1]["peak_connections"], 7);
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_as_csv_is_printed_as_it_comes() {
    let (person, asked, tasks) = server("text/csv; charset=utf-8", &["at,messages\n0,5\n"]).await;
    assert_eq!(person.tells(&["usage", "shop", "--csv"]), "at,messages\n0,5\n");
    let asked = asked.lock().join("\n");
    assert!(asked.contains("format=csv") && asked.contains("&to="), "{asked}");
    tasks.stop();
}

/// A page that is no answer of this API is not taken for one.
#[tokio::test(flavor = "multi_thread")]
async fn another_web_server() {
    let (person, _, tasks) = server("text/html", &["<p>welcome</p>"]).await;
    let (code, said) = person.fails(&["team", "list"]);
    assert!(
        code == 1 && said.contains("does not answer as the control API does"),
        "{said}"
    );
    tasks.stop();
}

/// All pages of a list are one; a server that goes on without end is not followed.
#[tokio::test(flavor = "multi_thread")]
async fn pages_become_one_list() {
    const PAGES: &[&str] = &[
        r#"{"items": [{"id": "a"}], "next": "c&1"}"#,
        r#"{"items": [{"id": "b"}], "next": "c&2"}"#,
        r#"{"items": [{"id": "c"}]}"#,
    ];
    let (person, asked, tasks) = server("application/json", PAGES).await;
    let teams = person.json(&["team", "list"]);
    assert_eq!(
        teams,
        serde_json::json!({"items": [{"id": "a"}, {"id": "b"}, {"id": "c"}]})
    );
    assert_eq!(
        asked.lock()[..],
        [
            "GET /v1/teams HTTP/1.1",
            "GET /v1/teams?cursor=c%261 HTTP/1.1",
            "GET /v1/teams?cursor=c%262 HTTP/1.1"
        ]
    );
    asked.lock().clear();
    // Not more than asked for.
    let log = person.json(&["account", "audit", "--limit", "2"]);
    assert_eq!(log["items"].as_array().unwrap().len(), 2);
    assert_eq!(asked.lock().len(), 2);
    tasks.stop();
    let (person, asked, tasks) = server("application/json", &PAGES[..1]).await;
    person.tells(&["team", "list"]);
    assert_eq!(asked.lock().len(), 2);
    tasks.stop();
}
