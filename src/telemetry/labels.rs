//! The closed sets of label values. A label whose values were open could grow without bound.

use std::marker::PhantomData;

/// A label with a fixed set of values.
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The value's place in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value as it is exported.
    fn as_str(self) -> &'static str;
}

/// One metric per value of a label, all of them present from the start, so that a rate over a
/// counter that has never moved is 0 and not "no data". Access is an array index.
#[derive(Clone, Debug)]
pub struct ByLabel<L, M> {
    metrics: Box<[M]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M> ByLabel<L, M> {
    pub(super) fn new(make: impl FnMut(L) -> M) -> Self {
        Self {
            metrics: L::ALL.iter().copied().map(make).collect(),
            label: PhantomData,
        }
    }

    /// The metric of `value`.
    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.index()]
    }
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident($label:literal) { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value,)+];
            fn index(self) -> usize { self as usize }
            fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    )+};
}

labels! {
    /// What became of a publication.
    PublishOutcome("outcome") {
        /// Acknowledged by the log.
        Stored = "stored",
        /// The log had one with the same idempotency key.
        Duplicate = "duplicate",
        /// Sent on an ephemeral channel.
        Ephemeral = "ephemeral",
        /// Over a rate; it waits in the queue.
        Queued = "queued",
        /// Over a limit; not sent.
        Limited = "limited",
        /// Bad, or not permitted; not sent.
        Rejected = "rejected",
        /// Not valid by the namespace's schema; not sent.
        Invalid = "invalid",
        /// The log refused it.
        Refused = "refused",
        /// The log took nothing; not sent.
        Unavailable = "unavailable",
        /// Sent, but never acknowledged (L14).
        Unknown = "unknown",
    }

    /// What became of a publication that had waited in the queue.
    QueueOutcome("outcome") {
        /// It is in the log.
        Published = "published",
        /// It can never be published.
        Dropped = "dropped",
        /// It has waited longer than `queue.max_age`.
        Expired = "expired",
        /// It waits on: for its rate, or because the log did not take it.
        Deferred = "deferred",
    }

    /// What became of an attempt to sign in.
    LoginOutcome("outcome") {
        /// It was who it said.
        Done = "done",
        /// Wrong e-mail address, password or code.
        Refused = "refused",
        /// The password was right, and something is missing: the code, or a verified address.
        Incomplete = "incomplete",
        /// Too many have failed before.
        Locked = "locked",
        /// Nobody knows: too busy, or the database did not answer.
        Failed = "failed",
    }

    /// What became of a try to send a letter.
    MailOutcome("outcome") {
        /// It left.
        Sent = "sent",
        /// It is tried again later.
        Delayed = "delayed",
        /// It was refused for good.
        Refused = "refused",
        /// It was tried too often.
        GivenUp = "given_up",
    }

    /// What a client's resume came to.
    RecoveryOutcome("outcome") {
        /// Everything after its position, proven.
        Recovered = "recovered",
        /// Its position could not be proven whole: `recovered:false`.
        Unproven = "unproven",
        /// Another epoch: `recovered:false`.
        OtherEpoch = "other_epoch",
        /// No proof in time: error 100, the client keeps its position (L9).
        TimedOut = "timed_out",
    }

    /// Why a cursor was behind.
    CatchupKind("kind") {
        /// A client came back with a position.
        Resume = "resume",
        /// The reader was slower than the channel.
        SlowReader = "slow_reader",
        /// The tail had a gap.
        Gap = "gap",
    }

    /// Where the publications of a catch-up came from.
    CatchupSource("source") {
        /// The tail's ring.
        Ring = "ring",
        /// A read of the channel.
        Log = "log",
        /// A sweep of the shard (L12).
        Sweep = "sweep",
        /// Another node's tail that vouched (L8).
        Peer = "peer",
    }

    /// How a gap of a tail ended (L7).
    GapOutcome("outcome") {
        /// The missing publications were read.
        Closed = "closed",
        /// They could not be: subscribers were told with code 2500.
        Open = "open",
    }

    /// What a check of a shard found (L11).
    CheckOutcome("outcome") {
        /// The shard had not moved.
        Unmoved = "unmoved",
        /// All tails were whole.
        Whole = "whole",
        /// A tail had missed a copy.
        Missed = "missed",
        /// There was no usable answer.
        Failed = "failed",
    }

    /// Why something was dropped.
    DropReason("reason") {
        /// An ephemeral publication for a reader that was too slow.
        SlowEphemeral = "slow_ephemeral",
        /// A stored message that no program can read (L3).
        Malformed = "malformed",
        /// Live copies of a tail whose gap buffer was full; they are read again.
        GapBuffer = "gap_buffer",
        /// Live copies that the NATS client had no room for; they are read again.
        SlowConsumer = "slow_consumer",
        /// An event for an observer that lagged.
        Event = "event",
        /// A join, leave or change of state for a listener whose mailbox was full.
        PresenceEvent = "presence_event",
    }

    /// Which bound was met.
    Limit("limit") {
        /// `apps.limits.publish_rate`.
        PublishRate = "publish_rate",
        /// `apps.limits.publish_bytes`.
        PublishBytes = "publish_bytes",
        /// A rule's `rate`.
        ChannelRate = "channel_rate",
        /// `apps.limits.rate_channels`: the rate that the channels beyond it share.
        RateChannels = "rate_channels",
        /// `apps.limits.user_publish_rate`.
        UserPublishRate = "user_publish_rate",
        /// `apps.limits.rate_users`: the rate that the users beyond it share.
        RateUsers = "rate_users",
        /// `tenants.schema_work_rate`.
        SchemaWork = "schema_work_rate",
        /// `apps.limits.max_queued`.
        Queued = "queued",
        /// `log.streams.overflow.max_bytes`.
        QueueBytes = "queue_bytes",
        /// `apps.limits.command_rate`.
        CommandRate = "command_rate",
        /// `apps.limits.command_bytes`.
        CommandBytes = "command_bytes",
        /// `apps.limits.max_refusals`.
        Refusals = "refusals",
        /// `apps.limits.max_connections_per_user`.
        UserConnections = "user_connections",
        /// `edge.max_connections_per_ip`.
        IpConnections = "ip_connections",
        /// `apps.limits.max_connections_per_ip`.
        AppIpConnections = "app_ip_connections",
        /// `edge.connect_rate`.
        ConnectRate = "connect_rate",
        /// `edge.connect_delay_target`.
        ConnectDelay = "connect_delay",
        /// A rule's `max_size`.
        MessageSize = "message_size",
        /// `http.max_json_depth`.
        JsonDepth = "json_depth",
        /// `http.max_answer_bytes`.
        Answer = "answer",
        /// `apps.limits.max_connections`.
        AppConnections = "app_connections",
        /// `edge.max_connections`.
        NodeConnections = "node_connections",
        /// `edge.max_channels`, or `apps.limits.max_channels`.
        Channels = "channels",
        /// `edge.max_in_flight`.
        ConnectionInFlight = "connection_in_flight",
        /// `log.max_in_flight`.
        LogInFlight = "log_in_flight",
        /// `edge.mailbox_max_bytes`.
        Mailbox = "mailbox",
        /// `channel.max_tails`.
        Tails = "tails",
        /// `apps.limits.ring_bytes`.
        AppRings = "app_rings",
        /// `channel.rings_bytes`.
        NodeRings = "node_rings",
        /// `catchup.max_waiting`.
        CatchupWaiting = "catchup_waiting",
        /// `presence.max_members`.
        PresenceMembers = "presence_members",
        /// `presence.max_info_bytes`.
        PresenceInfo = "presence_info",
        /// `presence.max_state_bytes`.
        PresenceState = "presence_state",
        /// `presence.state_rate`.
        PresenceStateRate = "presence_state_rate",
        /// `presence.max_channels`.
        PresenceChannels = "presence_channels",
        /// `users.max_in_flight`.
        UserCommands = "user_commands",
        /// `users.max_waiting`.
        UserWaiting = "user_waiting",
        /// `users.max_payload_bytes`.
        UserPayload = "user_payload",
        /// `http.max_surveys` or `http.max_surveys_per_app`.
        Surveys = "surveys",
        /// `revocations.max_per_app`.
        Revocations = "revocations",
        /// The quota `messages_per_second`.
        QuotaMessages = "quota_messages_per_second",
        /// The quota `messages_per_month`.
        QuotaMonth = "quota_messages_per_month",
        /// The quota `history_bytes`.
        QuotaHistoryBytes = "quota_history_bytes",
        /// The quota `peak_connections`.
        QuotaConnections = "quota_peak_connections",
        /// The quota `channels`.
        QuotaChannels = "quota_channels",
        /// The quota `presence_members`.
        QuotaPresenceMembers = "quota_presence_members",
        /// The quota `message_bytes`.
        QuotaMessageBytes = "quota_message_bytes",
        /// The quota `api_calls_per_second`.
        QuotaApiCalls = "quota_api_calls_per_second",
    }

    /// A quota that is counted over all nodes.
    QuotaName("quota") {
        /// Connections at once.
        PeakConnections = "peak_connections",
        /// Publications in a month.
        MessagesPerMonth = "messages_per_month",
        /// Publications a second.
        MessagesPerSecond = "messages_per_second",
        /// Channels at once.
        Channels = "channels",
        /// Bytes of history.
        HistoryBytes = "history_bytes",
        /// Requests of backends a second.
        ApiCallsPerSecond = "api_calls_per_second",
    }

    /// What a node does.
    NodeState("state") {
        /// It is getting ready.
        Starting = "starting",
        /// It serves.
        Ready = "ready",
        /// It takes no new connections, and closes those it has.
        Draining = "draining",
    }

    /// Why publications left a ring.
    RingEviction("reason") {
        /// `channel.ring_messages` or `channel.ring_bytes`.
        Size = "size",
        /// Older than the class's `max_age`.
        Age = "age",
        /// Nobody read it for `channel.ring_idle`.
        Idle = "idle",
        /// `channel.rings_bytes` or `apps.limits.ring_bytes`.
        Budget = "budget",
        /// The channel's history was removed (L15).
        Tombstone = "tombstone",
    }

    /// Why a connection was turned away before it had a session.
    RefusedHandshake("reason") {
        /// The origin is not allowed.
        Origin = "origin",
        /// No such app, or none named.
        App = "app",
        /// Over a limit of connections.
        Limit = "limit",
        /// Not a WebSocket handshake.
        Malformed = "malformed",
        /// No valid handshake in time.
        Timeout = "timeout",
        /// The node drains.
        Draining = "draining",
    }

    /// Why the body of a request was not read.
    RefusedBody("reason") {
        /// `http.max_body_bytes`.
        TooLarge = "too_large",
        /// `http.body_timeout`.
        TooSlow = "too_slow",
        /// It ended early.
        Broken = "broken",
    }

    /// Why a token or key was not accepted.
    AuthFailure("reason") {
        /// It is past its `exp`.
        Expired = "expired",
        /// Signature, algorithm, key id or claims are wrong.
        Invalid = "invalid",
        /// A wrong API key.
        ApiKey = "api_key",
        /// The JWK set could not be fetched.
        Jwks = "jwks",
        /// It is revoked.
        Revoked = "revoked",
    }

    /// What a backend has done to a user.
    UserCommand("command") {
        /// Close connections.
        Disconnect = "disconnect",
        /// End subscriptions.
        Unsubscribe = "unsubscribe",
        /// Make subscriptions.
        Subscribe = "subscribe",
        /// Prolong or end connections.
        Refresh = "refresh",
        /// Send a message.
        Message = "message",
        /// Ask whether the user is there.
        Online = "online",
    }

    /// Why a message that said to be another node's was not accepted.
    RefusedMessage("reason") {
        /// It has not the form of one.
        Malformed = "malformed",
        /// Its signature is not this deployment's.
        Forged = "forged",
        /// It has been heard before.
        Repeated = "repeated",
    }

    /// The first digit of an HTTP status.
    StatusClass("status") {
        /// 1xx and 2xx.
        Success = "2xx",
        /// 3xx.
        Redirect = "3xx",
        /// 4xx.
        Client = "4xx",
        /// 5xx.
        Server = "5xx",
    }
}

impl From<u16> for StatusClass {
    fn from(status: u16) -> Self {
        match status {
            0..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            _ => Self::Server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_at_its_own_place() {
        let by_label: ByLabel<Limit, &str> = ByLabel::new(Limit::as_str);
        for &limit in Limit::ALL {
            assert_eq!(*by_label.of(limit), limit.as_str());
        }
    }

    #[test]
    fn a_status_has_a_class() {
        for (status, class) in [
            (101, StatusClass::Success),
            (204, StatusClass::Success),
            (304, StatusClass::Redirect),
            (429, StatusClass::Client),
            (503, StatusClass::Server),
        ] {
            assert_eq!(StatusClass::from(status), class);
        }
    }
}
