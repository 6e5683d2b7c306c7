//! NATS's client protocol, as far as a link speaks it: what the server says, one operation at a
//! time, and what is said to it. Pure.
//!
//! A line ends with CR LF; `MSG` and `HMSG` are followed by as many bytes as they say, and CR LF
//! again.

use std::io::Write;

use async_nats::HeaderMap;
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// What a header block begins with.
const HEADER_LINE: &[u8] = b"NATS/1.0\r\n";
/// No line of a server is longer: INFO names every server of a cluster.
const MAX_LINE: usize = 256 * 1024;
/// No message is larger: the most that `max_payload` of a server can be.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The server said what this protocol does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the NATS server's {0} cannot be understood")]
pub(super) struct WireError(&'static str);

impl WireError {
    /// It does not begin with INFO.
    pub(super) const GREETING: Self = Self("greeting");
}

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// About itself and its cluster.
    Info(Box<ServerInfo>),
    /// A message.
    Message {
        /// The subscription it is for.
        sid: u64,
        /// The last token of its subject as a number: which request it answers.
        number: Option<u64>,
        /// The message.
        raw: Raw,
    },
    Ping,
    Pong,
    /// An acknowledgement; nobody asks for them.
    Ok,
    /// What it does not like. Often the connection ends behind it.
    Error(String),
}

/// A message, as it came: a slice of what was read from the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Raw {
    bytes: Bytes,
    /// How many of them are headers.
    headers: u32,
}

/// INFO, as far as it matters.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct ServerInfo {
    pub(super) tls_required: bool,
    /// To be signed by who comes with credentials.
    pub(super) nonce: String,
    /// The other servers of its cluster.
    pub(super) connect_urls: Vec<String>,
    /// Lame duck mode: it is about to go.
    pub(super) ldm: bool,
    /// The most bytes of headers and payload that it takes.
    pub(super) max_payload: usize,
}

/// CONNECT.
#[derive(Debug, Serialize)]
pub(super) struct Connect<'a> {
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    pub(super) tls_required: bool,
    pub(super) name: &'a str,
    pub(super) lang: &'a str,
    pub(super) version: &'a str,
    /// 1: the server may send INFO again.
    pub(super) protocol: u8,
    pub(super) echo: bool,
    pub(super) headers: bool,
    pub(super) no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sig: Option<String>,
}

impl Raw {
    /// The header block: its version line and the lines behind it. Empty if there is none.
    pub(in super::super) fn headers(&self) -> &[u8] {
        &self.bytes[..self.headers as usize]
    }

    /// What the message carries.
    pub(in super::super) fn payload(&self) -> Bytes {
        self.bytes.slice(self.headers as usize..)
    }

    /// What the server itself says with it (ADR-4): `NATS/1.0 <code> [text]`.
    pub(in super::super) fn status(&self) -> Option<(u16, &str)> {
        let line = self.headers().strip_prefix(b"NATS/1.0 ")?;
        let end = memchr::memchr(b'\r', line)?;
        let line = std::str::from_utf8(&line[..end]).ok()?;
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        Some((code.parse().ok()?, text))
    }

    /// Whether the server says that nobody listens where a request went.
    pub(in super::super) fn is_no_responders(&self) -> bool {
        self.status().is_some_and(|(code, _)| code == 503)
    }

    #[cfg(test)]
    pub(in super::super) fn new(headers: &str, payload: &str) -> Self {
        Self {
            bytes: Bytes::from([headers, payload].concat()),
            headers: headers.len() as u32,
        }
    }
}

/// Takes the next operation out of `input`; `None` if it is not complete yet.
pub(super) fn next(input: &mut BytesMut) -> Result<Option<Said>, WireError> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > MAX_LINE {
            Err(WireError("line"))
        } else {
            Ok(None)
        };
    };
    let line = &input[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (name, rest) = match memchr::memchr2(b' ', b'\t', line) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &line[line.len()..]),
    };
    // Names of operations are in any case; those of the hot path come in capitals.
    let said = match name {
        b"HMSG" => return message(input, end, true),
        b"MSG" => return message(input, end, false),
        name if name.eq_ignore_ascii_case(b"PING") => Said::Ping,
        name if name.eq_ignore_ascii_case(b"PONG") => Said::Pong,
        name if name.eq_ignore_ascii_case(b"INFO") => {
            Said::Info(serde_json::from_slice(rest).map_err(|_| WireError("INFO"))?)
        }
        b"+OK" => Said::Ok,
        b"-ERR" => Said::Error(String::from_utf8_lossy(rest).into_owned()),
        _ => return Err(WireError("operation")),
    };
    input.advance(end + 1);
    Ok(Some(said))
}

/// `MSG <subject> <sid> [reply] <bytes>` and `HMSG <subject> <sid> [reply] <header bytes> <bytes>`.
fn message(input: &mut BytesMut, end: usize, with_headers: bool) -> Result<Option<Said>, WireError> {
    let wrong = WireError("message");
    let line = std::str::from_utf8(&input[..end]).map_err(|_| wrong)?;
    let mut words = line.split_ascii_whitespace();
    words.next();
    let subject = words.next().ok_or(wrong)?;
    let sid = words.next().and_then(|word| word.parse().ok()).ok_or(wrong)?;
    let size = |word: Option<&str>| word.and_then(|word| word.parse::<usize>().ok()).ok_or(wrong);
    let total = size(words.next_back())?;
    let headers = if with_headers { size(words.next_back())? } else { 0 };
    if headers > total || total > MAX_MESSAGE {
        return Err(wrong);
    }
    let number = subject.rsplit_once('.').and_then(|(_, token)| token.parse().ok());
    let start = end + 1;
    if input.len() < start + total + 2 {
        return Ok(None);
    }
    if input[start + total..start + total + 2] != *b"\r\n" {
        return Err(wrong);
    }
    input.advance(start);
    let bytes = input.split_to(total).freeze();
    input.advance(2);
    Ok(Some(Said::Message {
        sid,
        number,
        raw: Raw {
            bytes,
            // Not more than `MAX_MESSAGE`.
            headers: headers as u32,
        },
    }))
}

/// `SUB`.
pub(super) fn subscribe(out: &mut Vec<u8>, subject: &str, sid: u64) {
    line(out, format_args!("SUB {subject} {sid}"));
}

/// `UNSUB`.
pub(super) fn unsubscribe(out: &mut Vec<u8>, sid: u64) {
    line(out, format_args!("UNSUB {sid}"));
}

/// `PUB` with a reply subject.
pub(super) fn request(out: &mut Vec<u8>, subject: &str, reply: &str, payload: &[u8]) {
    line(out, format_args!("PUB {subject} {reply} {}", payload.len()));
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// `HPUB`, and `PUB` where there are no headers.
pub(super) fn publish(out: &mut Vec<u8>, subject: &str, reply: &str, headers: &HeaderMap, payload: &[u8]) {
    let block = header_bytes(headers);
    let total = block + payload.len();
    if block == 0 {
        line(out, format_args!("PUB {subject} {reply} {total}"));
    } else {
        line(out, format_args!("HPUB {subject} {reply} {block} {total}"));
        out.extend_from_slice(HEADER_LINE);
        for (name, values) in headers.iter() {
            for value in values {
                line(out, format_args!("{name}: {value}"));
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// How many bytes a header block takes.
pub(super) fn header_bytes(headers: &HeaderMap) -> usize {
    let lines = headers.iter().map(|(name, values)| {
        let name = AsRef::<str>::as_ref(name).len();
        values
            .iter()
            .map(|value| name + value.as_str().len() + 4)
            .sum::<usize>()
    });
    match lines.sum() {
        0 => 0,
        lines => HEADER_LINE.len() + lines + 2,
    }
}

/// `CONNECT`, and a `PING` whose answer says that it was accepted.
pub(super) fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) -> serde_json::Result<()> {
    out.extend_from_slice(b"CONNECT ");
    serde_json::to_writer(&mut *out, connect)?;
    out.extend_from_slice(b"\r\nPING\r\n");
    Ok(())
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    let _ = out.write_fmt(text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Result<Vec<Said>, WireError> {
        let mut input = BytesMut::from(input);
        let mut said = Vec::new();
        while let Some(next) = next(&mut input)? {
            said.push(next);
        }
        Ok(said)
    }

    fn message(sid: u64, number: Option<u64>, headers: &str, payload: &str) -> Said {
        Said::Message {
            sid,
            number,
            raw: Raw {
                bytes: Bytes::from([headers, payload].concat()),
                headers: headers.len() as u32,
            },
        }
    }

    const TALK: &[u8] =
        b"INFO {\"server_id\":\"x\",\"nonce\":\"n\",\"connect_urls\":[\"h:1\"],\"ldm\":true}\r\n\
        PING\r\npong\r\n+OK\r\n-ERR 'Stale Connection'\r\n\
        MSG l.a.7 2 5\r\nhe\r\nl\r\n\
        MSG a 3 reply 0\r\n\r\n\
        HMSG i.9 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
        HMSG a\t4 r  16 16\r\nNATS/1.0 503\r\n\r\n\r\n";

    fn talk() -> Vec<Said> {
        vec![
            Said::Info(Box::new(ServerInfo {
                nonce: "n".to_owned(),
                connect_urls: vec!["h:1".to_owned()],
                ldm: true,
                ..ServerInfo::default()
            })),
            Said::Ping,
            Said::Pong,
            Said::Ok,
            Said::Error("'Stale Connection'".to_owned()),
            message(2, Some(7), "", "he\r\nl"),
            message(3, None, "", ""),
            message(1, Some(9), "NATS/1.0\r\n\r\n", "hi"),
            message(4, None, "NATS/1.0 503\r\n\r\n", ""),
        ]
    }

    #[test]
    fn everything_a_server_says_is_understood() {
        assert_eq!(all(TALK).unwrap(), talk());
    }

    #[test]
    fn it_may_come_in_any_pieces() {
        for size in 1..TALK.len() {
            let mut input = BytesMut::new();
            let mut said = Vec::new();
            for piece in TALK.chunks(size) {
                input.extend_from_slice(piece);
                while let Some(next) = next(&mut input).unwrap() {
                    said.push(next);
                }
            }
            assert_eq!(said, talk(), "in pieces of {size}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for input in [
            "HELLO\r\n",
            "\r\n",
            "MSG a 1\r\n",
            "MSG a x 0\r\n\r\n",
            "MSG a 1 -1\r\n",
            "MSG a 1 2\r\nabc\r\n",
            "MSG a 1 99999999999\r\n",
            "HMSG a 1 5 4\r\nabcd\r\n",
            "HMSG a 1 18446744073709551616 4\r\nabcd\r\n",
            "INFO {\r\n",
        ] {
            assert!(all(input.as_bytes()).is_err(), "{input}");
        }
        assert!(all(&vec![b'x'; MAX_LINE + 1]).is_err());
        assert_eq!(all(b"MSG a 1 3\r\nab").unwrap(), []);
    }

    #[test]
    fn the_status_of_a_request_that_nobody_takes() {
        let Said::Message { raw, .. } = talk().pop().unwrap() else {
            panic!("a message");
        };
        assert!(raw.is_no_responders());
        assert!(!Raw::default().is_no_responders());
    }

    #[test]
    fn what_is_said_to_the_server() {
        let mut out = Vec::new();
        subscribe(&mut out, "l.a", 7);
        unsubscribe(&mut out, 7);
        request(&mut out, "q", "i.1", b"{}");
        assert_eq!(out, b"SUB l.a 7\r\nUNSUB 7\r\nPUB q i.1 2\r\n{}\r\n");

        let mut out = Vec::new();
        let mut headers = HeaderMap::new();
        publish(&mut out, "a", "", &headers, b"hi");
        headers.insert("K", "v w");
        publish(&mut out, "a", "r.2", &headers, b"hi");
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "PUB a  2\r\nhi\r\nHPUB a r.2 20 22\r\nNATS/1.0\r\nK: v w\r\n\r\nhi\r\n"
        );
    }
}
