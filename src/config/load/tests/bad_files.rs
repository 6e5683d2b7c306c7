use std::fmt::Write;

use super::{load, problems};

/// Bad files and all that is said about them, in order.
#[test]
fn all_problems_at_once() {
    let app = |rest: &str| format!("[[apps]]\nid = \"a\"\nanonymous = true\n{rest}");
    let namespace = |rest: &str| app(&format!("[[apps.namespaces]]\nsubscribe = \"anyone\"\n{rest}"));
    let auth = |rest: &str| app(&format!("[apps.auth]\n{rest}"));
    let table: Vec<(String, &[&str])> = vec![
        (
            "edge.pong_timeout = \"30s\"\nedge.ping_intervall = \"1s\"\nhttp.backlog = -1\n[nope]\n".to_owned(),
            &[
                "http.backlog (s.toml:3): must be a whole number, not negative and not too large for this key",
                "edge.ping_intervall (s.toml:2): unknown key; did you mean 'ping_interval'?",
                "nope (s.toml:4): unknown key; did you mean 'node'?",
                "edge.pong_timeout (s.toml:1): must be less than edge.ping_interval (25s)",
            ],
        ),
        (
            "presence.max_info_bytes = \"200KiB\"\npresence.max_state_bytes = \"100KiB\"".to_owned(),
            &["presence.max_info_bytes (s.toml:1): must be at most 256KiB together"],
        ),
        (
            "[control]\nsign_up = \"all\"\npublic_url = \"console.example\"\nsession_secret = \"short\"\nsession_check = \"2m\"\nrefresh_grace = \"10m\"\nsession_idle = \"91d\"\nlockout_max = \"2h\"\npassword_memory = \"4KiB\"\npassword_max = \"9B\"\nmax_tokens = 1001\nwrite_tries = 0".to_owned(),
            &[
                "control.sign_up (s.toml:2): must be open or invitation, in quotes",
                "control.session_secret (s.toml:4): must have at least 32 bytes",
                "control.public_url (s.toml:3): must be a URL like https://console.example",
                "control.refresh_grace (s.toml:6): must be less than control.access_lifetime (10m)",
                "control.session_check (s.toml:5): must be at most 1m",
                "control.session_idle (s.toml:7): must not be longer than control.session_lifetime",
                "control.lockout_max (s.toml:8): must be less than control.lockout_forget (1h)",
                "control.password_max (s.toml:10): must be at least control.password_min",
                "control.password_memory (s.toml:9): must be at least 8KiB for each",
                "control.write_tries (s.toml:12): must not be 0",
                "control.max_tokens (s.toml:11): must be at most 1000",
            ],
        ),
        (
            "[mail]\ntransport = \"smtp\"\nuser = \"u\"\nretry_max = \"1s\"\nencryption = \"none\"".to_owned(),
            &[
                "mail.retry_first (s.toml:1): must not be longer than mail.retry_max",
                "mail.user (s.toml:3): goes with mail.password",
                "mail.encryption (s.toml:5): must not be \"none\" with a password",
                "mail.host (s.toml:1): must name the server",
                "mail.from (s.toml:1): must be an address",
            ],
        ),
        // A relation with a value that cannot be read is not judged.
        (
            "edge.ping_interval = 5\nedge.pong_timeout = \"30s\"".to_owned(),
            &["edge.ping_interval (s.toml:1): must be a span of time like \"25s\" or \"1h30m\": whole numbers with d, h, m, s or ms"],
        ),
        (
            "a = \nhttp.listen = \"localhost:8000\"\nhttp = 1".to_owned(),
            &[
                "s.toml:1: not valid TOML: ",
                "s.toml:3: not valid TOML: duplicate key",
                "http.listen (s.toml:2): must be an IP address and a port",
                "a (s.toml:1): unknown key; ",
            ],
        ),
        (
            "http.max_body_bytes = \"64KB\"\nhttp.max_header_bytes = \"1KiB\"\nhttp.expose_operations = \"yes\"".to_owned(),
            &[
                "http.max_body_bytes (s.toml:1): must be a size like \"64KiB\"",
                "http.expose_operations (s.toml:3): must be true or false",
                "http.max_header_bytes (s.toml:2): must be at least 8KiB",
            ],
        ),
        (
            "nats.servers = [\"http://x\", \"nats://u:p@h\"]\nnats.user = \"u\"\nnats.token = \"t\"\nnats.request_timeout = \"3s\"".to_owned(),
            &[
                "nats.servers[0] (s.toml:1): must be a URL like nats://",
                "nats.servers[1] (s.toml:1): must not hold a user or password",
                "nats.user (s.toml:2): goes with nats.password",
                "nats (s.toml:1): has more than one of user, token and credentials",
                "nats.request_timeout (s.toml:4): must be less than channel.subscribe_timeout (3s)",
            ],
        ),
        (
            "log.prefix = \"a.b\"\nchannel.subscribe_timeout = \"5s\"\ndrain.deadline = \"12s\"\ntelemetry.filter = \"a=b=c\"".to_owned(),
            &[
                "log.prefix (s.toml:1): must be 1 to 32",
                "channel.subscribe_timeout (s.toml:2): must be less than 5s",
                "drain.deadline (s.toml:3): must be more than drain.grace, drain.duration and drain.linger together (15s)",
                "telemetry.filter (s.toml:4): must be a filter",
            ],
        ),
        // L6: enough checks within the life of a publication.
        (
            "[[log.classes]]\nname = \"none\"\n[[log.classes]]".to_owned(),
            &[
                "log.classes[0].name (s.toml:2): must be 1 to 16 of a-z and 0-9",
            ],
        ),
        (
            "[[log.classes]]\nreplicas = 2\nmax_age = \"59s\"\nduplicate_window = \"2m\"\nshards = 0\n[[log.classes]]".to_owned(),
            &[
                "log.classes[1].name (s.toml:6): is the same as log.classes[0].name",
                "log.classes[0].shards (s.toml:5): must be 1 to 1024",
                "log.classes[0].replicas (s.toml:2): must be 1, 3 or 5",
                "log.classes[0].max_age (s.toml:3): must be at least 6 times channel.check_interval (1m)",
                "log.classes[0].duplicate_window (s.toml:4): must not be more than its max_age (59s)",
            ],
        ),
        (
            "edge.mailbox_bytes = \"2MiB\"\ncatchup.page_bytes = \"9MiB\"\nchannel.ring_bytes = \"1GiB\"\nedge.max_channels = 0".to_owned(),
            &[
                "channel.ring_bytes (s.toml:3): must not be more than channel.rings_bytes (256MiB)",
                "catchup.page_bytes (s.toml:2): must not be more than catchup.in_flight_bytes (8MiB)",
                "edge.max_channels (s.toml:4): must not be 0",
                "edge.mailbox_bytes (s.toml:1): must not be more than edge.mailbox_max_bytes (1MiB)",
            ],
        ),
        (
            "node.default_app = \"b\"\n[[apps]]\nid = \"a\"\n[[apps]]\nid = \"a\"".to_owned(),
            &["node.default_app (s.toml:1): names no app", "apps[1].id (s.toml:5): is the same as apps[0].id"],
        ),
        (
            "[[apps]]\nid = \"unnamed\"".to_owned(),
            &["apps[0].id (s.toml:2): is reserved for connections that have not named their app yet"],
        ),
        (
            "[[apps]]\nid = \"A\"\n[[apps]]\nlimits.publish_rat = 1".to_owned(),
            &[
                "apps[0].id (s.toml:2): must be 1 to 32",
                "apps[1].id (s.toml:3): must be given: 1 to 32",
                "apps[1].limits.publish_rat (s.toml:4): unknown key; did you mean 'publish_rate'?",
            ],
        ),
        (
            app("api_keys = [\"k k\", \"x\"]\nallowed_origins = [\"*.shop.example\", \"shop.example\", \"*\", \"https://a/b\", \"a.*.b\"]\n[[apps]]\nid = \"b\"\napi_keys = [\"x\"]"),
            &[
                "apps[0].api_keys (s.toml:4): has a key that is empty or holds spaces",
                "apps[0].allowed_origins[3] (s.toml:5): must be an origin",
                "apps[0].allowed_origins[4] (s.toml:5): must be an origin",
                "apps[1].api_keys (s.toml:8): has a key that apps[0] has too",
            ],
        ),
        (
            app("limits.publish_burst = 1\nlimits.ring_bytes = \"1KiB\"\nlimits.max_connections = 60000\nlimits.rate_channels = 0"),
            &[
                "apps[0].limits.publish_burst (s.toml:4): does nothing without limits.publish_rate",
                "apps[0].limits.rate_channels (s.toml:7): must not be 0",
                "apps[0].limits.ring_bytes (s.toml:5): must be 0 (unlimited) or hold one ring",
                "apps[0].limits.max_connections (s.toml:6): must not be more than edge.max_connections (50000)",
            ],
        ),
        (auth("audience = \"x\""), &["apps[0].auth (s.toml:4): has no key to verify tokens with"]),
        (
            auth("hmac_secret = \"short\"\npublic_keys = [\"x\", \"-----BEGIN PRIVATE KEY-----\"]\njwks_url = \"ftp://x\"\njwks_ttl = \"0s\""),
            &[
                "apps[0].auth.hmac_secret (s.toml:5): must have at least 32 bytes",
                "apps[0].auth.public_keys[0] (s.toml:6): must be a public key in PEM",
                "apps[0].auth.public_keys[1] (s.toml:6): holds a private key",
                "apps[0].auth.jwks_url (s.toml:7): must be a URL that starts with https://",
                "apps[0].auth.jwks_ttl (s.toml:8): must not be 0",
            ],
        ),
        (
            namespace("join_leave = \"all\""),
            &["apps[0].namespaces[0].join_leave (s.toml:6): needs presence"],
        ),
        (
            namespace("presence = true\nread_presence = \"token\""),
            &["apps[0].namespaces[0].read_presence (s.toml:7): wants a token"],
        ),
        (
            app("personal_namespace = \"me\"\n[[apps.namespaces]]\nsubscribe = \"anyone\"\nname = \"me\""),
            &["apps[0].personal_namespace (s.toml:4): must be the name of one of the app's namespaces"],
        ),
        (
            namespace("recovery = true\nread_history = \"anyone\""),
            &[
                "apps[0].namespaces[0].recovery (s.toml:6): needs history",
                "apps[0].namespaces[0].read_history (s.toml:7): must be nobody where history is none",
            ],
        ),
        (
            namespace("history = \"long\"\npublish = \"token\"\nmax_size = \"256KiB\"\nname = \"a:b\""),
            &[
                "apps[0].namespaces[0].name (s.toml:9): must be short and without ':'",
                "apps[0].namespaces[0].history (s.toml:6): names no class",
                "apps[0].namespaces[0].max_size (s.toml:8): must be less than edge.max_message_bytes (128KiB)",
                "apps[0].namespaces[0].max_size (s.toml:8): must be less than channel.ring_bytes (256KiB)",
                "apps[0].namespaces[0].publish (s.toml:7): wants a token, but the app verifies none",
            ],
        ),
        (
            app("[[apps.namespaces]]\nsubscribe = \"subscriber\"\npublish = \"everybody\"\n[[apps.namespaces]]\nsubscribe = \"nobody\"\npublish = \"subscriber\""),
            &[
                "apps[0].namespaces[0].publish (s.toml:6): must be anyone, authenticated, token, subscriber or nobody",
                "apps[0].namespaces[1].name (s.toml:7): is the same as apps[0].namespaces[0].name",
                "apps[0].namespaces[0].subscribe (s.toml:5): cannot be subscriber",
                "apps[0].namespaces[1].publish (s.toml:9): is for subscribers, but subscribe is nobody",
            ],
        ),
        (
            "[[apps]]\nid = \"a\"\n[[apps.namespaces]]\nsubscribe = \"anyone\"".to_owned(),
            &["apps[0] (s.toml:1): lets nobody connect"],
        ),
        // L2: max_bytes is a safety net above the budgets of the apps.
        (
            namespace("history = \"std\"\n[apps.limits]\npublish_bytes = \"1MiB\""),
            &["log.classes[0]: has less room (shards times max_bytes) than its apps may store"],
        ),
        // 10 s of 99 bytes are 990, and 99 may come at once.
        (
            namespace("history = \"std\"\n[apps.limits]\npublish_bytes = \"99B\"\n[channel]\ncheck_interval = \"1s\"\n[[log.classes]]\nname = \"std\"\nshards = 1\nmax_age = \"10s\"\nduplicate_window = \"1s\"\nmax_bytes = \"1088B\""),
            &["log.classes[0] (s.toml:"],
        ),
        // Bounds of which nothing would get through.
        (
            "http = { body_timeout = \"0s\", max_json_depth = 0, max_answer_bytes = \"0B\" }\nnats = { answer_bytes = \"0B\" }\nedge.close_timeout = \"0s\"".to_owned(),
            &[
                "http.body_timeout (s.toml:1): must not be 0",
                "http.max_json_depth (s.toml:1): must not be 0",
                "http.max_answer_bytes (s.toml:1): must not be 0",
                "nats.answer_bytes (s.toml:2): must not be 0",
                "edge.close_timeout (s.toml:3): must not be 0",
            ],
        ),
        ("apps = 1\nlog = \"x\"".to_owned(), &["log (s.toml:2): must be a table of keys", "apps (s.toml:1): must be a list of tables"]),
        (
            "edge = { max_channels = 1.5, ping_interval = 1979-05-27 }\nedge2 = 3".to_owned(),
            &[
                "edge.ping_interval (s.toml:1): must be a span of time",
                "edge.max_channels (s.toml:1): must be a whole number",
                "edge2 (s.toml:2): unknown key; did you mean 'edge'?",
            ],
        ),
        (
            auth("hmac_secret = \"0123456789abcdef0123456789abcdef\"\njwks_max_keys = 0\nmax_token_bytes = \"0B\""),
            &[
                "apps[0].auth.jwks_max_keys (s.toml:6): must not be 0",
                "apps[0].auth.max_token_bytes (s.toml:7): must not be 0",
            ],
        ),
        (
            "edge.max_channels = 99999999999999999999999".to_owned(),
            &["edge.max_channels (s.toml:1): must be a whole number"],
        ),
    ];
    let mut wrong = String::new();
    for (file, expected) in table {
        let found = problems(load(&file));
        let same = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, start)| found.starts_with(start));
        if !same {
            let _ = writeln!(wrong, "{file}\nfound:    {found:#?}\nexpected: {expected:#?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_waits_is_too_old_for_us_long_before_it_is_for_nats() {
    let with = |queue, stream| {
        format!("[queue]\nmax_age = \"{queue}\"\n[log.streams.overflow]\nmax_age = \"{stream}\"\n")
    };
    assert_eq!(problems(load(&with("12h", "1d"))), [] as [String; 0]);
    for (queue, stream) in [("13h", "1d"), ("1d", "1d"), ("0s", "1d")] {
        assert_eq!(problems(load(&with(queue, stream))).len(), 1, "{queue} {stream}");
    }
}
