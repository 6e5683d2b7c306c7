use super::Checks;
use crate::config::{Config, ControlConfig, MailConfig, MailEncryption, MailTransport};

/// The least bytes of `control.session_secret`: what HMAC-SHA256 is worth.
const MIN_SESSION_SECRET: usize = 32;
/// argon2 refuses less than 8 KiB for each lane.
const MIN_MEMORY_PER_LANE: u64 = 8 * 1024;
const MAX_MEMORY: u64 = 4 << 30;
/// Sealed and in base64 it is still a document.
const MAX_ANSWER: usize = 512 * 1024;
/// What a store removes or lists at once.
const MAX_BATCH: usize = 1000;

pub(super) fn relations(config: &Config, checks: &mut Checks<'_>) {
    sessions(&config.control, checks);
    passwords(&config.control, checks);
    bounds(&config.control, checks);
    mail(&config.mail, checks);
}

fn sessions(control: &ControlConfig, checks: &mut Checks<'_>) {
    let secret = control.session_secret.as_ref();
    checks.that(
        secret.is_none_or(|secret| secret.expose().len() >= MIN_SESSION_SECRET),
        &["control.session_secret"],
        || format!("must have at least {MIN_SESSION_SECRET} bytes: `openssl rand -hex 32` makes one"),
    );
    let key = control.operator_key.as_ref();
    checks.that(
        key.is_none_or(|key| key.expose().len() >= MIN_SESSION_SECRET),
        &["control.operator_key"],
        || format!("must have at least {MIN_SESSION_SECRET} bytes: `openssl rand -hex 32` makes one"),
    );
    let url = &control.public_url;
    checks.that(
        url.is_empty()
            || (url.starts_with("https://") || url.starts_with("http://"))
                && !url.ends_with('/')
                && !url.contains(|c: char| c.is_whitespace() || c.is_control() || "#?<>".contains(c)),
        &["control.public_url"],
        || "must be a URL like https://console.example, without a slash at its end".to_owned(),
    );
    checks.not_zero(&[
        ("control.access_lifetime", control.access_lifetime),
        ("control.session_idle", control.session_idle),
        ("control.session_lifetime", control.session_lifetime),
        ("control.verification_lifetime", control.verification_lifetime),
        ("control.reset_lifetime", control.reset_lifetime),
        ("control.invitation_lifetime", control.invitation_lifetime),
        ("control.token_lifetime", control.token_lifetime),
        ("control.lockout_first", control.lockout_first),
        ("control.sweep_interval", control.sweep_interval),
        ("control.reconcile_interval", control.reconcile_interval),
        ("control.store_retry", control.store_retry),
        ("control.idempotency_lifetime", control.idempotency_lifetime),
    ]);
    checks.that(
        control.access_lifetime.subsec_nanos() == 0,
        &["control.access_lifetime"],
        || "must be whole seconds".to_owned(),
    );
    checks.shorter(
        ("control.access_lifetime", control.access_lifetime),
        ("control.session_idle", control.session_idle),
    );
    checks.shorter(
        ("control.refresh_grace", control.refresh_grace),
        ("control.access_lifetime", control.access_lifetime),
    );
    checks.that(
        control.session_check.as_secs() <= 60,
        &["control.session_check"],
        || "must be at most 1m: so long an ended session is still accepted".to_owned(),
    );
    checks.that(
        control.session_idle <= control.session_lifetime,
        &["control.session_idle", "control.session_lifetime"],
        || "must not be longer than control.session_lifetime".to_owned(),
    );
    checks.that(
        control.lockout_first <= control.lockout_max,
        &["control.lockout_first", "control.lockout_max"],
        || "must not be longer than control.lockout_max".to_owned(),
    );
    checks.shorter(
        ("control.lockout_max", control.lockout_max),
        ("control.lockout_forget", control.lockout_forget),
    );
}

fn passwords(control: &ControlConfig, checks: &mut Checks<'_>) {
    checks.not_zero(&[
        ("control.password_min", control.password_min),
        ("control.password_threads", control.password_threads),
    ]);
    checks.not_zero(&[
        ("control.password_passes", control.password_passes),
        ("control.password_lanes", control.password_lanes),
    ]);
    checks.that(
        control.password_min <= control.password_max && control.password_max <= 4096,
        &["control.password_max", "control.password_min"],
        || "must be at least control.password_min and at most 4KiB".to_owned(),
    );
    let least = u64::from(control.password_lanes).saturating_mul(MIN_MEMORY_PER_LANE);
    checks.that(
        (least..=MAX_MEMORY).contains(&control.password_memory),
        &["control.password_memory", "control.password_lanes"],
        || "must be at least 8KiB for each of control.password_lanes, and at most 4GiB".to_owned(),
    );
    checks.that(
        control.password_memory.is_multiple_of(1024),
        &["control.password_memory"],
        || "must be whole KiB".to_owned(),
    );
}

fn bounds(control: &ControlConfig, checks: &mut Checks<'_>) {
    checks.not_zero(&[
        ("control.session_cache", control.session_cache),
        ("control.lockout_entries", control.lockout_entries),
        ("control.max_letters", control.max_letters),
        ("control.max_sessions", control.max_sessions),
        ("control.max_tokens", control.max_tokens),
        ("control.max_teams", control.max_teams),
        ("control.max_members", control.max_members),
        ("control.max_invitations", control.max_invitations),
        ("control.sweep_batch", control.sweep_batch),
    ]);
    checks.not_zero(&[
        ("control.lockout_account", control.lockout_account),
        ("control.lockout_address", control.lockout_address),
        ("control.letters_per_address", control.letters_per_address),
        ("control.account_rate", control.account_rate),
        ("control.idempotency_rate", control.idempotency_rate),
        ("control.address_rate", control.address_rate),
        ("control.write_tries", control.write_tries),
    ]);
    let most = MAX_ANSWER;
    checks.that(
        control.idempotency_max_bytes <= most,
        &["control.idempotency_max_bytes"],
        || format!("must be at most {most} bytes: it is one document of the store, sealed"),
    );
    // They are listed to be counted, and a page has no more.
    for (key, value) in [
        ("control.max_letters", control.max_letters),
        ("control.max_sessions", control.max_sessions),
        ("control.max_tokens", control.max_tokens),
        ("control.max_teams", control.max_teams),
        ("control.max_members", control.max_members),
        ("control.max_invitations", control.max_invitations),
        ("control.sweep_batch", control.sweep_batch),
    ] {
        let most = MAX_BATCH;
        checks.that(value <= most, &[key], || format!("must be at most {most}"));
    }
}

fn mail(mail: &MailConfig, checks: &mut Checks<'_>) {
    checks.not_zero(&[("mail.tries", mail.tries)]);
    checks.not_zero(&[("mail.queue", mail.queue)]);
    checks.not_zero(&[
        ("mail.timeout", mail.timeout),
        ("mail.retry_first", mail.retry_first),
    ]);
    checks.that(
        mail.retry_first <= mail.retry_max,
        &["mail.retry_first", "mail.retry_max"],
        || "must not be longer than mail.retry_max".to_owned(),
    );
    checks.that(
        mail.user.is_some() == mail.password.is_some(),
        &["mail.user", "mail.password"],
        || "goes with mail.password: give both or neither".to_owned(),
    );
    checks.that(
        mail.user.is_none() || mail.encryption != MailEncryption::None,
        &["mail.encryption", "mail.user"],
        || "must not be \"none\" with a password".to_owned(),
    );
    let transport = mail.transport;
    checks.that(
        transport != MailTransport::File || mail.folder.is_some(),
        &["mail.folder", "mail.transport"],
        || "must name a folder for the transport \"file\"".to_owned(),
    );
    checks.that(
        transport != MailTransport::Smtp || !mail.host.is_empty(),
        &["mail.host", "mail.transport"],
        || "must name the server for the transport \"smtp\"".to_owned(),
    );
    checks.that(
        transport == MailTransport::None || mail.from.contains('@'),
        &["mail.from", "mail.transport"],
        || "must be an address, like \"Slipstream <noreply@console.example>\"".to_owned(),
    );
}
