//! Counts the bounds that a connection meets. The session, which has most of them, is pure: they are
//! read off what it decides.

use crate::{
    protocol::{DisconnectCode, ErrorCode, Reply},
    session::Effect,
    telemetry::{AppMetrics, Limit},
};

/// What came of a command at once. What an order has come to later is counted where it was refused.
pub(super) fn count_command(effects: &[Effect], metrics: &AppMetrics) {
    for effect in effects {
        let limit = match effect {
            Effect::Send(Reply::Error { code, .. }) => match code {
                ErrorCode::LimitExceeded => Limit::Channels,
                ErrorCode::TooManyRequests => Limit::ConnectionInFlight,
                _ => continue,
            },
            _ => continue,
        };
        metrics.limits_hit.of(limit).inc();
    }
}

/// The server closes the connection for what its token asks for, or for what is queued for it.
pub(super) fn count_close(code: DisconnectCode, metrics: &AppMetrics) {
    let limit = match code {
        DisconnectCode::ChannelLimit => Limit::Channels,
        DisconnectCode::Slow => Limit::Mailbox,
        _ => return,
    };
    metrics.limits_hit.of(limit).inc();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::AppId, telemetry::Metrics};

    #[test]
    fn each_bound_has_its_name() {
        let metrics = Metrics::new().app(&AppId::new("a").unwrap());
        let error = |code| Effect::Send(Reply::Error { id: 1, code });
        let effects = [
            error(ErrorCode::LimitExceeded),
            error(ErrorCode::TooManyRequests),
            error(ErrorCode::TooManyRequests),
            error(ErrorCode::PermissionDenied),
            Effect::Ping,
        ];
        count_command(&effects, &metrics);
        count_close(DisconnectCode::ChannelLimit, &metrics);
        count_close(DisconnectCode::Slow, &metrics);
        count_close(DisconnectCode::Shutdown, &metrics);
        let found = [Limit::Channels, Limit::ConnectionInFlight, Limit::Mailbox];
        assert_eq!(found.map(|limit| metrics.limits_hit.of(limit).get()), [2, 2, 1]);
    }
}
