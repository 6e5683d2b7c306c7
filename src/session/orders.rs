use super::{
    Effect, Now, Session, Stage, SubscribeOrder, connect::Expiry, one_line, subscribe::listens,
    subscriptions::State,
};
use crate::{
    model::{BackendOrder, BackendSubscribe},
    protocol::{DisconnectCode, Push, Reply, UnsubscribeCode},
};

impl Session {
    /// A backend wants something done. Nothing is, unless the connect has been answered with success.
    pub fn on_order(&mut self, order: BackendOrder, now: Now, out: &mut Vec<Effect>) {
        if !self.is_connected() {
            return;
        }
        match order {
            BackendOrder::Disconnect { code, reason } => {
                self.stage = Stage::Closed;
                out.push(Effect::CloseWith { code, reason });
            }
            BackendOrder::Unsubscribe(channel) => {
                // Also one that is not there yet: it would be, after the backend was told that it ended.
                let known = self.subscriptions.find(channel.as_str());
                if let Some(generation) = known.map(|subscription| subscription.generation) {
                    self.on_unsubscribed_by_server(&channel, generation, UnsubscribeCode::Server, out);
                }
            }
            BackendOrder::Subscribe(subscribe) => self.subscribe_by_backend(*subscribe, now, out),
            BackendOrder::Expire => self.close(DisconnectCode::Expired, out),
            BackendOrder::Refresh { expires_at, info } => {
                let Some(expiry) = Expiry::new(expires_at, now) else {
                    return self.close(DisconnectCode::Expired, out);
                };
                self.until = expiry.until;
                if let Some(info) = info {
                    self.show_connection(Some(one_line(info)), out);
                }
                out.push(Effect::Send(Reply::Push(Push::Refresh { ttl: expiry.ttl })));
            }
            BackendOrder::Message(data) => {
                let data = one_line(data);
                out.push(Effect::Send(Reply::Push(Push::Message { data })));
            }
        }
    }

    /// A subscription of a connection that has it already is not made again, and one that may not be made
    /// (no such namespace, too many channels, past its time) not at all: a backend that wants to know asks
    /// before.
    fn subscribe_by_backend(&mut self, subscribe: BackendSubscribe, now: Now, out: &mut Vec<Effect>) {
        let BackendSubscribe {
            channel,
            info,
            data,
            recover,
            expires_at,
        } = subscribe;
        let Some(rule) = self.app.rules.rule(&channel).cloned() else {
            return;
        };
        let Some(expiry) = Expiry::new(expires_at, now) else {
            return;
        };
        let info = info.map(one_line);
        let member = self.member(&rule, info.as_ref());
        let state = State::Joining { id: 0 };
        let added = self
            .subscriptions
            .add(channel.clone(), state, self.max_channels());
        let Ok(subscription) = added else { return };
        subscription.server_side = true;
        subscription.by_token = true;
        subscription.info = info.map(Box::new);
        let generation = subscription.generation;
        self.subscriptions.set_expiry(channel.as_str(), expiry.until);
        out.push(Effect::SubscribeLater(Box::new(SubscribeOrder {
            id: 0,
            generation,
            channel,
            was_recovering: recover.is_some(),
            recover: recover.filter(|_| rule.recovery),
            reject_unrecovered: false,
            listens: listens(&rule, false),
            member,
            rule,
            server_side: true,
            ttl: expiry.ttl,
            data: data.map(one_line),
        })));
    }
}
