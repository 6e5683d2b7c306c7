//! Many publications of one request: in order, a few at a time.

use std::future::Future;

use futures_util::{StreamExt, stream::FuturesOrdered};

use crate::{channel::Published, publish::PublishError};

/// Why one publication of many was not published, in the words of the API that was called.
pub(super) trait Failure: From<PublishError> {
    /// It was not sent, and may safely be sent again.
    fn not_sent() -> Self;

    /// The log took nothing, or did not answer.
    fn is_of_log(&self) -> bool;
}

/// Sends `items` in their order, `most` at once, and hands out the results in the same order. Once
/// the log has failed nothing more is sent: a dead log is waited for once, not once for each.
pub(super) async fn publish_all<T, F, E>(
    most: usize,
    items: impl IntoIterator<Item = T>,
    mut send: impl FnMut(T) -> Result<F, E>,
    mut done: impl FnMut(Result<Published, E>),
) where
    F: Future<Output = Result<Published, PublishError>>,
    E: Failure,
{
    let mut under_way = FuturesOrdered::new();
    let mut failing = false;
    for item in items {
        if under_way.len() >= most
            && let Some(result) = under_way.next().await
        {
            failing |= matches!(&result, Err(error) if E::is_of_log(error));
            done(result);
        }
        let sent = if failing { Err(E::not_sent()) } else { send(item) };
        failing |= matches!(&sent, Err(error) if E::is_of_log(error));
        under_way.push_back(async move { sent?.await.map_err(E::from) });
    }
    while let Some(result) = under_way.next().await {
        done(result);
    }
}
