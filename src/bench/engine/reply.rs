//! What is rare enough on a connection to be parsed properly: replies and control pushes.

use serde::{Deserialize, de::IgnoredAny};

#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    pub(super) error: Option<ErrorBody>,
    pub(super) connect: Option<Connected>,
    pub(super) subscribe: Option<Subscribed>,
    pub(super) push: Option<Push>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) temporary: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Connected {
    /// Whether pings are to be answered.
    #[serde(default)]
    pub(super) pong: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Subscribed {
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) epoch: String,
    #[serde(default)]
    pub(super) recovered: bool,
    #[serde(default)]
    pub(super) was_recovering: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Push {
    pub(super) unsubscribe: Option<Code>,
    pub(super) disconnect: Option<Code>,
    #[serde(rename = "pub")]
    pub(super) publication: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Code {
    #[serde(default)]
    pub(super) code: u32,
    #[serde(default)]
    pub(super) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_the_reference_server_are_understood() {
        let connect: Reply = serde_json::from_str(
            r#"{"id":1,"connect":{"client":"e863","version":"0.0.0","ping":25,"pong":true}}"#,
        )
        .unwrap();
        assert!(connect.connect.unwrap().pong);
        let subscribe: Reply = serde_json::from_str(
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"ioAb","publications":[{"data":{"a":"\n"},"offset":2}],
                "recovered":true,"offset":1,"positioned":true,"was_recovering":true}}"#,
        )
        .unwrap();
        let subscribe = subscribe.subscribe.unwrap();
        assert_eq!((subscribe.offset, subscribe.epoch.as_str()), (1, "ioAb"));
        assert!(subscribe.recovered && subscribe.was_recovering);
        let error: Reply = serde_json::from_str(
            r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
        )
        .unwrap();
        assert!(error.error.unwrap().temporary);
        let push: Reply = serde_json::from_str(
            r#"{"push":{"channel":"c1","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        )
        .unwrap();
        assert_eq!(push.push.unwrap().unsubscribe.unwrap().code, 2500);
    }
}
