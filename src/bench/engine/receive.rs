//! What arrives: bytes to frames, frames to lines, lines to events.

use std::{io::Read as _, time::Instant};

use memchr::{memchr, memmem};

use super::{
    ConnId, Engine, Event, READ, RETRY,
    conn::{Role, Stage},
    http,
    reply::{Reply, Subscribed},
};
use crate::bench::{
    check::Arrival,
    frame::{self, opcode},
    payload::{now_us, number},
};

impl Engine {
    /// Reads until the socket has nothing more; to its end if the server has `ended` it.
    pub(super) fn on_readable(
        &mut self,
        id: ConnId,
        ended: bool,
        scratch: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) {
        loop {
            let conn = &mut self.conns[id];
            let Some(socket) = &mut conn.socket else { return };
            let carried = conn.partial.len();
            if scratch.len() < carried + READ {
                scratch.resize(carried + READ, 0);
            }
            let space = scratch.len() - carried;
            let read = match socket.read(&mut scratch[carried..]) {
                Ok(0) => return self.close(id, "closed by the server"),
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return self.close(id, &format!("read: {e}")),
            };
            scratch[..carried].copy_from_slice(&conn.partial);
            conn.partial = Vec::new();
            let filled = &scratch[..carried + read];
            match self.consume(id, filled, events) {
                Ok(used) => self.conns[id].partial.extend_from_slice(&filled[used..]),
                Err(reason) => return self.close(id, &reason),
            }
            // epoll(7): a short read of a stream socket means that it is drained.
            if read < space && !ended {
                return;
            }
        }
    }

    /// Takes what is whole from the start of `bytes` and answers how much that was.
    fn consume(&mut self, id: ConnId, bytes: &[u8], events: &mut Vec<Event>) -> Result<usize, String> {
        let mut used = 0;
        if self.conns[id].is_rest() {
            while let Some(response) = http::parse(&bytes[used..])? {
                used += response.len;
                let refusal = (!response.accepted())
                    .then(|| format!("{} {}", response.status, String::from_utf8_lossy(response.body)));
                self.on_answer(id, None, refusal, events);
            }
            return Ok(used);
        }
        if self.conns[id].stage == Stage::Upgrade {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return Ok(0);
            };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
                return Err(format!("handshake: {}", String::from_utf8_lossy(line)));
            }
            used = end + 4;
            self.send_connect(id)?;
        }
        let at_us = now_us();
        while let Some(header) = frame::parse(&bytes[used..]) {
            let payload = &bytes[used + header.start..used + header.end];
            used += header.end;
            match (header.opcode, header.fin) {
                (opcode::TEXT | opcode::BINARY, true) => self.on_text(id, payload, at_us, events)?,
                (opcode::TEXT | opcode::BINARY | opcode::CONTINUATION, fin) => {
                    self.conns[id].fragments.extend_from_slice(payload);
                    if fin {
                        let whole = std::mem::take(&mut self.conns[id].fragments);
                        self.on_text(id, &whole, at_us, events)?;
                    }
                }
                (opcode::PING, _) => {
                    frame::write_masked(&mut self.conns[id].outbox, opcode::PONG, payload);
                    self.dirty.push(id);
                }
                (opcode::CLOSE, _) => {
                    let code = payload.get(..2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    return Err(format!("closed by the server: {code} {reason}"));
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn send_connect(&mut self, id: ConnId) -> Result<(), String> {
        let token = match &self.setup.signer {
            Some(signer) => {
                let token = signer
                    .token(self.setup.first_user + id)
                    .map_err(|e| e.to_string())?;
                format!(r#""token":"{token}""#)
            }
            None => String::new(),
        };
        let conn = &mut self.conns[id];
        let command = conn.take_id();
        conn.stage = Stage::Connect;
        conn.command(format!(r#"{{"id":{command},"connect":{{{token}}}}}"#).as_bytes());
        self.dirty.push(id);
        Ok(())
    }

    /// One message: replies and pushes, one per line.
    fn on_text(
        &mut self,
        id: ConnId,
        text: &[u8],
        at_us: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let mut rest = text;
        while !rest.is_empty() {
            let line;
            (line, rest) = match memchr(b'\n', rest) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &rest[..0]),
            };
            if line.starts_with(b"{\"push\":") {
                if !self.on_publications(id, line, at_us, events) {
                    self.on_push(id, line)?;
                }
            } else if let Some(after) = line.strip_prefix(b"{\"id\":") {
                self.on_reply(id, line, after, at_us, events)?;
            } else if line == b"{}" && self.conns[id].pong {
                self.conns[id].command(b"{}");
                self.dirty.push(id);
            }
        }
        Ok(())
    }

    /// Takes all publications in a line; false if there is none.
    fn on_publications(&mut self, id: ConnId, line: &[u8], at_us: u64, events: &mut Vec<Event>) -> bool {
        let Role::Subscriber { watch, position, .. } = &mut self.conns[id].role else {
            return false;
        };
        let mut end = 0;
        while let Some((stamp, next)) = self.scanner.next(line, end) {
            end = next;
            let arrival = watch.accept(stamp.seq);
            self.tally.faults.arrival(arrival);
            if arrival != Arrival::Repeat {
                self.tally.deliveries += 1;
                self.tally.latency.record(at_us.saturating_sub(stamp.time_us));
                events.push(Event::Delivered(id, stamp.seq));
            }
            if self.setup.positions
                && let Some(offset) = offset_after(&line[end..])
            {
                position.offset = offset;
            }
        }
        end > 0
    }

    fn on_push(&mut self, id: ConnId, line: &[u8]) -> Result<(), String> {
        let reply: Reply = serde_json::from_slice(line).map_err(|e| format!("a push: {e}"))?;
        let Some(push) = reply.push else { return Ok(()) };
        if let Some(end) = push.disconnect {
            return Err(format!("disconnected: {} {}", end.code, end.reason));
        }
        if let Some(end) = push.unsubscribe {
            if end.code < 2500 {
                return Err(format!("unsubscribed: {} {}", end.code, end.reason));
            }
            // As SDKs do: at once, from where it has come to.
            if let Role::Subscriber { recover, .. } = &mut self.conns[id].role {
                *recover = self.setup.positions;
            }
            self.live -= 1;
            self.connecting += 1;
            self.tally.resubscribed += 1;
            self.subscribe(id);
        } else if push.publication.is_some() {
            return Err("a publication that is not the benchmark's".into());
        }
        Ok(())
    }

    /// A reply; `after` is the line behind `{"id":`.
    fn on_reply(
        &mut self,
        id: ConnId,
        line: &[u8],
        after: &[u8],
        at_us: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let digits = memchr(b',', after).unwrap_or(after.len());
        if after[digits..].starts_with(b",\"publish\":") {
            self.on_answer(id, command_id(&after[..digits]), None, events);
            return Ok(());
        }
        let reply: Reply = serde_json::from_slice(line).map_err(|e| format!("a reply: {e}"))?;
        if let Some(error) = reply.error {
            let text = format!("{} {}", error.code, error.message);
            match self.conns[id].stage {
                Stage::Live => self.on_answer(id, command_id(&after[..digits]), Some(text), events),
                Stage::Subscribe if error.temporary => {
                    self.tally.resubscribed += 1;
                    self.retries.push_back((Instant::now() + RETRY, id));
                }
                _ => return Err(format!("refused: {text}")),
            }
        } else if let Some(connected) = reply.connect {
            self.conns[id].pong = connected.pong;
            if matches!(self.conns[id].role, Role::Publisher(_)) {
                self.now_live(id, events);
            } else {
                self.subscribe(id);
            }
        } else if let Some(subscribed) = reply.subscribe {
            self.on_subscribed(id, &subscribed);
            self.now_live(id, events);
            self.on_publications(id, line, at_us, events);
        }
        Ok(())
    }

    fn on_subscribed(&mut self, id: ConnId, subscribed: &Subscribed) {
        if *self.epoch != *subscribed.epoch {
            self.epoch = subscribed.epoch.as_str().into();
        }
        if subscribed.was_recovering && !subscribed.recovered {
            self.tally.faults.unrecovered += 1;
        }
        if let Role::Subscriber {
            position, recover, ..
        } = &mut self.conns[id].role
        {
            if *recover && !subscribed.was_recovering {
                self.tally.faults.unrecovered += 1;
            }
            position.offset = subscribed.offset;
            position.epoch = self.epoch.clone();
        }
    }

    /// A publication was acknowledged, or refused with this text.
    fn on_answer(
        &mut self,
        id: ConnId,
        command: Option<u32>,
        refusal: Option<String>,
        events: &mut Vec<Event>,
    ) {
        let Role::Publisher(publisher) = &mut self.conns[id].role else {
            return;
        };
        let Some(handed_over) = publisher.answered(command) else {
            return;
        };
        match refusal {
            None => {
                self.tally.acknowledged += 1;
                let waited = now_us().saturating_sub(handed_over);
                self.tally.ack_latency.record(waited);
            }
            Some(text) => {
                self.tally.faults.refused += 1;
                self.tally.first_error.get_or_insert(format!("publish: {text}"));
            }
        }
        events.push(Event::Answered(id));
        self.send_queued(id);
    }
}

/// The number behind the first `"offset":`.
fn offset_after(text: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"offset\":";
    let digits = &text[memmem::find(text, KEY)? + KEY.len()..];
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    (len > 0).then(|| number(&digits[..len])).flatten()
}

fn command_id(digits: &[u8]) -> Option<u32> {
    number(digits).and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_behind_the_payload() {
        for (text, expected) in [
            (&br#""},"offset":42}}}"#[..], Some(42)),
            (br#""},"offset":7,"time":1}"#, Some(7)),
            (br#""}}}"#, None),
            (br#""offset":x"#, None),
        ] {
            assert_eq!(offset_after(text), expected);
        }
    }
}
