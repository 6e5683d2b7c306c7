//! Close codes (RFC 6455, 7.4, and the IANA registry).

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A text message or close reason was not UTF-8.
pub const INVALID_DATA: u16 = 1007;
/// A frame or message was larger than the receiver takes.
pub const TOO_LARGE: u16 = 1009;

/// Whether `code` may stand in a close frame.
///
/// 1005, 1006 and 1015 are what an API reports without a frame; 1004 and 1016-2999 are reserved;
/// libraries and frameworks have 3000-3999, applications 4000-4999.
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
