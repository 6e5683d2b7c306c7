//! The configuration tree: one plain struct per concern, filled from `config/defaults.toml`
//! (annotated: it is the documentation), a file and the environment.
//!
//! `load.rs` puts the layers together, `schema.rs` names every key with its kind, `validate.rs` holds
//! the relations between keys.
//!
//! Sections are passed down to what they configure; the whole [`Config`] goes no further than
//! `app.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::model::{AppId, ClassName, Quotas, Rule};

mod control;
mod document;
mod fields;
mod kinds;
mod layers;
mod load;
mod problem;
#[cfg(test)]
mod reference;
mod schema;
mod secret;
mod show;
mod tenants;
mod units;
mod validate;

pub use control::{ControlConfig, MailConfig, MailEncryption, MailTransport, SignUp};
pub use load::{DEFAULTS, Sources};
pub use problem::{ConfigErrors, Problem};
pub use secret::Secret;
pub use tenants::{QueueConfig, QuotasConfig, TenantsConfig, UsageConfig};

/// Everything that can be configured, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process.
    pub node: NodeConfig,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The NATS connection.
    pub nats: NatsConfig,
    /// Streams and publishing.
    pub log: LogConfig,
    /// Tails and rings.
    pub channel: ChannelConfig,
    /// Reads of stored history for those who are behind.
    pub catchup: CatchupConfig,
    /// Client connections.
    pub edge: EdgeConfig,
    /// Nodes among each other.
    pub cluster: ClusterConfig,
    /// What backends do to users.
    pub users: UsersConfig,
    /// What apps may have on all nodes together.
    pub quotas: QuotasConfig,
    /// Tokens that are worth nothing any more.
    pub revocations: RevocationsConfig,
    /// Publications that wait for a rate.
    pub queue: QueueConfig,
    /// Who is on a channel.
    pub presence: PresenceConfig,
    /// Apps that come from the control plane.
    pub tenants: TenantsConfig,
    /// Accounts, teams, apps, plans, usage.
    pub store: StoreConfig,
    /// What apps use.
    pub usage: UsageConfig,
    /// People.
    pub control: ControlConfig,
    /// Letters to people.
    pub mail: MailConfig,
    /// Stopping.
    pub drain: DrainConfig,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// The apps this file defines.
    pub apps: Vec<AppConfig>,
}

/// `[node]`
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The name in logs and in `/healthz`; the host name if empty.
    pub name: String,
    /// The app of connections that name none; `None` = they are refused.
    pub default_app: Option<AppId>,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The listen backlog (128 loses SYNs in a reconnect storm).
    pub backlog: u32,
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How long a keep-alive connection may be silent between requests.
    pub idle_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// The largest header block, bytes.
    pub max_header_bytes: usize,
    /// The largest request body, bytes.
    pub max_body_bytes: usize,
    /// How many arrays and objects of a payload may stand within each other.
    pub max_json_depth: usize,
    /// Bytes of an answer from which on the commands that are left of a request are refused.
    pub max_answer_bytes: usize,
    /// Bytes of history in one answer, from which on no further page is read.
    pub max_history_bytes: usize,
    /// Publications of one request on the way to the log at once.
    pub max_in_flight: usize,
    /// Questions for channels or nodes, under way at once.
    pub max_surveys: usize,
    /// The same of one app.
    pub max_surveys_per_app: usize,
    /// Whether `/metrics`, `/healthz` and `/readyz` are served on `listen` too.
    pub expose_operations: bool,
}

/// `[nats]`
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// Server URLs.
    pub servers: Vec<String>,
    /// User name, if the server wants one.
    pub user: Option<String>,
    /// Password for `user`.
    pub password: Option<Secret>,
    /// Token, if the server wants one.
    pub token: Option<Secret>,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// A CA file; TLS is required if set.
    pub ca_file: Option<PathBuf>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How often a server is pinged; one that is silent for three of these is given up.
    pub ping_interval: Duration,
    /// The longest pause between two attempts to connect again.
    pub max_reconnect_delay: Duration,
    /// How long a start waits for JetStream to create or describe a stream.
    pub start_timeout: Duration,
    /// How long one request may take before it is tried again.
    pub request_timeout: Duration,
    /// The longest a request may take when answers take longer than that.
    pub request_timeout_max: Duration,
    /// Live copies buffered per channel before they are dropped (and read from the log).
    pub subscription_capacity: usize,
    /// Entries of a bucket that are buffered for the one that watches it.
    pub watch_capacity: usize,
    /// Bytes that the answer to a question about many channels may hold.
    pub answer_bytes: u32,
    /// Commands buffered towards the server.
    pub command_capacity: usize,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The prefix of stream and KV bucket names: one deployment per prefix and NATS account.
    pub prefix: String,
    /// The retention classes.
    pub classes: Vec<ClassConfig>,
    /// Publications on the way to NATS, all connections of the node.
    pub max_in_flight: usize,
    /// How long an acknowledgement may take.
    pub ack_timeout: Duration,
    /// How often the epoch mark is written while it moves.
    pub mark_interval: Duration,
    /// How far replica clocks may differ, for the floor.
    pub clock_margin: Duration,
    /// The deployment's own streams.
    pub streams: StreamsConfig,
}

/// `[log.streams]`
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// What apps have used.
    pub usage: StreamConfig,
    /// Publications that wait for their app's rate.
    pub overflow: StreamConfig,
    /// What has happened.
    pub events: StreamConfig,
}

/// `[log.streams.<name>]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// How long a message is kept at most.
    pub max_age: Duration,
    /// The bytes that it may hold, on each replica.
    pub max_bytes: u64,
    /// How long the id of an append is remembered.
    pub duplicate_window: Duration,
    /// Copies: 1, 3 or 5.
    pub replicas: u8,
}

/// `[[log.classes]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// The class's name.
    pub name: ClassName,
    /// How many streams it has. Never changes.
    pub shards: u16,
    /// How long publications are kept.
    pub max_age: Duration,
    /// Bytes per shard: a safety net.
    pub max_bytes: u64,
    /// Publications kept per channel.
    pub max_per_channel: Option<u64>,
    /// How long an idempotency key is remembered.
    pub duplicate_window: Duration,
    /// Copies of each shard: 1, 3 or 5.
    pub replicas: u8,
    /// Server tags for placement.
    pub placement_tags: Vec<String>,
}

/// `[channel]`
#[derive(Clone, Debug)]
pub struct ChannelConfig {
    /// Channels with a tail at once on this node.
    pub max_tails: usize,
    /// How long a tail stays after its last subscriber has left.
    pub linger: Duration,
    /// Publications in a ring.
    pub ring_messages: usize,
    /// Bytes in a ring.
    pub ring_bytes: usize,
    /// Bytes in all rings of the node.
    pub rings_bytes: usize,
    /// How long a ring that nobody reads keeps publications.
    pub ring_idle: Duration,
    /// Up to how many subscribers a lone publication is written to their sockets at once.
    pub eager_subscribers: usize,
    /// Bytes of live copies kept while a gap is read.
    pub gap_bytes: usize,
    /// How long a subscribe may take to prove its position.
    pub subscribe_timeout: Duration,
    /// How often each shard is checked for lost copies.
    pub check_interval: Duration,
    /// How long after a new interest its channel is checked.
    pub check_after_interest: Duration,
    /// How long other nodes may take to vouch.
    pub peer_wait: Duration,
}

/// `[catchup]`
#[derive(Clone, Debug)]
pub struct CatchupConfig {
    /// Publications per page.
    pub page_messages: u32,
    /// Bytes per page.
    pub page_bytes: u32,
    /// Bytes asked for and not yet received, all readers of the node.
    pub in_flight_bytes: usize,
    /// Bytes of pages read ahead of their readers, all readers of the node.
    pub ahead_bytes: usize,
    /// Reads from leaders at once.
    pub leader_reads: usize,
    /// Reads waiting, all channels of the node.
    pub max_waiting: usize,
    /// Pages that may end early before the leader is asked.
    pub short_reads: u32,
    /// From how many waiting channels of a shard on one sweep serves them all.
    pub sweep_from: usize,
    /// Bytes that one sweep keeps for those it serves.
    pub sweep_bytes: usize,
    /// How long that is kept when nobody asks for it.
    pub sweep_linger: Duration,
}

/// `[edge]`
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Connections of this node.
    pub max_connections: usize,
    /// Connections from one address (IPv6: one /64); 0 = unlimited.
    pub max_connections_per_ip: u32,
    /// Proxies whose `X-Forwarded-For` is believed: addresses and networks.
    pub trusted_proxies: Vec<String>,
    /// New connections a second; 0 = unlimited.
    pub connect_rate: u32,
    /// How long a new connection may wait for its first turn while more are let in; 0 = any time.
    pub connect_delay_target: Duration,
    /// For how long the waits must have been longer, and how often one is let in then.
    pub connect_delay_interval: Duration,
    /// From the upgrade to a valid `connect`.
    pub connect_timeout: Duration,
    /// How often the server pings.
    pub ping_interval: Duration,
    /// How long a pong may take while the client takes nothing.
    pub pong_timeout: Duration,
    /// The largest frame and message a client may send, bytes.
    pub max_message_bytes: usize,
    /// Channels a connection may subscribe to.
    pub max_channels: usize,
    /// Publications and history reads a connection may have in flight.
    pub max_in_flight: usize,
    /// Queued bytes from which on a durable subscription falls behind instead of queueing.
    pub mailbox_bytes: usize,
    /// Queued bytes (replies, ephemeral publications) at which the connection is closed (3008).
    pub mailbox_max_bytes: usize,
    /// How long the client may take to answer a close frame.
    pub close_timeout: Duration,
    /// How long a socket may take nothing while something is queued.
    pub write_timeout: Duration,
    /// Bytes a second that a reader must take, on average over `drain_window`, while it is behind.
    pub min_drain_rate: u64,
    /// The window of `min_drain_rate`.
    pub drain_window: Duration,
    /// `SO_SNDBUF` of client sockets; 0 = the system's.
    pub send_buffer: usize,
    /// `TCP_NOTSENT_LOWAT` of client sockets; 0 = off.
    pub notsent_lowat: u32,
}

/// `[cluster]`
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// What nodes sign their messages with; `None` = a key that the registry keeps.
    pub secret: Option<Secret>,
    /// The address that other nodes and operators are told; `http.listen` if empty.
    pub address: String,
    /// How long a node counts as there without a renewal.
    pub lease: Duration,
    /// How often a lease is renewed.
    pub renew_interval: Duration,
    /// How long a node that did not stop in order is shown.
    pub show_gone: Duration,
    /// How long other nodes may take to answer.
    pub ask_timeout: Duration,
}

/// `[users]`
#[derive(Clone, Debug)]
pub struct UsersConfig {
    /// The largest payload of a command: a message, the data or info of a subscription, bytes.
    pub max_payload_bytes: usize,
    /// Commands to users at once, all requests of the node.
    pub max_in_flight: usize,
    /// Commands that may wait for a connection.
    pub max_waiting: usize,
}

/// `[revocations]`
#[derive(Clone, Debug)]
pub struct RevocationsConfig {
    /// How long a revocation is kept if it does not say.
    pub default_ttl: Duration,
    /// The longest that one may be kept.
    pub max_ttl: Duration,
    /// Revocations of an app.
    pub max_per_app: usize,
}

/// `[presence]`
#[derive(Clone, Debug)]
pub struct PresenceConfig {
    /// How long changes are gathered before the other nodes are told.
    pub flush_interval: Duration,
    /// How often the other nodes are told what they should have heard.
    pub digest_interval: Duration,
    /// How long a connection that was lost stays a member.
    pub grace: Duration,
    /// How long a question for members waits for other nodes.
    pub query_timeout: Duration,
    /// How long the members of a channel are known when nobody is interested any more.
    pub linger: Duration,
    /// Members of a channel up to which joins and leaves are shown.
    pub join_leave_max: usize,
    /// Members of a channel.
    pub max_members: usize,
    /// Members of a channel up to which a client is told who they are.
    pub max_answer_members: usize,
    /// Bytes of what a member's tokens say of it.
    pub max_info_bytes: usize,
    /// Bytes of a member's state.
    pub max_state_bytes: usize,
    /// Changes of state a second and member.
    pub state_rate: u32,
    /// Channels whose members this node knows.
    pub max_channels: usize,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `mongodb://...`, which may hold a password; `None` = there is no store.
    pub url: Option<Secret>,
    /// How long an operation may take.
    pub timeout: Duration,
    /// Operations that may wait for their turn.
    pub queue: usize,
    /// Operations of a MongoDB store under way at once.
    pub max_in_flight: usize,
    /// Threads that read an SQLite store.
    pub readers: usize,
}

/// `[drain]`
#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// Between "not ready" and the first close: load balancers look away.
    pub grace: Duration,
    /// Over how long connections are closed.
    pub duration: Duration,
    /// How long the node stays when its last client has left, to vouch for those who come back.
    pub linger: Duration,
    /// After how long the process ends whatever is left.
    pub deadline: Duration,
}

/// `[telemetry]`
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// A `tracing` filter, for example `info` or `slipstream=debug`.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
}

/// `[[apps]]`
#[derive(Clone, Debug)]
pub struct AppConfig {
    /// Its id.
    pub id: AppId,
    /// Keys of backends, for REST and the server API.
    pub api_keys: Vec<Secret>,
    /// Origins that browsers may connect from; empty = all.
    pub allowed_origins: Vec<String>,
    /// Whether a connection may come without a token.
    pub anonymous: bool,
    /// The namespace of the channel that each user is subscribed to, if there is one.
    pub personal_namespace: Option<String>,
    /// How tokens are verified; `None` = tokens are refused.
    pub auth: Option<AuthConfig>,
    /// Its share of the node.
    pub limits: LimitsConfig,
    /// What it may have on all nodes together.
    pub quotas: Quotas,
    /// Its namespaces, by name; the name "" is for channels without one.
    pub namespaces: Vec<(String, Rule)>,
}

/// `[apps.auth]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Secret for HS256/384/512.
    pub hmac_secret: Option<Secret>,
    /// PEM public keys for RS/ES/EdDSA.
    pub public_keys: Vec<String>,
    /// Where a JWK set is fetched from.
    pub jwks_url: Option<String>,
    /// How long a fetched set is used.
    pub jwks_ttl: Duration,
    /// The least time between two fetches (unknown key ids cannot force more).
    pub jwks_min_refresh: Duration,
    /// How long beyond `jwks_ttl` a set is still used while no new one can be fetched.
    pub jwks_max_stale: Duration,
    /// How long one fetch may take.
    pub jwks_timeout: Duration,
    /// The largest set that is read, bytes.
    pub jwks_max_bytes: usize,
    /// The most keys of a set that are used.
    pub jwks_max_keys: usize,
    /// The longest token, bytes.
    pub max_token_bytes: usize,
    /// The `aud` a token must have, if set.
    pub audience: Option<String>,
    /// The `iss` a token must have, if set.
    pub issuer: Option<String>,
    /// How far clocks may differ for `exp` and `nbf`.
    pub leeway: Duration,
}

/// `[apps.limits]`: an app's share of one node. 0 = unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Publications a second.
    pub publish_rate: u32,
    /// Publications that may come at once; 0 = as many as come in a second.
    pub publish_burst: u32,
    /// Bytes a second stored, with all that the store adds.
    pub publish_bytes: u64,
    /// Channels whose own rate (`rate` of their namespace) is told apart at once; never 0.
    pub rate_channels: usize,
    /// Publications a second of each user, over its connections.
    pub user_publish_rate: u32,
    /// Users whose rate is told apart at once; never 0.
    pub rate_users: usize,
    /// Publications that may wait in the queue; 0 = as many as fit.
    pub max_queued: u64,
    /// Commands a second of each connection.
    pub command_rate: u32,
    /// Bytes of commands a second of each connection.
    pub command_bytes: u64,
    /// Commands refused for either in a minute, beyond which a connection is closed (3509).
    pub max_refusals: u32,
    /// Bytes of rings.
    pub ring_bytes: u64,
    /// Connections.
    pub max_connections: usize,
    /// Connections of each user.
    pub max_connections_per_user: usize,
    /// Connections from each address.
    pub max_connections_per_ip: u32,
    /// Channels a connection may be subscribed to, if less than `edge.max_channels`.
    pub max_channels: usize,
}
