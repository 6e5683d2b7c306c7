use bytes::Bytes;

use super::{Effect, Generation, NEVER, Now, Session, connect::Expiry, fail, one_line, subscriptions::State};
use crate::{
    model::{ChannelName, ConnectClaims, SubscribeClaims, TokenError},
    protocol::{DisconnectCode, ErrorCode, Reply, Token, UnsubscribeCode},
};

impl Session {
    pub(super) fn refresh(&mut self, id: u32, token: Token<'_>, out: &mut Vec<Effect>) {
        // A connection that does not expire has nothing to refresh: no SDK asks for it.
        if token.is_empty() || self.until == NEVER {
            return self.close(DisconnectCode::BadRequest, out);
        }
        if self.admit(id, out) {
            out.push(Effect::VerifyRefresh {
                id,
                token: token.into_owned(),
            });
        }
    }

    /// The result of [`Effect::VerifyRefresh`].
    pub fn on_refresh_verified(
        &mut self,
        id: u32,
        result: Result<ConnectClaims, TokenError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.landed();
        if !self.is_connected() {
            return;
        }
        let claims = match result {
            Ok(claims) if claims.user != self.identity.user => {
                return self.close(DisconnectCode::InvalidToken, out);
            }
            Ok(claims) => claims,
            Err(TokenError::Expired) => return self.close(DisconnectCode::Expired, out),
            Err(TokenError::Invalid(_)) => return self.close(DisconnectCode::InvalidToken, out),
            Err(TokenError::Unavailable) => return fail(id, ErrorCode::Internal, out),
        };
        let Some(expiry) = Expiry::new(claims.expires_at, now) else {
            return self.close(DisconnectCode::Expired, out);
        };
        self.until = expiry.until;
        self.show_connection(claims.info.map(one_line), out);
        let client = self.identity.client.as_str().into();
        out.push(Effect::Send(Reply::Refresh {
            id,
            client,
            ttl: expiry.ttl,
        }));
    }

    /// What others see of the connection from now on.
    pub(super) fn show_connection(&mut self, info: Option<Bytes>, out: &mut Vec<Effect>) {
        if self.identity.conn_info != info {
            self.identity.conn_info.clone_from(&info);
            out.push(Effect::Show {
                generation: None,
                info,
            });
        }
    }

    pub(super) fn sub_refresh(&mut self, id: u32, channel: &str, token: Token<'_>, out: &mut Vec<Effect>) {
        if token.is_empty() || ChannelName::new(channel).is_err() {
            return fail(id, ErrorCode::BadRequest, out);
        }
        let subscription = self.subscriptions.find(channel);
        let Some(subscription) = subscription.filter(|found| matches!(found.state, State::Active)) else {
            return fail(id, ErrorCode::PermissionDenied, out);
        };
        if subscription.until == NEVER {
            return self.close(DisconnectCode::BadRequest, out);
        }
        let (channel, generation) = (subscription.channel.clone(), subscription.generation);
        if self.admit(id, out) {
            out.push(Effect::VerifySubRefresh {
                id,
                channel,
                generation,
                token: token.into_owned(),
            });
        }
    }

    /// The result of [`Effect::VerifySubRefresh`].
    pub fn on_sub_refresh_verified(
        &mut self,
        id: u32,
        channel: &ChannelName,
        generation: Generation,
        result: Result<SubscribeClaims, TokenError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.landed();
        if !self.is_connected() {
            return;
        }
        if self.subscriptions.get(channel.as_str(), generation).is_none() {
            return fail(id, ErrorCode::PermissionDenied, out);
        }
        let claims = match result {
            Ok(claims) if !self.identity_matches(channel, &claims) => {
                return self.close(DisconnectCode::InvalidToken, out);
            }
            Ok(claims) => Some(claims),
            Err(TokenError::Expired) => None,
            Err(TokenError::Invalid(_)) => return self.close(DisconnectCode::InvalidToken, out),
            Err(TokenError::Unavailable) => return fail(id, ErrorCode::Internal, out),
        };
        let expiry = claims
            .as_ref()
            .and_then(|claims| Expiry::new(claims.expires_at, now));
        let (Some(claims), Some(expiry)) = (claims, expiry) else {
            // The push comes first: an SDK then subscribes again with a fresh token, and takes no
            // notice of the error, which alone would end the subscription for good.
            self.on_unsubscribed_by_server(channel, generation, UnsubscribeCode::Expired, out);
            if self.is_connected() {
                fail(id, ErrorCode::TokenExpired, out);
            }
            return;
        };
        self.subscriptions.set_expiry(channel.as_str(), expiry.until);
        if let Some(subscription) = self.subscriptions.get(channel.as_str(), generation) {
            let info = claims.info.map(one_line);
            if subscription.info.as_deref() != info.as_ref() {
                subscription.info = info.clone().map(Box::new);
                out.push(Effect::Show {
                    generation: Some(generation),
                    info,
                });
            }
        }
        out.push(Effect::Send(Reply::SubRefresh { id, ttl: expiry.ttl }));
    }
}
