//! Replies to bytes. Zero values are left out, as the protocol has it, except where the reference
//! says "always".

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::publication::encode_publication_body;
use crate::{
    model::{ClientInfo, Position},
    protocol::{ConnectResult, HistoryPage, Present, PublishResult, Push, Reply, SubscribeResult, json},
};

/// The server's version, as clients see it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Appends a reply or push: one JSON object without newlines.
pub fn encode(reply: &Reply, out: &mut Vec<u8>) {
    let mut fields = Fields::open(out);
    match reply {
        Reply::Error { id, code } => {
            fields.number("id", u64::from(*id));
            let mut error = Fields::open(fields.key("error"));
            error.number("code", u64::from(code.code()));
            error.text("message", code.message());
            error.flag("temporary", code.temporary());
            error.close();
        }
        Reply::Refusal {
            id,
            code,
            message,
            temporary,
        } => {
            fields.number("id", u64::from(*id));
            let mut error = Fields::open(fields.key("error"));
            error.number("code", u64::from(*code));
            error.text("message", message);
            error.flag("temporary", *temporary);
            error.close();
        }
        Reply::Connect { id, result } => {
            fields.number("id", u64::from(*id));
            connect_result(fields.key("connect"), result);
        }
        Reply::Unsubscribe { id } => {
            fields.number("id", u64::from(*id));
            fields.raw("unsubscribe", b"{}");
        }
        Reply::Publish { id, result } => {
            fields.number("id", u64::from(*id));
            publish_result(fields.key("publish"), result);
        }
        Reply::History { id, page } => {
            fields.number("id", u64::from(*id));
            history_page(fields.key("history"), page);
        }
        Reply::Presence { id, clients } => {
            fields.number("id", u64::from(*id));
            let mut result = Fields::open(fields.key("presence"));
            let mut presence = Fields::open(result.key("presence"));
            for member in clients {
                present(presence.any_key(&member.info.client), member);
            }
            presence.close();
            result.close();
        }
        Reply::PresenceStats { id, clients, users } => {
            fields.number("id", u64::from(*id));
            let mut result = Fields::open(fields.key("presence_stats"));
            result.number("num_clients", u64::from(*clients));
            result.number("num_users", u64::from(*users));
            result.close();
        }
        Reply::Rpc { id, data } => {
            fields.number("id", u64::from(*id));
            let mut result = Fields::open(fields.key("rpc"));
            result.raw("data", data);
            result.close();
        }
        Reply::Refresh { id, client, ttl } => {
            fields.number("id", u64::from(*id));
            let mut result = Fields::open(fields.key("refresh"));
            result.text("client", client);
            result.text("version", VERSION);
            result.expiry(*ttl);
            result.close();
        }
        Reply::SubRefresh { id, ttl } => {
            fields.number("id", u64::from(*id));
            let mut result = Fields::open(fields.key("sub_refresh"));
            result.expiry(*ttl);
            result.close();
        }
        Reply::Push(push) => encode_push(fields.key("push"), push),
    }
    fields.close();
}

/// Appends the reply to a subscribe. `bodies` are the missed publications, ascending, as
/// [`encode_publication_body`] writes them.
pub fn encode_subscribe_reply<'a>(
    id: u32,
    result: &SubscribeResult,
    bodies: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let mut fields = Fields::open(out);
    fields.number("id", u64::from(id));
    subscribe_result(fields.key("subscribe"), result, bodies);
    fields.close();
}

fn encode_push(out: &mut Vec<u8>, push: &Push) {
    let mut fields = Fields::open(out);
    match push {
        Push::Unsubscribe { channel, code } => {
            fields.text("channel", channel.as_str());
            let mut unsubscribe = Fields::open(fields.key("unsubscribe"));
            unsubscribe.number("code", u64::from(code.code()));
            unsubscribe.text("reason", code.message());
            unsubscribe.close();
        }
        Push::Disconnect { code } => {
            let mut disconnect = Fields::open(fields.key("disconnect"));
            disconnect.number("code", u64::from(code.code()));
            disconnect.text("reason", code.message());
            disconnect.close();
        }
        Push::Subscribe { channel, result } => {
            fields.text("channel", channel.as_str());
            let mut subscribe = Fields::open(fields.key("subscribe"));
            subscribe.flag("recoverable", result.recoverable);
            subscribe.position(result.position.as_ref());
            subscribe.flag("positioned", result.positioned);
            if let Some(data) = &result.data {
                subscribe.raw("data", data);
            }
            subscribe.close();
        }
        Push::Join { channel, info } => member(&mut fields, "join", channel.as_str(), info),
        Push::Leave { channel, info } => member(&mut fields, "leave", channel.as_str(), info),
        Push::Update { channel, info } => member(&mut fields, "update", channel.as_str(), info),
        Push::Message { data } => {
            let mut message = Fields::open(fields.key("message"));
            message.raw("data", data);
            message.close();
        }
        Push::Refresh { ttl } => {
            let mut refresh = Fields::open(fields.key("refresh"));
            refresh.expiry(*ttl);
            refresh.close();
        }
    }
    fields.close();
}

fn member(fields: &mut Fields<'_>, what: &str, channel: &str, info: &Present) {
    fields.text("channel", channel);
    let mut member = Fields::open(fields.key(what));
    present(member.key("info"), info);
    member.close();
}

fn connect_result(out: &mut Vec<u8>, result: &ConnectResult) {
    let mut fields = Fields::open(out);
    fields.text("client", &result.client);
    fields.text("version", VERSION);
    fields.expiry(result.ttl);
    if !result.subs.is_empty() {
        let mut subs = Fields::open(fields.key("subs"));
        for sub in &result.subs {
            let bodies = sub.bodies.iter().map(|body| &body[..]);
            subscribe_result(subs.any_key(sub.channel.as_str()), &sub.result, bodies);
        }
        subs.close();
    }
    if result.ping > 0 {
        fields.number("ping", u64::from(result.ping));
    }
    fields.flag("pong", result.pong);
    fields.close();
}

fn subscribe_result<'a>(
    out: &mut Vec<u8>,
    result: &SubscribeResult,
    bodies: impl IntoIterator<Item = &'a [u8]>,
) {
    let mut fields = Fields::open(out);
    fields.expiry(result.ttl);
    fields.flag("recoverable", result.recoverable);
    fields.position(result.position.as_ref());
    let mut bodies = bodies.into_iter();
    if let Some(first) = bodies.next() {
        let out = fields.key("publications");
        out.push(b'[');
        out.extend_from_slice(first);
        for body in bodies {
            out.push(b',');
            out.extend_from_slice(body);
        }
        out.push(b']');
    }
    fields.flag("recovered", result.recovered);
    fields.flag("positioned", result.positioned);
    if let Some(data) = &result.data {
        fields.raw("data", data);
    }
    fields.flag("was_recovering", result.was_recovering);
    fields.close();
}

fn publish_result(out: &mut Vec<u8>, result: &PublishResult) {
    let mut fields = Fields::open(out);
    fields.position(result.position.as_ref());
    fields.flag("duplicate", result.duplicate);
    fields.close();
}

fn history_page(out: &mut Vec<u8>, page: &HistoryPage) {
    let mut fields = Fields::open(out);
    let out = fields.key("publications");
    out.push(b'[');
    for (nth, publication) in page.publications.iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        encode_publication_body(publication, out);
    }
    out.push(b']');
    fields.text("epoch", page.top.epoch.as_str());
    fields.number("offset", page.top.offset);
    fields.close();
}

pub(super) fn client_info(out: &mut Vec<u8>, info: &ClientInfo) {
    present_as(out, info, None);
}

fn present(out: &mut Vec<u8>, member: &Present) {
    present_as(out, &member.info, member.state.as_deref());
}

fn present_as(out: &mut Vec<u8>, info: &ClientInfo, state: Option<&[u8]>) {
    let mut fields = Fields::open(out);
    fields.text("user", &info.user);
    fields.text("client", &info.client);
    let shown = [
        ("conn_info", info.conn_info.as_deref()),
        ("chan_info", info.chan_info.as_deref()),
        ("state", state),
    ];
    for (name, raw) in shown {
        if let Some(raw) = raw {
            fields.raw(name, raw);
        }
    }
    fields.close();
}

/// A JSON object being written.
pub(super) struct Fields<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Fields<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Appends a key that needs no escaping, and gives the place of its value.
    pub(super) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Appends a key that somebody else has chosen.
    pub(super) fn any_key(&mut self, key: &str) -> &mut Vec<u8> {
        self.comma();
        json::push_str(self.out, key);
        self.out.push(b':');
        self.out
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
    }

    /// Appends a field and tells where its value stands.
    pub(super) fn written(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let out = self.key(key);
        let start = out.len();
        write(out);
        start..out.len()
    }

    pub(super) fn number(&mut self, key: &str, number: u64) {
        json::push_u64(self.key(key), number);
    }

    fn text(&mut self, key: &str, text: &str) {
        json::push_str(self.key(key), text);
    }

    /// A field that is left out when false.
    fn flag(&mut self, key: &str, set: bool) {
        if set {
            self.key(key).extend_from_slice(b"true");
        }
    }

    fn raw(&mut self, key: &str, value: &[u8]) {
        json::push_raw(self.key(key), value);
    }

    fn expiry(&mut self, ttl: Option<u32>) {
        if let Some(ttl) = ttl {
            self.flag("expires", true);
            self.number("ttl", u64::from(ttl));
        }
    }

    /// `epoch` and `offset`; offset 0 is left out.
    fn position(&mut self, position: Option<&Position>) {
        if let Some(position) = position {
            self.text("epoch", position.epoch.as_str());
            if position.offset > 0 {
                self.number("offset", position.offset);
            }
        }
    }
}
