use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn expected() -> Expected {
    Expected::default()
}

fn connect_to(claims: &Value, expected: &Expected) -> Result<ConnectClaims, TokenError> {
    connect(claims.to_string().as_bytes(), expected, NOW)
}

fn subscribe_to(claims: &Value) -> Result<SubscribeClaims, TokenError> {
    subscribe(claims.to_string().as_bytes(), &expected(), NOW)
}

fn bytes(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

#[test]
fn when_a_token_is_valid_and_what_it_permits_ends() {
    use TokenError::{Expired, Invalid};
    const FORM: TokenError = Invalid("claims of an unexpected form");
    let leeway = |leeway| Expected { leeway, ..expected() };
    for (claims, leeway, end) in [
        (json!({}), leeway(0), Ok(None)),
        (json!({"exp": NOW + 1}), leeway(0), Ok(Some(NOW + 1))),
        // RFC 7519, section 4.1.4: not "on or after" it.
        (json!({"exp": NOW}), leeway(0), Err(Expired)),
        (json!({"exp": NOW - 30}), leeway(0), Err(Expired)),
        (json!({"exp": NOW - 30}), leeway(60), Ok(Some(NOW + 30))),
        (json!({"exp": NOW as f64 + 1.5}), leeway(0), Ok(Some(NOW + 1))),
        (json!({"exp": -1}), leeway(0), Err(Expired)),
        (json!({"exp": 0}), leeway(0), Err(Expired)),
        (json!({"exp": 1e300}), leeway(60), Ok(Some(i64::MAX))),
        (json!({"exp": u64::MAX}), leeway(0), Ok(Some(i64::MAX))),
        (json!({"exp": "never"}), leeway(0), Err(FORM)),
        (json!({"exp": null}), leeway(0), Ok(None)),
        (json!({"nbf": NOW}), leeway(0), Ok(None)),
        (json!({"nbf": NOW + 5}), leeway(0), Err(Expired)),
        (json!({"nbf": NOW + 5}), leeway(5), Ok(None)),
        (json!({"exp": NOW + 5, "expire_at": 0}), leeway(0), Ok(None)),
        (json!({"exp": NOW - 5, "expire_at": 0}), leeway(0), Err(Expired)),
        (
            json!({"exp": NOW + 5, "expire_at": NOW + 90}),
            leeway(0),
            Ok(Some(NOW + 90)),
        ),
        (json!({"expire_at": NOW - 1}), leeway(0), Err(Expired)),
        (json!({"sub": 42}), leeway(0), Err(FORM)),
        (json!([]), leeway(0), Err(FORM)),
        (json!("x"), leeway(0), Err(FORM)),
    ] {
        assert_eq!(
            connect_to(&claims, &leeway).map(|claims| claims.expires_at),
            end,
            "{claims}"
        );
    }
    assert_eq!(connect(b"{", &expected(), NOW), Err(FORM));
    assert_eq!(
        connect(b"{\"sub\":\"a\",\"sub\":\"b\"}", &expected(), NOW),
        Err(FORM)
    );
    assert_eq!(connect(b"\xff", &expected(), NOW), Err(FORM));
}

#[test]
fn for_whom_and_by_whom() {
    let expected = Expected {
        audience: Some("edge".to_owned()),
        issuer: Some("shop".to_owned()),
        ..expected()
    };
    for (claims, fits) in [
        (json!({"aud": "edge", "iss": "shop"}), true),
        (json!({"aud": ["x", "edge"], "iss": "shop"}), true),
        (json!({"aud": "edges", "iss": "shop"}), false),
        (json!({"aud": [], "iss": "shop"}), false),
        (json!({"iss": "shop"}), false),
        (json!({"aud": "edge", "iss": "Shop"}), false),
        (json!({"aud": "edge"}), false),
        (json!({"aud": {"edge": 1}, "iss": "shop"}), false),
    ] {
        assert_eq!(connect_to(&claims, &expected).is_ok(), fits, "{claims}");
    }
    // Not asked for, not checked.
    assert!(connect_to(&json!({"aud": "any", "iss": "any"}), &Expected::default()).is_ok());
}

#[test]
fn what_a_connection_token_says() {
    let claims = json!({
        "sub": "ann", "iat": 1, "jti": "x", "meta": {"a": 1}, "info": {"name": "A"},
        "channels": ["ignored"],
        "subs": {
            "news": {"info": 1, "data": [2], "override": {"presence": {"value": true}}},
            "plain": {},
            "nothing": null,
            "b64": {"b64info": "eyJhIjoxfQ==", "info": 7, "b64data": "WzFd"},
        },
    });
    let sub = |info, data| SubOptions { info, data };
    let got = connect_to(&claims, &expected()).unwrap();
    assert_eq!((got.user.as_str(), got.info), ("ann", bytes(r#"{"name":"A"}"#)));
    let mut subs = got.subs;
    subs.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        subs,
        [
            ("b64".to_owned(), sub(bytes(r#"{"a":1}"#), bytes("[1]"))),
            ("news".to_owned(), sub(bytes("1"), bytes("[2]"))),
            ("nothing".to_owned(), sub(None, None)),
            ("plain".to_owned(), sub(None, None)),
        ]
    );
    let channels = connect_to(&json!({"channels": ["b", "a"], "subs": {}}), &expected()).unwrap();
    let names: Vec<&str> = channels.subs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((channels.user.as_str(), names), ("", vec!["b", "a"]));
}

#[test]
fn a_subscription_token_opens_no_connection() {
    for channel in [json!("news"), json!("")] {
        let refused = connect_to(&json!({"sub": "ann", "channel": channel}), &expected());
        assert!(matches!(refused, Err(TokenError::Invalid(_))), "{refused:?}");
    }
    assert!(connect_to(&json!({"channel": null}), &expected()).is_ok());
}

#[test]
fn what_a_token_can_be_revoked_by() {
    for (claims, id, issued_at) in [
        (json!({}), None, None),
        (json!({"jti": "t1", "iat": 5}), Some(token_id("t1")), Some(5)),
        (json!({"iat": 5.9}), None, Some(5)),
        (json!({"jti": ""}), Some(token_id("")), None),
    ] {
        let facts = connect_to(&claims, &expected()).map(|claims| claims.facts);
        assert_eq!(
            facts,
            Ok(TokenFacts {
                id,
                issued_at,
                key: None
            }),
            "{claims}"
        );
    }
    for claims in [json!({"jti": 5}), json!({"iat": "now"})] {
        assert!(connect_to(&claims, &expected()).is_err(), "{claims}");
    }
}

#[test]
fn what_a_subscription_token_says() {
    let claims = json!({
        "sub": "ann", "channel": "news", "client": "c1", "info": {"a": 1}, "data": 5, "exp": NOW + 9,
    });
    assert_eq!(
        subscribe_to(&claims),
        Ok(SubscribeClaims {
            user: "ann".to_owned(),
            channel: "news".to_owned(),
            client: Some("c1".to_owned()),
            expires_at: Some(NOW + 9),
            info: bytes(r#"{"a":1}"#),
            data: bytes("5"),
            facts: TokenFacts::default(),
        })
    );
    assert_eq!(
        subscribe_to(&json!({"channel": "x", "exp": NOW - 1})),
        Err(TokenError::Expired)
    );
    assert!(matches!(
        subscribe_to(&json!({"sub": "ann"})),
        Err(TokenError::Invalid(_))
    ));
}

#[test]
fn embedded_json_is_json_on_one_line() {
    let payload = "{\"info\": {\r\n \"a\":\n \"x\\ny\" }}";
    let info = connect(payload.as_bytes(), &expected(), NOW)
        .unwrap()
        .info
        .unwrap();
    assert!(!info.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    assert_eq!(
        serde_json::from_slice::<Value>(&info).unwrap(),
        json!({"a": "x\ny"})
    );
    // "a\nb" pretty printed, base64; then no JSON, and no base64.
    let encoded = BASE64.encode("{\n\"a\": 1\n}");
    let info = connect_to(&json!({"b64info": encoded}), &expected())
        .unwrap()
        .info;
    assert_eq!(info, bytes("{ \"a\": 1 }"));
    for bad in [BASE64.encode("{"), BASE64.encode("1 2"), "*".to_owned()] {
        let refused = connect_to(&json!({"b64info": bad}), &expected());
        assert!(matches!(refused, Err(TokenError::Invalid(_))), "{bad}");
    }
    assert_eq!(
        connect_to(&json!({"info": null, "b64info": ""}), &expected())
            .unwrap()
            .info,
        None
    );
}

#[test]
fn a_token_is_for_the_app_it_names_or_for_any() {
    let expected = Expected {
        app: Some(AppId::new("a").unwrap()),
        ..expected()
    };
    for (claims, named, fits) in [
        (json!({}), None, true),
        (json!({"app": null}), None, true),
        (json!({"app": "a"}), Some("a"), true),
        (json!({"app": "b"}), Some("b"), false),
        (json!({"app": "A"}), Some("A"), false),
        (json!({"app": ""}), Some(""), false),
        (json!({"app": ["a"]}), None, false),
    ] {
        assert_eq!(app(claims.to_string().as_bytes()).as_deref(), named, "{claims}");
        assert_eq!(connect_to(&claims, &expected).is_ok(), fits, "{claims}");
    }
    // What is read without verification is not taken for something else with it.
    let twice = b"{\"app\":\"b\",\"app\":\"a\"}";
    assert_eq!(app(twice), None);
    assert!(connect(twice, &expected, NOW).is_err());
}
