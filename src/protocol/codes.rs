//! The codes that clients see: three closed enums, so that no other number is ever sent.
//!
//! The reference is `docs/protocol.md`, which a test compares with these enums.

#[cfg(test)]
mod tests;

macro_rules! codes {
    ($(#[$of_enum:meta])* $name:ident { $($(#[$of_variant:meta])* $variant:ident = $code:literal $message:literal,)+ }) => {
        $(#[$of_enum])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum $name { $($(#[$of_variant])* $variant = $code,)+ }

        impl $name {
            /// Every code, ascending.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// The text on the wire: never more than the 123 bytes of a close frame.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }
        }
    };
}

codes! {
    /// Why a command was not done. Sent in the reply to it.
    ErrorCode {
        /// Something failed that the client has no part in. It may try again.
        Internal = 100 "internal server error",
        /// The connection has no identity. Reserved: a connection without one is not accepted.
        Unauthorized = 101 "unauthorized",
        /// The channel's namespace does not exist in this app.
        UnknownChannel = 102 "unknown channel",
        /// The rule of the channel, or the token, does not allow it.
        PermissionDenied = 103 "permission denied",
        /// The command holds no request that this server knows.
        MethodNotFound = 104 "method not found",
        /// The connection has, or is about to have, this subscription.
        AlreadySubscribed = 105 "already subscribed",
        /// Too many channels, or too large a payload.
        LimitExceeded = 106 "limit exceeded",
        /// A field is missing, of the wrong type, or out of its bounds.
        BadRequest = 107 "bad request",
        /// The feature is off for this channel, or not part of this server.
        NotAvailable = 108 "not available",
        /// The token was valid once. SDKs fetch another and try again.
        TokenExpired = 109 "token expired",
        /// Credentials that are no token have expired. Reserved for the connect proxy.
        Expired = 110 "expired",
        /// Too many at once or in a second. It may try again.
        TooManyRequests = 111 "too many requests",
        /// There is no proof that everything after the position can be had.
        UnrecoverablePosition = 112 "unrecoverable position",
        /// Reserved by the protocol for features this server does not have.
        ConcurrentPagination = 113 "concurrent pagination",
        /// The publication was sent to the log, and no answer came: it may be stored or not (rule
        /// L14). An extension: the protocol has no word for it.
        OutcomeUnknown = 200 "outcome unknown",
    }
}

impl ErrorCode {
    /// Whether the same command may succeed later. SDKs then try again with a backoff.
    pub const fn temporary(self) -> bool {
        matches!(
            self,
            Self::Internal | Self::TooManyRequests | Self::ConcurrentPagination
        )
    }
}

codes! {
    /// Why the server closed a connection. Sent as the close frame.
    DisconnectCode {
        /// The client has gone. Never sent; named for logs and metrics.
        ConnectionClosed = 3000 "connection closed",
        /// The node is stopping.
        Shutdown = 3001 "shutdown",
        /// Something failed that the client has no part in.
        Internal = 3004 "internal server error",
        /// The connection was not refreshed in time, or with an expired token.
        Expired = 3005 "connection expired",
        /// A server-side subscription was not refreshed in time.
        SubscriptionExpired = 3006 "subscription expired",
        /// The client took too little of what was queued for it.
        Slow = 3008 "slow",
        /// The socket failed.
        WriteError = 3009 "write error",
        /// A server-side subscription has a gap that cannot be closed.
        InsufficientState = 3010 "insufficient state",
        /// Told to come back, for example to another node.
        ForceReconnect = 3011 "force reconnect",
        /// A ping was not answered.
        NoPong = 3012 "no pong",
        /// The client asks too much.
        TooManyRequests = 3013 "too many requests",
        /// What the client holds (token, positions) is void.
        StateInvalidated = 3014 "state invalidated",
        /// The token is forged, malformed, or another's.
        InvalidToken = 3500 "invalid token",
        /// What was sent is not the protocol.
        BadRequest = 3501 "bad request",
        /// No valid connect in time.
        Stale = 3502 "stale",
        /// Told to go.
        ForceDisconnect = 3503 "force disconnect",
        /// The node or the app has too many connections.
        ConnectionLimit = 3504 "connection limit",
        /// The token names more channels than a connection may have.
        ChannelLimit = 3505 "channel limit",
        /// Binary data on a text dialect.
        InappropriateProtocol = 3506 "inappropriate protocol",
        /// The connection is not allowed.
        PermissionDenied = 3507 "permission denied",
        /// The client uses a feature, without waiting for a reply, that this server does not have.
        NotAvailable = 3508 "not available",
        /// The client makes one error after the other.
        TooManyErrors = 3509 "too many errors",
    }
}

impl DisconnectCode {
    /// Whether SDKs connect again by themselves.
    pub const fn reconnects(self) -> bool {
        !matches!(self.code(), 3500..=3999 | 4500..=4999)
    }
}

codes! {
    /// Why a subscription ended without the connection. Sent as an unsubscribe push.
    UnsubscribeCode {
        /// The client asked for it. Never sent.
        Client = 0 "unsubscribe called",
        /// The connection ended. Never sent.
        Disconnect = 1 "disconnect",
        /// A backend asked for it.
        Server = 2000 "server unsubscribe",
        /// There is a gap that cannot be closed: the client subscribes again and recovers.
        InsufficientState = 2500 "insufficient state",
        /// The subscription was not refreshed in time.
        Expired = 2501 "expired",
        /// What the client holds (token, position) is void.
        StateInvalidated = 2502 "state invalidated",
    }
}

impl UnsubscribeCode {
    /// Whether SDKs subscribe again by themselves.
    pub const fn resubscribes(self) -> bool {
        self.code() >= 2500
    }
}
