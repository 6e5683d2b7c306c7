use crate::{log::PublishError, protocol::ErrorCode};

/// What a client is told of a publish that the log did not acknowledge.
pub fn publish_failure(error: &PublishError) -> ErrorCode {
    match error {
        // Nothing was sent, so the client may safely try again.
        PublishError::Unavailable(_) => ErrorCode::TooManyRequests,
        PublishError::Refused(_) | PublishError::Full => ErrorCode::NotAvailable,
        PublishError::Unknown => ErrorCode::OutcomeUnknown,
    }
}
