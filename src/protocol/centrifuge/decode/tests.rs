use std::borrow::Cow;

use super::*;
use crate::protocol::{Payload, SubscribeFeature};

fn one(line: &str) -> Result<Command<'_>, NotACommand> {
    let mut commands = decode(line);
    let first = commands.next().unwrap();
    assert_eq!(commands.rest(), None, "{line}");
    first
}

/// Issue 3, "Bad input": there is no id to answer to, so the connection is closed (3501).
#[test]
fn what_is_no_command() {
    for line in [
        "",
        " ",
        "\n",
        "\n{}",
        "x",
        "null",
        "5",
        "\"a\"",
        "[]",
        "[{}]",
        "[1]",
        r#"[1,{"id":1}]"#,
        "{",
        "{}x",
        "{}{}",
        "{},",
        r#"{"id":1"#,
        r#"{"id":1,"connect":{}}}"#,
        r#"{"id":1,"connect":{}}{"id":2,"ping":{}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":{"x":}}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":nul}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":01}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":'a'}}"#,
        "{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":\"\t\"}}",
        // An id that is not a whole number of 32 bits above 0.
        r#"{"id":"1","connect":{}}"#,
        r#"{"id":-1,"connect":{}}"#,
        r#"{"id":1.5,"connect":{}}"#,
        r#"{"id":null,"connect":{}}"#,
        r#"{"id":4294967296,"connect":{}}"#,
        r#"{"id":0,"connect":{}}"#,
        r#"{"connect":{}}"#,
        r#"{"subscribe":{"channel":"a"}}"#,
        r#"{"unheard_of":{}}"#,
        // Which of them would the answer be for?
        r#"{"id":1,"id":1,"connect":{}}"#,
        r#"{"id":1,"id":2,"connect":{"token":5}}"#,
    ] {
        assert_eq!(decode(line).next(), Some(Err(NotACommand)), "{line:?}");
    }
}

/// Issue 3, "Bad input": wrong in itself, but answerable with error 107.
#[test]
fn what_is_a_malformed_request() {
    for line in [
        r#"{"id":7}"#,
        r#"{"id":7,"connect":null}"#,
        r#"{"id":7,"connect":[5]}"#,
        r#"{"id":7,"connect":["token",null]}"#,
        r#"{"id":7,"connect":"x"}"#,
        r#"{"id":7,"connect":{"token":5}}"#,
        r#"{"id":7,"connect":{"token":"a","token":"b"}}"#,
        r#"{"id":7,"connect":{"subs":["a"]}}"#,
        r#"{"id":7,"connect":{"subs":{"a":{"recover":1}}}}"#,
        r#"{"connect":{"subs":{"a":{"recover":true,"offset":9007199254740992}}},"id":7}"#,
        r#"{"id":7,"subscribe":{"channel":5}}"#,
        r#"{"id":7,"subscribe":{"channel":null}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","channel":"b"}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","recover":"true"}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","offset":-1}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","offset":1.0}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","offset":"1"}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","offset":9007199254740992}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","offset":99999999999999999999}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","epoch":5}}"#,
        r#"{"id":7,"subscribe":{"channel":"a","flag":"2"}}"#,
        r#"{"id":7,"publish":["a",1,null,null]}"#,
        r#"{"id":7,"publish":{"channel":"a","data":1,"data":2}}"#,
        r#"{"id":7,"publish":{"channel":"a","data":1,"b64data":"AA=="}}"#,
        r#"{"id":7,"publish":{"channel":"a","b64data":"A"}}"#,
        r#"{"id":7,"publish":{"channel":"a","b64data":"A A="}}"#,
        r#"{"id":7,"publish":{"channel":"a","data":1,"idempotency_key":5}}"#,
        r#"{"id":7,"history":{"channel":"a","limit":2147483648}}"#,
        r#"{"id":7,"history":{"channel":"a","limit":"1"}}"#,
        r#"{"id":7,"history":{"channel":"a","since":5}}"#,
        r#"{"id":7,"history":{"channel":"a","since":[5,"e"]}}"#,
        r#"{"id":7,"history":{"channel":"a","since":{"offset":9007199254740992}}}"#,
        r#"{"id":7,"history":{"channel":"a","since_time":-1}}"#,
        r#"{"id":7,"history":{"channel":"a","until_time":9007199254740992}}"#,
        r#"{"id":7,"refresh":{"token":5}}"#,
        r#"{"id":7,"presence":"a"}"#,
        r#"{"id":7,"ping":5}"#,
        r#"{"id":7,"ping":[]}"#,
        // Two requests in one command, whichever they are.
        r#"{"id":7,"subscribe":{"channel":"a"},"subscribe":{"channel":"a"}}"#,
        r#"{"id":7,"subscribe":{"channel":"a"},"publish":{"channel":"a","data":1}}"#,
    ] {
        assert_eq!(
            one(line),
            Ok(Command {
                id: 7,
                request: Request::Malformed
            }),
            "{line}"
        );
    }
}

/// A request as `Debug` shows it: enough to compare, without payloads and tokens.
#[test]
fn commands_are_read() {
    for (line, id, shown) in [
        ("{}", 0, "Pong"),
        (" {} ", 0, "Pong"),
        (r#"{"id":0}"#, 0, "Pong"),
        (r#"{"id":9,"unheard_of":{"connect":{}}}"#, 9, "Unknown"),
        (r#"{"id":4294967295,"ping":{}}"#, u32::MAX, "Ping"),
        (r#"{"send":{"data":{}}}"#, 0, r#"Send { data: "{}" }"#),
        (r#"{"id":1,"send":{}}"#, 0, r#"Send { data: "null" }"#),
        (
            r#"{"id":1,"connect":{"token":"","name":"js","version":"1","data":{"a":1},"headers":{"a":"b"},"flag":1}}"#,
            1,
            "Connect(Connect { token: Some(Token(..)), recover: [] })",
        ),
        (
            r#"{"id":1,"connect":{"subs":{"a":{"recover":true,"offset":5,"epoch":"x"},"b":{"recover":false}}}}"#,
            1,
            r#"Connect(Connect { token: None, recover: [("a", RecoverFrom { offset: 5, epoch: "x" })] })"#,
        ),
        (
            r#"{"subscribe":{"channel":"a\u0062","flag":1},"id":2}"#,
            2,
            r#"Subscribe(Subscribe { channel: "ab", token: None, recover: None, reject_unrecovered: false, join_leave: false, unsupported: None })"#,
        ),
        (
            r#"{"id":2,"subscribe":{"channel":"a","token":"t","recover":true,"flag":3,"type":0,"tf":null}}"#,
            2,
            r#"Subscribe(Subscribe { channel: "a", token: Some(Token(..)), recover: Some(RecoverFrom { offset: 0, epoch: "" }), reject_unrecovered: true, join_leave: false, unsupported: None })"#,
        ),
        (
            r#"{"id":3,"unsubscribe":{}}"#,
            3,
            r#"Unsubscribe { channel: "" }"#,
        ),
        (
            r#"{"id":4,"publish":{"channel":"a","data": {"b": "c"} ,"idempotency_key":"k"}}"#,
            4,
            r#"Publish { channel: "a", payload: Some(Json(10 bytes)), idempotency_key: Some("k") }"#,
        ),
        (
            r#"{"id":4,"publish":{"channel":"a","data":null}}"#,
            4,
            r#"Publish { channel: "a", payload: Some(Json(4 bytes)), idempotency_key: None }"#,
        ),
        (
            r#"{"id":4,"publish":{"channel":"a","b64data":"AAEC"}}"#,
            4,
            r#"Publish { channel: "a", payload: Some(Bytes(3 bytes)), idempotency_key: None }"#,
        ),
        (
            r#"{"id":4,"publish":{"channel":"a"}}"#,
            4,
            r#"Publish { channel: "a", payload: None, idempotency_key: None }"#,
        ),
        (
            r#"{"id":5,"history":{"channel":"a","limit":-1,"since":{"offset":9007199254740991,"epoch":"e"},"reverse":true,"since_time":1,"until_time":2}}"#,
            5,
            r#"History { channel: "a", query: HistoryQuery { limit: -1, since: Some(9007199254740991), epoch: "e", reverse: true, since_time: Some(1), until_time: Some(2) } }"#,
        ),
        (
            r#"{"id":6,"presence":{"channel":"a"}}"#,
            6,
            r#"Presence { channel: "a" }"#,
        ),
        (
            r#"{"id":6,"presence_stats":{"channel":"a"}}"#,
            6,
            r#"PresenceStats { channel: "a" }"#,
        ),
        (
            r#"{"id":6,"rpc":{"method":"m","data":{}}}"#,
            6,
            r#"Rpc { method: "m", data: "{}" }"#,
        ),
        (r#"{"id":6,"refresh":{}}"#, 6, "Refresh { token: Token(..) }"),
        (
            r#"{"id":6,"sub_refresh":{"channel":"a","token":"t"}}"#,
            6,
            r#"SubRefresh { channel: "a", token: Token(..) }"#,
        ),
    ] {
        let command = one(line).unwrap();
        assert_eq!(
            (command.id, format!("{:?}", command.request)),
            (id, shown.to_owned()),
            "{line}"
        );
    }
}

#[test]
fn features_beyond_this_server_are_told_apart() {
    for (fields, feature) in [
        (r#""tf":{"op":"eq"}"#, Some(SubscribeFeature::TagsFilter)),
        (r#""type":4,"phase":1"#, Some(SubscribeFeature::OtherType)),
        (r#""delta":"fossil","positioned":true,"join_leave":true"#, None),
    ] {
        let line = format!(r#"{{"id":1,"subscribe":{{"channel":"a",{fields}}}}}"#);
        let Ok(Command {
            request: Request::Subscribe(subscribe),
            ..
        }) = one(&line)
        else {
            panic!("{line}")
        };
        assert_eq!(subscribe.unsupported, feature, "{line}");
    }
}

#[test]
fn a_payload_is_one_line_and_copied_only_if_it_was_not() {
    for (data, stored) in [
        (r#"{"a": "b\n"}"#, r#"{"a": "b\n"}"#),
        ("[1,\r2]", "[1,2]"),
        ("\r5\r", "5"),
        (r#""\ud800""#, r#""\ud800""#),
    ] {
        let line = format!(r#"{{"id":1,"publish":{{"channel":"a","data":{data}}}}}"#);
        let Ok(Command {
            request:
                Request::Publish {
                    payload: Some(Payload::Json(text)),
                    ..
                },
            ..
        }) = one(&line)
        else {
            panic!("{line:?}")
        };
        assert_eq!(text, stored);
        let borrowed = matches!(text, Cow::Borrowed(_));
        assert_eq!(borrowed, line.contains(stored), "{line:?}");
    }
}

#[test]
fn a_message_holds_commands_line_by_line() {
    let message = "{\"id\":1,\"ping\":{}}\n{}\n{\"id\":2,\"ping\":{}}\n";
    let ids = decode(message)
        .map(|command| command.unwrap().id)
        .collect::<Vec<_>>();
    assert_eq!(ids, [1, 0, 2]);

    let mut commands = decode(message);
    commands.next();
    assert_eq!(commands.rest(), Some("{}\n{\"id\":2,\"ping\":{}}\n"));

    // What follows an error is not looked at.
    for message in ["{}\n\n{}", "{}\n{}\n\n", "{}\nx\n{}"] {
        let read = decode(message).collect::<Vec<_>>();
        assert_eq!(read.last(), Some(&Err(NotACommand)), "{message:?}");
        assert_eq!(read.iter().filter(|each| each.is_err()).count(), 1, "{message:?}");
    }
}

#[test]
fn a_deep_payload_needs_no_deep_stack() {
    let deep = "[".repeat(60_000);
    assert_eq!(
        decode(&format!(r#"{{"id":1,"publish":{{"data":{deep}"#)).next(),
        Some(Err(NotACommand))
    );
    let closed = format!("{deep}{}", "]".repeat(60_000));
    assert!(one(&format!(r#"{{"id":1,"publish":{{"data":{closed}}}}}"#)).is_ok());
    assert!(one(&format!(r#"{{"id":1,"subscribe":{{"other":{closed}}}}}"#)).is_ok());
}
