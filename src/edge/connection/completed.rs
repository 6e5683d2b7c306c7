//! What orders came to: handed to the session, and a connection's place among those of its user.

use super::Connection;
use crate::{
    edge::orders::Completion,
    model::{ConnectClaims, TokenError, TokenFacts},
    protocol::DisconnectCode,
    publish::PublishError,
    telemetry::Limit,
};

impl Connection {
    pub(super) fn complete(&mut self, completion: Completion) {
        let completion = match completion {
            Completion::ConnectVerified(Ok(claims)) => {
                if !self.enter(&claims.user, Some(claims.facts.clone())) {
                    self.metrics.limits_hit.of(Limit::UserConnections).inc();
                    return self
                        .session
                        .close(DisconnectCode::ConnectionLimit, &mut self.effects);
                }
                Completion::ConnectVerified(self.still_good(claims))
            }
            Completion::RefreshVerified {
                id,
                result: Ok(claims),
            } => {
                let result = self.renewed(claims);
                Completion::RefreshVerified { id, result }
            }
            other => other,
        };
        self.hand_on(completion);
        if self.session.accepts_commands() && !self.session.is_connected() {
            // The connect was refused.
            self.place = None;
        }
    }

    /// Among the connections of its user, from before its connect is answered on: what a backend does
    /// to the user from then on reaches it. False if the user has as many as it may.
    pub(super) fn enter(&mut self, user: &str, facts: Option<TokenFacts>) -> bool {
        let most = self.admission.app().limits.max_connections_per_user;
        let (app, client, mailbox) = (
            &self.admission.app().id,
            self.session.client(),
            self.mailbox.clone(),
        );
        let users = &self.gateway.users;
        self.place = if most == 0 || user.is_empty() {
            Some(users.enter(app, user, client, facts, mailbox))
        } else {
            users.enter_within(most, app, user, client, facts, mailbox)
        };
        self.place.is_some()
    }

    fn renewed(&mut self, claims: ConnectClaims) -> Result<ConnectClaims, TokenError> {
        if let Some(place) = self.place.as_ref().filter(|_| claims.user == self.session.user()) {
            place.renew(claims.facts.clone());
        }
        self.still_good(claims)
    }

    /// Once more, now that a revocation would find the connection: the one that came between the check
    /// and this looked for it in vain.
    fn still_good(&self, claims: ConnectClaims) -> Result<ConnectClaims, TokenError> {
        let app = &self.admission.app().id;
        self.gateway.revocations.check(app, &claims.user, &claims.facts)?;
        if let Some(key) = &claims.facts.key
            && let Some(app) = self.gateway.apps.get(app.as_str())
            && app.has_retired(key)
        {
            return Err(TokenError::REVOKED);
        }
        Ok(claims)
    }

    fn hand_on(&mut self, completion: Completion) {
        let now = self.gateway.now();
        let (session, out) = (&mut self.session, &mut self.effects);
        match completion {
            Completion::ConnectVerified(result) => session.on_connect_verified(result, now, out),
            Completion::RefreshVerified { id, result } => session.on_refresh_verified(id, result, now, out),
            Completion::SubscribeVerified {
                channel,
                generation,
                result,
            } => {
                session.on_subscribe_verified(&channel, generation, result, now, out);
            }
            Completion::SubRefreshVerified {
                id,
                channel,
                generation,
                result,
            } => {
                session.on_sub_refresh_verified(id, &channel, generation, result, now, out);
            }
            Completion::Subscribed {
                channel,
                generation,
                result,
            } => {
                let result = self.joins.joined(generation, result, &self.metrics);
                session.on_subscribed(&channel, generation, result, out);
            }
            // Too late: dropping them leaves their tails.
            Completion::ServerSubscribed(_) if !session.awaits_server_subscriptions() => {}
            Completion::ServerSubscribed(result) => {
                let result = result.map(|joined| {
                    let told = joined.into_iter().map(|(generation, subscription, told)| {
                        // The order is all or none, so none of them can have been left since.
                        let _ = self.joins.joined(generation, Ok(subscription), &self.metrics);
                        told
                    });
                    told.collect()
                });
                session.on_server_subscribed(result, now, out);
            }
            Completion::Published { id, result } => session.on_published(id, result, out),
            Completion::NotPublished { id, code, message } => {
                session.on_not_published(id, code, message.into(), out);
            }
            Completion::History { id, result } => session.on_history(id, result, out),
            Completion::Presence { id, result } => session.on_presence(id, result, out),
            Completion::Rpc { id, result } => {
                session.on_handled();
                session.on_rpc(id, result, out);
            }
            Completion::Told => session.on_handled(),
            Completion::Abandoned => {}
        }
    }
}

impl Completion {
    /// A publication that was not sent.
    pub(in crate::edge) fn refused(id: u32, error: &PublishError) -> Self {
        let code = error.code();
        match error.explanation() {
            Some(message) => Self::NotPublished { id, code, message },
            None => Self::Published {
                id,
                result: Err(code),
            },
        }
    }
}
