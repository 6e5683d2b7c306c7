//! Every section with its keys and their kinds: the one list that reading, writing and the
//! comparison with `defaults.toml` go by. A field that is missing here does not compile.

use super::{
    AppConfig, AuthConfig, CatchupConfig, ChannelConfig, ClassConfig, ClusterConfig, Config, ControlConfig,
    DrainConfig, EdgeConfig, HttpConfig, LimitsConfig, LogConfig, MailConfig, NatsConfig, NodeConfig,
    PresenceConfig, QueueConfig, QuotasConfig, RevocationsConfig, StoreConfig, StreamConfig, StreamsConfig,
    TelemetryConfig, TenantsConfig, UsageConfig, UsersConfig,
    fields::{Fields, Section},
    kinds::{
        Address, Class, Compatible, Count, CountOrNone, Encryption, FilePath, Flag, Hidden, HiddenList, Id,
        IfGiven, Inner, Json, Kept, Listeners, Maybe, Size, Tables, Text, Texts, Time, TooSoon, Transport,
        Who, WhoSignsUp,
    },
    show::Lines,
};
use crate::model::{Quotas, Rule, SchemaVersion};

macro_rules! section {
    ($type:ident { $($key:ident: $kind:ty),+ $(,)? }) => {
        impl Section for $type {
            fn read(fields: &mut Fields<'_>) -> Option<Self> {
                // All keys are read before the first that is missing ends it.
                $(let $key = fields.take::<$kind, _>(stringify!($key));)+
                Some(Self { $($key: $key?),+ })
            }

            fn write(&self, out: &mut Lines) {
                use super::fields::Kind;
                $(<$kind as Kind<_>>::write(&self.$key, stringify!($key), out);)+
            }
        }
    };
}

section!(Config {
    node: Inner,
    http: Inner,
    nats: Inner,
    log: Inner,
    channel: Inner,
    catchup: Inner,
    edge: Inner,
    cluster: Inner,
    users: Inner,
    quotas: Inner,
    revocations: Inner,
    presence: Inner,
    queue: Inner,
    tenants: Inner,
    store: Inner,
    usage: Inner,
    control: Inner,
    mail: Inner,
    drain: Inner,
    telemetry: Inner,
    apps: Tables<false>,
});

section!(NodeConfig {
    name: Text,
    default_app: Maybe<Id>,
});

section!(HttpConfig {
    listen: Address,
    backlog: Count,
    header_timeout: Time,
    idle_timeout: Time,
    body_timeout: Time,
    max_header_bytes: Size,
    max_body_bytes: Size,
    max_json_depth: Count,
    max_answer_bytes: Size,
    max_history_bytes: Size,
    max_in_flight: Count,
    max_surveys: Count,
    max_surveys_per_app: Count,
    expose_operations: Flag,
});

section!(NatsConfig {
    servers: Texts,
    user: Maybe<Text>,
    password: Hidden,
    token: Hidden,
    credentials: Maybe<FilePath>,
    ca_file: Maybe<FilePath>,
    connect_timeout: Time,
    ping_interval: Time,
    max_reconnect_delay: Time,
    start_timeout: Time,
    request_timeout: Time,
    request_timeout_max: Time,
    subscription_capacity: Count,
    watch_capacity: Count,
    answer_bytes: Size,
    command_capacity: Count,
});

section!(LogConfig {
    prefix: Text,
    classes: Tables<true>,
    max_in_flight: Count,
    ack_timeout: Time,
    mark_interval: Time,
    clock_margin: Time,
    streams: Inner,
});

section!(StreamsConfig {
    usage: Inner,
    overflow: Inner,
    events: Inner,
});

section!(StreamConfig {
    max_age: Time,
    max_bytes: Size,
    duplicate_window: Time,
    replicas: Count,
});

section!(ClassConfig {
    name: Class,
    shards: Count,
    max_age: Time,
    max_bytes: Size,
    max_per_channel: CountOrNone,
    duplicate_window: Time,
    replicas: Count,
    placement_tags: Texts,
});

section!(ChannelConfig {
    max_tails: Count,
    linger: Time,
    ring_messages: Count,
    ring_bytes: Size,
    rings_bytes: Size,
    ring_idle: Time,
    eager_subscribers: Count,
    gap_bytes: Size,
    subscribe_timeout: Time,
    check_interval: Time,
    check_after_interest: Time,
    peer_wait: Time,
});

section!(CatchupConfig {
    page_messages: Count,
    page_bytes: Size,
    in_flight_bytes: Size,
    ahead_bytes: Size,
    leader_reads: Count,
    max_waiting: Count,
    short_reads: Count,
    sweep_from: Count,
    sweep_bytes: Size,
    sweep_linger: Time,
});

section!(EdgeConfig {
    max_connections: Count,
    max_connections_per_ip: Count,
    trusted_proxies: Texts,
    connect_rate: Count,
    connect_delay_target: Time,
    connect_delay_interval: Time,
    connect_timeout: Time,
    ping_interval: Time,
    pong_timeout: Time,
    max_message_bytes: Size,
    max_channels: Count,
    max_in_flight: Count,
    mailbox_bytes: Size,
    mailbox_max_bytes: Size,
    write_timeout: Time,
    close_timeout: Time,
    min_drain_rate: Size,
    drain_window: Time,
    send_buffer: Size,
    notsent_lowat: Size,
});

section!(ClusterConfig {
    secret: Hidden,
    address: Text,
    lease: Time,
    renew_interval: Time,
    show_gone: Time,
    ask_timeout: Time,
});

section!(UsersConfig {
    max_payload_bytes: Size,
    max_in_flight: Count,
    max_waiting: Count,
});

section!(QuotasConfig {
    interval: Time,
    flush_interval: Time,
    warn_at: Count,
    warn_pause: Time,
});

section!(RevocationsConfig {
    default_ttl: Time,
    max_ttl: Time,
    max_per_app: Count,
});

section!(PresenceConfig {
    flush_interval: Time,
    digest_interval: Time,
    grace: Time,
    query_timeout: Time,
    linger: Time,
    join_leave_max: Count,
    max_members: Count,
    max_answer_members: Count,
    max_info_bytes: Size,
    max_state_bytes: Size,
    state_rate: Count,
    max_channels: Count,
});

section!(StoreConfig {
    url: Hidden,
    timeout: Time,
    queue: Count,
    max_in_flight: Count,
    readers: Count,
});

section!(UsageConfig {
    flush_interval: Time,
    max_waiting: Count,
    max_namespaces: Count,
    fold_concurrency: Count,
    fold_timeout: Time,
    max_retry_delay: Time,
    keep_minutes: Time,
    keep_hours: Time,
    keep_days: Time,
    sweep_interval: Time,
    max_rows: Count,
});

section!(ControlConfig {
    sign_up: WhoSignsUp,
    public_url: Text,
    session_secret: Hidden,
    operator_key: Hidden,
    default_plan: Text,
    access_lifetime: Time,
    session_idle: Time,
    session_lifetime: Time,
    refresh_grace: Time,
    session_check: Time,
    session_cache: Count,
    password_min: Count,
    password_max: Size,
    password_memory: Size,
    password_passes: Count,
    password_lanes: Count,
    password_threads: Count,
    password_waiting: Count,
    lockout_account: Count,
    lockout_address: Count,
    lockout_first: Time,
    lockout_max: Time,
    lockout_forget: Time,
    lockout_entries: Count,
    verification_lifetime: Time,
    reset_lifetime: Time,
    invitation_lifetime: Time,
    max_letters: Count,
    letters_per_address: Count,
    token_lifetime: Time,
    max_sessions: Count,
    max_tokens: Count,
    max_teams: Count,
    max_members: Count,
    max_invitations: Count,
    audit_retention: Time,
    write_tries: Count,
    account_rate: Count,
    address_rate: Count,
    idempotency_lifetime: Time,
    idempotency_rate: Count,
    idempotency_max_bytes: Size,
    reconcile_interval: Time,
    store_retry: Time,
    sweep_interval: Time,
    sweep_batch: Count,
});

section!(MailConfig {
    transport: Transport,
    folder: Maybe<FilePath>,
    host: Text,
    port: Count,
    encryption: Encryption,
    user: Maybe<Text>,
    password: Hidden,
    ca_file: Maybe<FilePath>,
    from: Text,
    timeout: Time,
    queue: Count,
    tries: Count,
    retry_first: Time,
    retry_max: Time,
});

section!(DrainConfig {
    grace: Time,
    duration: Time,
    linger: Time,
    deadline: Time,
});

section!(TelemetryConfig {
    filter: Text,
    json: Flag,
});

section!(QueueConfig {
    check_interval: Time,
    ack_wait: Time,
    max_age: Time,
    max_drains: Count,
    max_channels: Count,
});

section!(TenantsConfig {
    max_apps: Count,
    max_deleted_apps: Count,
    max_past_namespaces: Count,
    max_keys: Count,
    max_versions: Count,
    max_record_bytes: Size,
    max_namespaces: Count,
    max_origins: Count,
    max_public_keys: Count,
    max_queued: Count,
    max_queued_bytes: Size,
    max_rate_keys: Count,
    max_schemas: Count,
    max_schema_bytes: Size,
    max_schema_nodes: Count,
    max_schema_work: Count,
    schema_work_rate: Count,
    sealing_keys: HiddenList,
    private_urls: Flag,
});

section!(AppConfig {
    id: Id,
    api_keys: HiddenList,
    allowed_origins: Texts,
    anonymous: Flag,
    personal_namespace: Maybe<Text>,
    auth: IfGiven,
    limits: Inner,
    quotas: Inner,
    namespaces: Tables<false>,
});

section!(AuthConfig {
    hmac_secret: Hidden,
    public_keys: Texts,
    jwks_url: Maybe<Text>,
    jwks_ttl: Time,
    jwks_min_refresh: Time,
    jwks_max_stale: Time,
    jwks_timeout: Time,
    jwks_max_bytes: Size,
    jwks_max_keys: Count,
    max_token_bytes: Size,
    audience: Maybe<Text>,
    issuer: Maybe<Text>,
    leeway: Time,
});

section!(LimitsConfig {
    publish_rate: Count,
    publish_burst: Count,
    publish_bytes: Size,
    rate_channels: Count,
    user_publish_rate: Count,
    rate_users: Count,
    max_queued: Count,
    command_rate: Count,
    command_bytes: Size,
    max_refusals: Count,
    ring_bytes: Size,
    max_connections: Count,
    max_connections_per_user: Count,
    max_connections_per_ip: Count,
    max_channels: Count,
});

section!(Quotas {
    peak_connections: CountOrNone,
    messages_per_month: CountOrNone,
    messages_per_second: CountOrNone,
    channels: CountOrNone,
    presence_members: CountOrNone,
    history_seconds: CountOrNone,
    history_bytes: CountOrNone,
    message_bytes: CountOrNone,
    devices: CountOrNone,
    webhooks: CountOrNone,
    api_calls_per_second: CountOrNone,
});

section!(Rule {
    history: Kept,
    recovery: Flag,
    subscribe: Who,
    publish: Who,
    read_history: Who,
    presence: Flag,
    read_presence: Who,
    join_leave: Listeners,
    user_limited: Flag,
    max_size: Size,
    rate: Count,
    overflow: TooSoon,
    schema_compatibility: Compatible,
    schemas: Tables<false>,
});

section!(SchemaVersion {
    version: Count,
    schema: Json,
});

/// A namespace: its name beside the keys of its rule.
impl Section for (String, Rule) {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.take::<Text, _>("name");
        let rule = Rule::read(fields);
        Some((name?, rule?))
    }

    fn write(&self, out: &mut Lines) {
        out.value("name", super::show::quoted(&self.0));
        self.1.write(out);
    }
}
