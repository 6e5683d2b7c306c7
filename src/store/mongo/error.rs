//! What the driver reports, in the words of the trait. Messages of the server are never passed on: they
//! quote what was to be stored.

use mongodb::error::{Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR, WriteFailure};

use super::super::StoreError;

const DUPLICATE_KEY: [i32; 3] = [11000, 11001, 12582];
/// "BadValue": of an addition that is sound, that a number would leave what an i64 holds.
const BAD_VALUE: i32 = 2;
/// A server that is no primary, stops, or gives up for now: it will do it later, or another will.
const FOR_NOW: [i32; 18] = [
    6, 7, 24, 50, 64, 89, 91, 112, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436,
];

/// The code of a command or write that the server has refused.
fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        _ => None,
    }
}

/// Whether the server says that a value is there already.
pub(super) fn is_duplicate(error: &Error) -> bool {
    code(error).is_some_and(|code| DUPLICATE_KEY.contains(&code))
}

/// Whether a number would grow beyond its type.
pub(super) fn is_overflow(error: &Error) -> bool {
    code(error) == Some(BAD_VALUE)
}

/// Whether the server has looked at a write and not done it.
pub(super) fn is_refusal(error: &Error) -> bool {
    code(error).is_some_and(|code| !FOR_NOW.contains(&code))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is named where errors are mapped"
)]
pub(super) fn failed(error: Error) -> StoreError {
    let unavailable = |why: &str| StoreError::Unavailable(why.to_owned());
    match error.kind.as_ref() {
        ErrorKind::Io(io) => StoreError::Unavailable(format!("the connection failed ({})", io.kind())),
        ErrorKind::ServerSelection { .. } => unavailable("no server that takes writes is reachable"),
        ErrorKind::ConnectionPoolCleared { .. } => unavailable("the connection failed"),
        ErrorKind::DnsResolve { .. } => unavailable("the name of its host is not known"),
        ErrorKind::Shutdown => unavailable("it is being closed"),
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => {
            unavailable("a majority of its servers does not acknowledge")
        }
        ErrorKind::Authentication { .. } => StoreError::Failed("it refuses the user or password".to_owned()),
        _ => match code(&error) {
            Some(code) if FOR_NOW.contains(&code) => {
                StoreError::Unavailable(format!("it cannot for now (code {code})"))
            }
            Some(code) => StoreError::Failed(format!("it refuses (code {code})")),
            None if error.contains_label(RETRYABLE_WRITE_ERROR) || error.contains_label(RETRYABLE_ERROR) => {
                unavailable("it cannot for now")
            }
            None => StoreError::Failed("the driver gave up".to_owned()),
        },
    }
}
