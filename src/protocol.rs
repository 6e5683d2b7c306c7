//! What clients and the server say to each other, and how it is written on the wire.
//!
//! [`Command`] and [`Reply`] are the words of every dialect; `centrifuge/` writes and reads them as
//! the Centrifuge client protocol v2 in JSON. Codecs are pure: text in, commands out; replies in,
//! bytes out. They know nothing of sockets, of sessions or of the log.

pub mod centrifuge;
mod codes;
mod command;
pub mod json;
mod reply;

pub use codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
pub use command::{
    Command, Connect, HistoryQuery, Payload, PayloadError, RecoverFrom, Request, Subscribe, SubscribeFeature,
    Token,
};
pub use reply::{
    ConnectResult, HistoryPage, Present, PublishResult, Push, Reply, ServerSubscription, SubscribeResult,
};
