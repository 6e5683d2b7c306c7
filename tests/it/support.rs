//! What the integration tests share.

pub(crate) mod checker;
pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod corpus;
pub(crate) mod dice;
pub(crate) mod edge;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod mongowire;
pub(crate) mod nats;
pub(crate) mod people;
pub(crate) mod proxy;
pub(crate) mod publisher;
pub(crate) mod raw;
pub(crate) mod tls;
pub(crate) mod token;

use std::{future::Future, time::Duration};

/// No await of a test may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits `future`, but not for ever.
#[track_caller]
pub(crate) fn within<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("nothing came within {PATIENCE:?} at {caller}"),
        }
    }
}

/// Asks again and again until there is an answer, at most for [`PATIENCE`]. Only for what tells
/// nobody when it changes.
pub(crate) async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(value) = ask().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match asked.await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Waits until something holds, in the same way.
pub(crate) async fn holds(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || std::future::ready(holds().then_some(()))).await;
}
