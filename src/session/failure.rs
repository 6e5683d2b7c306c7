use crate::{
    log::{PublishError, ReadError},
    protocol::ErrorCode,
};

/// What a client is told of a publish that the log did not acknowledge.
pub fn publish_failure(error: &PublishError) -> ErrorCode {
    match error {
        // Nothing was sent, so the client may safely try again.
        PublishError::Unavailable(_) => ErrorCode::TooManyRequests,
        PublishError::Refused(_) => ErrorCode::NotAvailable,
        PublishError::Unknown => ErrorCode::OutcomeUnknown,
    }
}

/// What a client is told of a read that has no answer.
pub fn read_failure(error: &ReadError) -> ErrorCode {
    match error {
        // Temporary also if the log says it is for good: the client has no part in it, and keeps
        // its position (rule L9).
        ReadError::NoAnswer | ReadError::NotNow(_) | ReadError::Failed(_) => ErrorCode::Internal,
    }
}
