use axum::http::Request;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A good request with some headers replaced: `(name, None)` removes, several values repeat.
fn request(changes: &[(&str, &[&str])]) -> Parts {
    let mut headers: Vec<(&str, Vec<&str>)> = vec![
        ("host", vec!["edge.example.com"]),
        ("upgrade", vec!["websocket"]),
        ("connection", vec!["Upgrade"]),
        ("sec-websocket-version", vec!["13"]),
        ("sec-websocket-key", vec![KEY]),
    ];
    for (name, values) in changes {
        headers.retain(|(have, _)| have != name);
        headers.push((name, values.to_vec()));
    }
    let mut builder = Request::get("/connection/websocket");
    for (name, values) in headers {
        for value in values {
            builder = builder.header(name, value);
        }
    }
    builder.body(()).unwrap().into_parts().0
}

#[test]
fn rfc_6455_example_key_is_accepted() {
    let headers = Handshake::check(&request(&[]), &[]).unwrap().response_headers();
    assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(headers[UPGRADE], "websocket");
    assert_eq!(headers[CONNECTION], "upgrade");
    assert_eq!(headers.len(), 3);
}

#[test]
fn each_header_is_held_to_its_rule() {
    use HandshakeError::*;
    let cases: [(&str, &[&str], Result<(), HandshakeError>); 34] = [
        ("upgrade", &["WebSocket"], Ok(())),
        ("upgrade", &["h2c, websocket"], Ok(())),
        ("upgrade", &["h2c", "websocket"], Ok(())),
        ("upgrade", &["h2c"], Err(NotAnUpgrade)),
        ("upgrade", &["websockets"], Err(NotAnUpgrade)),
        ("upgrade", &[], Err(NotAnUpgrade)),
        ("connection", &["keep-alive, Upgrade"], Ok(())),
        ("connection", &["keep-alive", "upgrade"], Ok(())),
        ("connection", &["keep-alive"], Err(NotAnUpgrade)),
        ("connection", &[], Err(NotAnUpgrade)),
        ("sec-websocket-version", &[], Err(WebSocketVersion)),
        ("sec-websocket-version", &["8"], Err(WebSocketVersion)),
        ("sec-websocket-version", &["13, 8"], Err(WebSocketVersion)),
        ("sec-websocket-version", &["13", "8"], Err(WebSocketVersion)),
        ("sec-websocket-key", &["AQIDBAUGBwgJCgsMDQ4PEC=="], Ok(())),
        ("sec-websocket-key", &[], Err(Key)),
        ("sec-websocket-key", &[""], Err(Key)),
        ("sec-websocket-key", &[KEY, KEY], Err(Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], Err(Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25j"], Err(Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZSEh"], Err(Key)),
        ("sec-websocket-key", &["!GhlIHNhbXBsZSBub25jZQ=="], Err(Key)),
        ("sec-websocket-protocol", &["chat"], Ok(())),
        ("sec-websocket-protocol", &["centrifuge-protobuf"], Err(Protobuf)),
        (
            "sec-websocket-protocol",
            &["chat, centrifuge-protobuf"],
            Err(Protobuf),
        ),
        (
            "sec-websocket-protocol",
            &["centrifuge-protobuf, centrifuge-json"],
            Ok(()),
        ),
        (
            "sec-websocket-extensions",
            &["permessage-deflate; client_max_window_bits"],
            Ok(()),
        ),
        ("origin", &["https://app.example.com"], Ok(())),
        ("origin", &["https://a.wild.example"], Ok(())),
        ("origin", &["https://wild.example"], Err(Origin)),
        ("origin", &["https://evil.example"], Err(Origin)),
        ("origin", &["null"], Err(Origin)),
        (
            "origin",
            &["https://app.example.com", "https://app.example.com"],
            Err(Origin),
        ),
        ("origin", &[], Ok(())),
    ];
    let allowed = ["https://app.example.com".to_owned(), "*.wild.example".to_owned()];
    for (name, values, expected) in cases {
        let outcome = Handshake::check(&request(&[(name, values)]), &allowed);
        assert_eq!(
            outcome.as_ref().map(|_| ()).map_err(|error| *error),
            expected,
            "{name}: {values:?}"
        );
        if let Ok(handshake) = outcome {
            assert!(
                !handshake
                    .response_headers()
                    .contains_key("sec-websocket-extensions")
            );
        }
    }
}

#[test]
fn an_empty_origin_list_allows_every_origin() {
    let request = request(&[("origin", &["https://anything.example"])]);
    assert!(Handshake::check(&request, &[]).is_ok());
}

#[test]
fn method_and_version_of_http() {
    let mut post = request(&[]);
    post.method = Method::POST;
    assert_eq!(Handshake::check(&post, &[]), Err(HandshakeError::Method));
    let mut old = request(&[]);
    old.version = Version::HTTP_10;
    assert_eq!(Handshake::check(&old, &[]), Err(HandshakeError::HttpVersion));
}

#[test]
fn protobuf_in_the_query_is_refused_unless_json_is_offered() {
    for query in ["format=protobuf", "app=a&cf_protocol=protobuf"] {
        let mut by_query = request(&[]);
        by_query.uri = format!("/connection/websocket?{query}").parse().unwrap();
        assert_eq!(
            Handshake::check(&by_query, &[]),
            Err(HandshakeError::Protobuf),
            "{query}"
        );
    }
}

#[test]
fn only_the_json_sub_protocol_is_echoed() {
    let cases: [(&[&str], Option<&str>); 5] = [
        (&[], None),
        (&["chat"], None),
        (&["centrifuge-json"], Some("centrifuge-json")),
        (&["chat, centrifuge-json"], Some("centrifuge-json")),
        (
            &["centrifuge-protobuf", "centrifuge-json"],
            Some("centrifuge-json"),
        ),
    ];
    for (offered, chosen) in cases {
        let handshake = Handshake::check(&request(&[("sec-websocket-protocol", offered)]), &[]).unwrap();
        let headers = handshake.response_headers();
        let echoed = headers
            .get(SEC_WEBSOCKET_PROTOCOL)
            .map(|value| value.to_str().unwrap());
        assert_eq!(echoed, chosen, "{offered:?}");
    }
}

#[test]
fn errors_carry_their_status_and_headers() {
    use HandshakeError::*;
    let cases = [
        (Method, 405),
        (HttpVersion, 400),
        (NotAnUpgrade, 426),
        (WebSocketVersion, 426),
        (Key, 400),
        (Origin, 403),
        (Protobuf, 400),
        (NotUpgradable, 400),
    ];
    for (error, status) in cases {
        assert_eq!(error.status(), status, "{error}");
        let has = |name: HeaderName| error.headers().iter().any(|(have, _)| *have == name);
        assert_eq!(has(SEC_WEBSOCKET_VERSION), status == 426);
        assert_eq!(has(UPGRADE), status == 426);
        assert_eq!(has(ALLOW), status == 405);
    }
}
