//! The application, as clients call it: `rpc` and `send` of the client protocol.

use std::{future::Future, pin::Pin};

use bytes::Bytes;

use crate::model::AppId;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its app.
    pub app: AppId,
    /// Its user; empty = anonymous.
    pub user: String,
    /// Its connection.
    pub client: String,
}

/// Why the application did not do what it was called for. The client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct HandlerError {
    /// 400 to 1999.
    pub code: u32,
    /// For the client's developers.
    pub message: String,
    /// Whether the same may succeed later.
    pub temporary: bool,
}

/// An answer that is waited for.
pub type Handled<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The application. As many calls and messages of a connection are under way as
/// `edge.max_in_flight` allows. A connection that ends does not wait for them: what a handler has begun
/// it may not finish.
pub trait Handler: Send + Sync + 'static {
    /// A client calls `method` with `data`, one line of JSON; the answer is JSON, too.
    fn rpc<'a>(
        &'a self,
        caller: Caller,
        method: &'a str,
        data: Bytes,
    ) -> Handled<'a, Result<Bytes, HandlerError>>;

    /// A client tells something, one line of JSON.
    fn message<'a>(&'a self, caller: Caller, data: Bytes) -> Handled<'a, ()>;
}
