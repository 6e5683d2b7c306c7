//! The vocabulary of the product, one word per thing: apps, channels, offsets, publications, rules,
//! claims, nodes.
//!
//! Pure: knows nothing of NATS, sockets, tokio or configuration files.

mod app;
mod channel;
mod claims;
mod node;
mod order;
mod position;
mod publication;
mod quotas;
mod rule;
mod rules;
mod schema;

pub use app::{AppId, InvalidAppId};
pub use channel::{ChannelKey, ChannelName, InvalidChannel, MAX_CHANNEL_BYTES};
pub use claims::{ConnectClaims, SubOptions, SubscribeClaims, TokenError, TokenFacts};
pub use node::{Incarnation, InvalidNodeId, NodeId};
pub use order::{BackendOrder, BackendSubscribe};
pub use position::{Epoch, MAX_OFFSET, Offset, Position};
pub use publication::{ClientInfo, Kind, MAX_IDEMPOTENCY_KEY_BYTES, Publication, Record};
pub use quotas::Quotas;
pub use rule::{Access, ClassName, History, JoinLeave, Rule};
pub use rules::Rules;
pub use schema::{Compatibility, Overflow, SchemaVersion};
