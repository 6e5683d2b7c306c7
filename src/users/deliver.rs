//! What connections are told to do.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::wire::Action;
use crate::model::{BackendOrder, BackendSubscribe, ChannelName, Epoch, Position};

/// What each connection is told; `None` if nothing.
pub(super) fn order(action: &Action) -> Option<BackendOrder> {
    Some(match action {
        Action::Disconnect { code, reason, .. } => BackendOrder::Disconnect {
            code: *code,
            reason: reason.as_str().into(),
        },
        Action::Unsubscribe { channel } => BackendOrder::Unsubscribe(ChannelName::new(channel).ok()?),
        Action::Subscribe(subscribe) => BackendOrder::Subscribe(Box::new(BackendSubscribe {
            channel: ChannelName::new(&subscribe.channel).ok()?,
            info: subscribe.info.as_deref().map(bytes),
            data: subscribe.data.as_deref().map(bytes),
            recover: subscribe.recover_since.as_ref().map(|(offset, epoch)| Position {
                offset: *offset,
                epoch: Epoch::new(epoch),
            }),
            expires_at: subscribe.expire_at,
        })),
        Action::Refresh { expired: true, .. } => BackendOrder::Expire,
        Action::Refresh { expire_at, info, .. } => BackendOrder::Refresh {
            expires_at: *expire_at,
            info: info.as_deref().map(bytes),
        },
        Action::Message { data } => BackendOrder::Message(bytes(data)),
        Action::Online => return None,
    })
}

fn bytes(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}
