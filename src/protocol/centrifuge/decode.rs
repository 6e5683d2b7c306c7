//! Frames to commands.
//!
//! What is wrong with a line decides its fate: if the line is one JSON object with a valid `id`,
//! whatever else is wrong is answered under that id ([`Request::Malformed`], error 107); if not,
//! there is nothing to answer to, and the connection is closed ([`NotACommand`], 3501).

#[cfg(test)]
mod tests;
mod wire;

use std::{fmt, iter::FusedIterator};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use self::wire::{
    WireChannel, WireConnect, WireEmpty, WireHistory, WirePublish, WireRefresh, WireRpc, WireSend,
    WireSubRefresh, WireSubscribe, object, raw, token_or_empty,
};
use crate::protocol::{Command, Request, json::Object};

/// Reads the commands of one text message.
pub fn decode(message: &str) -> Commands<'_> {
    Commands { rest: Some(message) }
}

/// The commands of one text message, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    rest: Option<&'a str>,
}

/// A line is no command, and nothing in it can be answered: the connection is closed with 3501.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent what is not a command")]
pub struct NotACommand;

impl<'a> Commands<'a> {
    /// What has not been read yet, if anything: a message of its own for a later [`decode`].
    pub fn rest(&self) -> Option<&'a str> {
        self.rest
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, NotACommand>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let line = match rest.split_once('\n') {
            Some((line, after)) => {
                // One newline may end the message; an empty line is an error like any other.
                self.rest = (!after.is_empty()).then_some(after);
                line
            }
            None => {
                self.rest = None;
                rest
            }
        };
        let command = decode_line(line);
        if command.is_err() {
            self.rest = None;
        }
        Some(command)
    }
}

impl FusedIterator for Commands<'_> {}

fn decode_line(line: &str) -> Result<Command<'_>, NotACommand> {
    match serde_json::from_str::<Line<'_>>(line) {
        Ok(line) => line.into_command(),
        // Only what is wrong is read twice: is there an id to answer to?
        Err(_) => match serde_json::from_str(line) {
            Ok(Object(Envelope { id })) if id > 0 => Ok(Command {
                id,
                request: Request::Malformed,
            }),
            _ => Err(NotACommand),
        },
    }
}

/// The least that can be answered. Fails on a second `id`, as derived structs do.
#[derive(Deserialize)]
struct Envelope {
    id: u32,
}

/// One line, its types checked.
#[derive(Default)]
struct Line<'a> {
    id: u32,
    request: Option<Request<'a>>,
    /// There was a key that this server does not know.
    unknown: bool,
}

impl<'a> Line<'a> {
    fn into_command(self) -> Result<Command<'a>, NotACommand> {
        let request = match (self.request, self.id) {
            (Some(request @ Request::Send { .. }), _) => {
                return Ok(Command { id: 0, request });
            }
            (Some(_), 0) => return Err(NotACommand),
            (Some(request), _) => request,
            (None, 0) if self.unknown => return Err(NotACommand),
            (None, 0) => Request::Pong,
            (None, _) if self.unknown => Request::Unknown,
            (None, _) => Request::Malformed,
        };
        Ok(Command { id: self.id, request })
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    History,
    Presence,
    PresenceStats,
    Rpc,
    Send,
    Refresh,
    SubRefresh,
    Ping,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
        let mut line = Line::default();
        let mut has_id = false;
        while let Some(key) = map.next_key()? {
            let request = match key {
                Key::Id => {
                    line.id = map.next_value()?;
                    if std::mem::replace(&mut has_id, true) {
                        return Err(A::Error::duplicate_field("id"));
                    }
                    continue;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    line.unknown = true;
                    continue;
                }
                Key::Connect => object::<_, WireConnect<'de>>(&mut map)?.map(Request::from),
                Key::Subscribe => object::<_, WireSubscribe<'de>>(&mut map)?.map(Request::from),
                Key::Unsubscribe => map
                    .next_value::<Option<WireChannel<'de>>>()?
                    .map(|WireChannel { channel }| Request::Unsubscribe { channel }),
                Key::Publish => match object::<_, WirePublish<'de>>(&mut map)? {
                    Some(publish) => Some(publish.into_request().map_err(A::Error::custom)?),
                    None => None,
                },
                Key::History => object::<_, WireHistory<'de>>(&mut map)?.map(Request::from),
                Key::Presence => map
                    .next_value::<Option<WireChannel<'de>>>()?
                    .map(|WireChannel { channel }| Request::Presence { channel }),
                Key::PresenceStats => map
                    .next_value::<Option<WireChannel<'de>>>()?
                    .map(|WireChannel { channel }| Request::PresenceStats { channel }),
                Key::Rpc => map
                    .next_value::<Option<WireRpc<'de>>>()?
                    .map(|WireRpc { method, data }| Request::Rpc {
                        method,
                        data: raw(data),
                    }),
                Key::Send => object::<_, WireSend<'de>>(&mut map)?
                    .map(|WireSend { data }| Request::Send { data: raw(data) }),
                Key::Refresh => map
                    .next_value::<Option<WireRefresh<'de>>>()?
                    .map(|WireRefresh { token }| Request::Refresh {
                        token: token_or_empty(token),
                    }),
                Key::SubRefresh => {
                    object::<_, WireSubRefresh<'de>>(&mut map)?.map(|WireSubRefresh { channel, token }| {
                        Request::SubRefresh {
                            channel,
                            token: token_or_empty(token),
                        }
                    })
                }
                Key::Ping => object::<_, WireEmpty>(&mut map)?.map(|_| Request::Ping),
            };
            if request.is_some() && std::mem::replace(&mut line.request, request).is_some() {
                return Err(A::Error::custom("two requests in one command"));
            }
        }
        Ok(line)
    }
}
