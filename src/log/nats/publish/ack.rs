use serde::Deserialize;

use crate::{
    log::{Ack, PublishError, nats::api::Refusal},
    model::Offset,
};

/// What JetStream answers to a publish.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: Offset,
    #[serde(default)]
    duplicate: bool,
    error: Option<Refusal>,
}

/// Reads an acknowledgement.
pub(super) fn parse(payload: &[u8]) -> Result<Ack, PublishError> {
    let Ok(answer) = serde_json::from_slice::<Answer>(payload) else {
        return Err(PublishError::Unknown);
    };
    match answer.error {
        Some(refusal) => Err(refused(&refusal)),
        // A sequence starts at 1: this is no acknowledgement of a stream.
        None if answer.seq == 0 => Err(PublishError::Unknown),
        None => Ok(Ack {
            seq: answer.seq,
            duplicate: answer.duplicate,
        }),
    }
}

/// An error of JetStream means that nothing is stored; some of them pass.
fn refused(refusal: &Refusal) -> PublishError {
    match (refusal.code, refusal.err_code) {
        _ if refusal.is_full() => PublishError::Full,
        (_, Refusal::FULL) => PublishError::Refused(refusal.to_string()),
        (429, _) => PublishError::Unavailable("the shard has too much to do"),
        (409, _) => PublishError::Unavailable("a publication with this id is being stored"),
        (408 | 500 | 503, _) => PublishError::Unavailable("the shard takes no publications now"),
        _ => PublishError::Refused(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l14_an_acknowledgement_has_a_sequence() {
        let ack = |seq, duplicate| Some(Ack { seq, duplicate });
        for (payload, expected) in [
            (r#"{"stream":"slip_std_0","seq":7}"#, ack(7, false)),
            (
                r#"{"stream":"s","domain":"d","seq":9,"duplicate":true}"#,
                ack(9, true),
            ),
            (r#"{"stream":"s","seq":0}"#, None),
            ("{}", None),
            ("", None),
            ("+OK", None),
        ] {
            match (parse(payload.as_bytes()), expected) {
                (Ok(ack), Some(expected)) => assert_eq!(ack, expected),
                (Err(PublishError::Unknown), None) => {}
                (found, _) => panic!("{payload}: {found:?}"),
            }
        }
    }

    #[test]
    fn l14_an_error_is_final_or_passes() {
        for (code, err_code, passes) in [
            (503, 10_077, false),
            (400, 10_054, false),
            (400, 10_060, false),
            (429, 10_167, true),
            (409, 10_158, true),
            (503, 10_008, true),
        ] {
            let payload = format!(
                r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"no"}},"stream":"s","seq":0}}"#
            );
            match parse(payload.as_bytes()) {
                Err(PublishError::Unavailable(_)) => assert!(passes, "{err_code}"),
                Err(PublishError::Refused(_)) => assert!(!passes, "{err_code}"),
                other => panic!("{err_code}: {other:?}"),
            }
        }
    }
}
