//! What must hold of the decoder of the client protocol for any message: shared by the fuzz target
//! and by the test that replays its corpus.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use slipstream::{
    model::MAX_OFFSET,
    protocol::{
        Command, Payload, Request,
        centrifuge::{NotACommand, decode},
        json,
    },
};

type Outcome<'a> = Result<Command<'a>, NotACommand>;

/// `data` is a text message, of several commands perhaps. The decoder must not panic, must read the
/// lines of a message as if each had come alone, and must answer to the id that an independent
/// reading finds, or to none.
pub(crate) fn check(data: &[u8]) {
    let Ok(message) = std::str::from_utf8(data) else {
        // The frame's own decoder lets nothing else through.
        return;
    };
    let read: Vec<Outcome<'_>> = decode(message).collect();
    for (line, outcome) in message.split('\n').zip(&read) {
        let alone: Vec<_> = decode(line).collect();
        assert_eq!(alone.as_slice(), std::slice::from_ref(outcome), "{line:?}");
        check_line(line, outcome);
    }
    check_end(message, &read);
    check_rest(message, &read);
}

/// Every line is read, up to the first that is no command.
fn check_end(message: &str, read: &[Outcome<'_>]) {
    let lines = message.strip_suffix('\n').unwrap_or(message).split('\n').count();
    let failed = read.iter().position(Result::is_err);
    assert_eq!(read.len(), failed.map_or(lines, |at| at + 1), "{message:?}");
}

/// What is put aside and read later is read the same.
fn check_rest(message: &str, read: &[Outcome<'_>]) {
    let mut later = Vec::new();
    let mut rest = Some(message);
    while let Some(message) = rest {
        let mut commands = decode(message);
        later.extend(commands.next());
        rest = commands.rest();
    }
    assert_eq!(later, read, "{message:?}");
}

fn check_line(line: &str, outcome: &Outcome<'_>) {
    // `send` needs no id, and has no reply.
    let silent = |request: &Request<'_>| matches!(request, Request::Send { .. });
    match (id_of(line), outcome) {
        (Some(id), Ok(command)) => {
            assert!(command.id == id || silent(&command.request), "{line:?}");
            check_request(&command.request);
        }
        (Some(_), Err(NotACommand)) => panic!("it has an id to answer to: {line:?}"),
        (None, Ok(Command { id, request })) => {
            assert!(
                *id == 0 && (silent(request) || *request == Request::Pong),
                "{line:?}"
            );
        }
        (None, Err(NotACommand)) => {}
    }
}

fn check_request(request: &Request<'_>) {
    match request {
        Request::Publish {
            payload: Some(Payload::Json(text)),
            ..
        } => {
            assert!(json::is_one_line(text.as_bytes()), "{text:?}");
            assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text:?}");
        }
        Request::Subscribe(subscribe) => {
            assert!(subscribe.recover.iter().all(|from| from.offset <= MAX_OFFSET));
        }
        Request::Connect(connect) => {
            assert!(connect.recover.iter().all(|(_, from)| from.offset <= MAX_OFFSET));
        }
        Request::History { query, .. } => {
            assert!(query.since.is_none_or(|offset| offset <= MAX_OFFSET));
        }
        _ => {}
    }
}

/// The id that `line` can be answered under: it is one JSON object with one `id`, a whole number of 32
/// bits above 0.
fn id_of(line: &str) -> Option<u32> {
    let Fields(fields) = serde_json::from_str(line).ok()?;
    let mut ids = fields.iter().filter(|(name, _)| name == "id");
    match (ids.next(), ids.next()) {
        (Some((_, id)), None) => id.get().parse().ok().filter(|id| *id > 0),
        _ => None,
    }
}

/// The fields of an object, repeated ones too.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}
