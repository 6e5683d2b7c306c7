//! What a session orders and has to wait for: tokens, joins, publishes, history.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::future::Abortable;
use parking_lot::Mutex;

use crate::{
    apps::App,
    channel::{
        HistoryError, HistoryRead, Hub, Mailbox, Outlet, Published, Resume, SubscribeError, Subscription,
        TooManyTails,
    },
    model::{ChannelName, ConnectClaims, Epoch, SubscribeClaims, TokenError, TokenFacts},
    presence::{Admitted, Member, PresenceError},
    protocol::{ErrorCode, HistoryPage, PublishResult, Push, Reply, ServerSubscription},
    publish::Target,
    session::{
        self, Effect, Generation, HistoryOrder, PresenceAnswer, PresenceOrder, PublishOrder, Refusal,
        SubscribeOrder,
    },
    telemetry::{AuthFailure, Limit, Metrics},
};

mod joins;

pub(super) use joins::{Attached, Joins};

use super::{
    frames,
    gateway::Gateway,
    handler::{Caller, HandlerError},
};

/// An order under way.
pub(super) type Order = Pin<Box<dyn Future<Output = Completion> + Send>>;

/// What became of an order.
pub(super) enum Completion {
    ConnectVerified(Result<ConnectClaims, TokenError>),
    RefreshVerified {
        id: u32,
        result: Result<ConnectClaims, TokenError>,
    },
    SubscribeVerified {
        channel: ChannelName,
        generation: Generation,
        result: Result<SubscribeClaims, TokenError>,
    },
    SubRefreshVerified {
        id: u32,
        channel: ChannelName,
        generation: Generation,
        result: Result<SubscribeClaims, TokenError>,
    },
    Subscribed {
        channel: ChannelName,
        generation: Generation,
        result: Result<Attached, ErrorCode>,
    },
    ServerSubscribed(Result<Vec<(Generation, Attached, ServerSubscription)>, ErrorCode>),
    Published {
        id: u32,
        result: Result<PublishResult, ErrorCode>,
    },
    /// The same, with words of its own.
    NotPublished {
        id: u32,
        code: ErrorCode,
        message: String,
    },
    History {
        id: u32,
        result: Result<HistoryPage, ErrorCode>,
    },
    Presence {
        id: u32,
        result: Result<PresenceAnswer, ErrorCode>,
    },
    Rpc {
        id: u32,
        result: Result<Bytes, Refusal>,
    },
    Told,
    /// The client unsubscribed before it was joined.
    Abandoned,
}

/// Starts what an effect asks for. Publishes take their place in the log's order at once.
pub(super) fn order(
    effect: Effect,
    gateway: &Arc<Gateway>,
    app: &Arc<App>,
    mailbox: &Arc<Mailbox>,
    joins: &mut Joins,
) -> Order {
    let effect = match effect {
        // By far the most frequent, and over before it is awaited: it needs no shares of its own.
        Effect::Publish(order) => return publish(gateway, app, order),
        other => other,
    };
    let (app, hub, metrics) = (app.clone(), gateway.hub.clone(), gateway.metrics.clone());
    let gateway = gateway.clone();
    match effect {
        Effect::VerifyConnect { token } => Box::pin(async move {
            let result = app.verify_connect(token.as_str()).await;
            let result = result.and_then(|claims| not_revoked(&gateway, &app, claims));
            Completion::ConnectVerified(noted(result, &metrics))
        }),
        Effect::VerifyRefresh { id, token } => Box::pin(async move {
            let result = app.verify_connect(token.as_str()).await;
            let result = noted(
                result.and_then(|claims| not_revoked(&gateway, &app, claims)),
                &metrics,
            );
            Completion::RefreshVerified { id, result }
        }),
        Effect::VerifySubscribe {
            channel,
            generation,
            token,
        } => Box::pin(async move {
            let result = app.verify_subscribe(token.as_str()).await;
            let result = noted(
                result.and_then(|claims| not_revoked(&gateway, &app, claims)),
                &metrics,
            );
            Completion::SubscribeVerified {
                channel,
                generation,
                result,
            }
        }),
        Effect::VerifySubRefresh {
            id,
            channel,
            generation,
            token,
        } => Box::pin(async move {
            let result = app.verify_subscribe(token.as_str()).await;
            let result = noted(
                result.and_then(|claims| not_revoked(&gateway, &app, claims)),
                &metrics,
            );
            Completion::SubRefreshVerified {
                id,
                channel,
                generation,
                result,
            }
        }),
        Effect::Subscribe(order) | Effect::SubscribeLater(order) => {
            let (channel, generation) = (order.channel.clone(), order.generation);
            let registration = joins.begin(generation);
            let mailbox = mailbox.clone();
            let joining = async move {
                let result = subscribe(&gateway, &app, &mailbox, &order).await;
                Completion::Subscribed {
                    channel,
                    generation,
                    result,
                }
            };
            let joining = Abortable::new(joining, registration);
            Box::pin(async move { joining.await.unwrap_or(Completion::Abandoned) })
        }
        Effect::SubscribeAll(orders) => {
            let mailbox = mailbox.clone();
            Box::pin(async move {
                let mut joined = Vec::with_capacity(orders.len());
                for order in &orders {
                    match subscribe_server_side(&gateway, &app, &mailbox, order).await {
                        Ok((subscription, told)) => joined.push((order.generation, subscription, told)),
                        Err(code) => return Completion::ServerSubscribed(Err(code)),
                    }
                }
                Completion::ServerSubscribed(Ok(joined))
            })
        }
        Effect::History(order) => Box::pin(history(hub, app, *order)),
        Effect::Presence(order) => Box::pin(who_is_there(gateway.clone(), app, order)),
        // Above, or carried out by the connection itself.
        Effect::Publish(_)
        | Effect::Send(_)
        | Effect::Ping
        | Effect::Unsubscribe { .. }
        | Effect::Update { .. }
        | Effect::Show { .. }
        | Effect::Rpc { .. }
        | Effect::Message(_)
        | Effect::Close(_)
        | Effect::CloseWith { .. } => Box::pin(std::future::ready(Completion::Abandoned)),
    }
}

/// Claims of either kind of token.
trait Claims {
    fn said(&self) -> (&str, &TokenFacts);
}

impl Claims for ConnectClaims {
    fn said(&self) -> (&str, &TokenFacts) {
        (&self.user, &self.facts)
    }
}

impl Claims for SubscribeClaims {
    fn said(&self) -> (&str, &TokenFacts) {
        (&self.user, &self.facts)
    }
}

fn not_revoked<C: Claims>(gateway: &Gateway, app: &App, claims: C) -> Result<C, TokenError> {
    let (user, facts) = claims.said();
    gateway.revocations.check(&app.id, user, facts)?;
    if let Some(key) = &facts.key {
        gateway.metrics.app(&app.id).usage.key_used(key);
    }
    Ok(claims)
}

/// Counts a token that was not accepted.
fn noted<T>(result: Result<T, TokenError>, metrics: &Metrics) -> Result<T, TokenError> {
    let why = match &result {
        Ok(_) => return result,
        Err(TokenError::Expired) => AuthFailure::Expired,
        Err(TokenError::REVOKED) => AuthFailure::Revoked,
        Err(TokenError::Invalid(_)) => AuthFailure::Invalid,
        Err(TokenError::Unavailable) => AuthFailure::Jwks,
    };
    metrics.auth_failures.of(why).inc();
    result
}

async fn subscribe(
    gateway: &Gateway,
    app: &App,
    mailbox: &Arc<Mailbox>,
    order: &SubscribeOrder,
) -> Result<Attached, ErrorCode> {
    let admitted = admit(gateway, app, order)?;
    let (route, resume, outlet) = parts(&gateway.hub, app, mailbox, order)?;
    let reply = |told: crate::channel::Subscribed<'_>| {
        let result = order.result(told.position, told.recovered);
        if !order.server_side {
            return mailbox.send(frames::subscribe_reply(order.id, &result, told.missed));
        }
        let channel = order.channel.clone();
        mailbox.send(frames::reply(&Reply::Push(Push::Subscribe { channel, result })));
        for missed in told.missed {
            mailbox.send(missed.frame().clone());
        }
    };
    let subscribing = gateway.hub.subscribe(&route, resume, outlet, reply);
    let subscription = subscribing
        .await
        .map_err(|error| subscribe_error(&error, gateway, app))?;
    Ok(attach(mailbox, order, subscription, admitted))
}

/// A place among the members of a channel, if there are any.
fn admit(gateway: &Gateway, app: &App, order: &SubscribeOrder) -> Result<Option<Admitted>, ErrorCode> {
    let Some(info) = &order.member else {
        return Ok(None);
    };
    let member = Member {
        client: info.client.as_str().into(),
        user: info.user.as_str().into(),
        joined_ms: 0,
        conn_info: info.conn_info.clone(),
        chan_info: info.chan_info.clone(),
        state: None,
    };
    let most = app.quotas.presence_members;
    let admitted = gateway.presence.admit(&app.id, &order.channel, member, most);
    admitted.map(Some).map_err(presence_error)
}

/// What a subscription holds, once the client has been told of it.
fn attach(
    mailbox: &Arc<Mailbox>,
    order: &SubscribeOrder,
    subscription: Subscription,
    admitted: Option<Admitted>,
) -> Attached {
    // Without members there is nothing to hear of: `join_leave` needs `presence`.
    let membership = admitted.map(|admitted| admitted.join(order.listens.then(|| mailbox.clone())));
    Attached {
        _subscription: subscription,
        membership,
    }
}

/// The codes of an application's own errors: others mean something else to SDKs.
const OWN_CODES: std::ops::RangeInclusive<u32> = 400..=1_999;

/// A call of the application: what it answers is one line of JSON for the client, or it is its mistake.
pub(super) fn call(gateway: &Gateway, caller: Caller, id: u32, method: Box<str>, data: Bytes) -> Order {
    let handler = gateway.handler.clone();
    Box::pin(async move {
        let Some(handler) = handler else {
            let result = Err(Refusal::Code(ErrorCode::NotAvailable));
            return Completion::Rpc { id, result };
        };
        let result = match handler.rpc(caller, &method, data).await {
            Ok(answer) if serde_json::from_slice::<&serde_json::value::RawValue>(&answer).is_ok() => {
                Ok(session::one_line(answer))
            }
            Ok(_) => Err(Refusal::Code(ErrorCode::Internal)),
            Err(HandlerError { code, .. }) if !OWN_CODES.contains(&code) => {
                Err(Refusal::Code(ErrorCode::Internal))
            }
            Err(HandlerError {
                code,
                message,
                temporary,
            }) => Err(Refusal::Own {
                code,
                message: message.into(),
                temporary,
            }),
        };
        Completion::Rpc { id, result }
    })
}

/// A message to the application.
pub(super) fn tell(gateway: &Gateway, caller: Caller, data: Bytes) -> Order {
    let handler = gateway.handler.clone();
    Box::pin(async move {
        if let Some(handler) = handler {
            handler.message(caller, data).await;
        }
        Completion::Told
    })
}

async fn who_is_there(gateway: Arc<Gateway>, app: Arc<App>, order: PresenceOrder) -> Completion {
    let PresenceOrder { id, channel, count } = order;
    let presence = &gateway.presence;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let result = if count {
        let stats = presence.stats(&app.id, &channel).await;
        stats.map_err(presence_error).and_then(|stats| {
            let answer = PresenceAnswer::Counts {
                clients: number(stats.connections),
                users: number(stats.users),
            };
            // The protocol has no word for an answer that may lack somebody.
            stats.complete.then_some(answer).ok_or(ErrorCode::Internal)
        })
    } else {
        let most = gateway.presence.max_answer_members();
        let page = presence.members(&app.id, &channel, None, most).await;
        page.map_err(presence_error).and_then(|page| {
            if page.next.is_some() {
                return Err(ErrorCode::LimitExceeded);
            }
            let members = page.members.iter().map(|member| frames::present(member));
            let answer = PresenceAnswer::Members(members.collect());
            page.complete.then_some(answer).ok_or(ErrorCode::Internal)
        })
    };
    Completion::Presence { id, result }
}

fn presence_error(error: PresenceError) -> ErrorCode {
    match error {
        PresenceError::TooManyChannels | PresenceError::TooOften => ErrorCode::TooManyRequests,
        PresenceError::TooManyMembers | PresenceError::InfoTooLarge | PresenceError::StateTooLarge => {
            ErrorCode::LimitExceeded
        }
    }
}

async fn subscribe_server_side(
    gateway: &Gateway,
    app: &App,
    mailbox: &Arc<Mailbox>,
    order: &SubscribeOrder,
) -> Result<(Attached, ServerSubscription), ErrorCode> {
    let admitted = admit(gateway, app, order)?;
    let (route, resume, outlet) = parts(&gateway.hub, app, mailbox, order)?;
    let told = Mutex::new(None);
    let reply = |subscribed: crate::channel::Subscribed<'_>| {
        *told.lock() = Some(ServerSubscription {
            channel: order.channel.clone(),
            bodies: subscribed.missed.iter().map(|entry| entry.body()).collect(),
            result: order.result(subscribed.position, subscribed.recovered),
        });
    };
    let subscribing = gateway.hub.subscribe(&route, resume, outlet, reply);
    let subscription = subscribing
        .await
        .map_err(|error| subscribe_error(&error, gateway, app))?;
    let told = told.into_inner().ok_or(ErrorCode::Internal)?;
    let attached = attach(mailbox, order, subscription, admitted);
    Ok((attached, told))
}

fn parts(
    hub: &Arc<Hub>,
    app: &App,
    mailbox: &Arc<Mailbox>,
    order: &SubscribeOrder,
) -> Result<(crate::log::Route, Resume, Outlet), ErrorCode> {
    let route = hub.route(&app.id, &order.channel, &order.rule.history);
    let route = route.ok_or(ErrorCode::Internal)?;
    let resume = Resume {
        position: order.recover.clone(),
        reject_unrecovered: order.reject_unrecovered,
    };
    let outlet = Outlet::new(mailbox.clone(), order.channel.clone(), order.generation.0);
    Ok((route, resume, outlet))
}

fn publish(gateway: &Gateway, app: &App, order: PublishOrder) -> Order {
    let PublishOrder {
        id,
        channel,
        rule,
        record,
        idempotency_key,
    } = order;
    let target = Target { channel, rule };
    match gateway
        .publisher
        .publish(app, &target, &record, idempotency_key.as_deref(), None)
    {
        Ok(acknowledged) => Box::pin(async move {
            let result = acknowledged.await.map_err(|error| error.code());
            let result = result.map(
                |Published {
                     position, duplicate, ..
                 }| PublishResult { position, duplicate },
            );
            Completion::Published { id, result }
        }),
        Err(error) => Box::pin(std::future::ready(Completion::refused(id, &error))),
    }
}

async fn history(hub: Arc<Hub>, app: Arc<App>, order: HistoryOrder) -> Completion {
    let HistoryOrder {
        id,
        channel,
        rule,
        query,
    } = order;
    let Some(route) = hub.route(&app.id, &channel, &rule.history) else {
        return Completion::History {
            id,
            result: Err(ErrorCode::Internal),
        };
    };
    let read = HistoryRead {
        since: query.since,
        epoch: query.since.map(|_| Epoch::new(&query.epoch)),
        from_ms: query.since_time.map(millis),
        to_ms: query.until_time.map(millis),
        limit: usize::try_from(query.limit).unwrap_or(0),
        reverse: query.reverse,
    };
    let result = match hub.history(&route, read).await {
        Ok(page) => Ok(HistoryPage {
            publications: page.publications,
            top: page.top,
        }),
        Err(HistoryError::NoHistory) => Err(ErrorCode::NotAvailable),
        Err(HistoryError::OtherEpoch) => Err(ErrorCode::UnrecoverablePosition),
        Err(HistoryError::TimedOut) => Err(ErrorCode::Internal),
    };
    Completion::History { id, result }
}

fn millis(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn subscribe_error(error: &SubscribeError, gateway: &Gateway, app: &App) -> ErrorCode {
    match error {
        SubscribeError::TimedOut | SubscribeError::Closed => ErrorCode::Internal,
        SubscribeError::Unrecoverable => ErrorCode::UnrecoverablePosition,
        SubscribeError::TooManyTails(TooManyTails(limit)) => {
            gateway.metrics.app(&app.id).limits_hit.of(*limit).inc();
            match limit {
                // Another node has no more of it, either.
                Limit::QuotaChannels => ErrorCode::LimitExceeded,
                _ => ErrorCode::TooManyRequests,
            }
        }
    }
}
