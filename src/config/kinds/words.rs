//! Kinds that are one of a few words.

use super::{Leaf, Value, quoted, text};
use crate::{
    config::{MailEncryption, MailTransport, SignUp},
    model::{Access, Compatibility, JoinLeave, Overflow},
};

macro_rules! words {
    ($($(#[$doc:meta])* $kind:ident($type:ident), $wanted:literal { $($word:literal = $value:ident,)+ })+) => {$(
        $(#[$doc])*
        pub(in crate::config) struct $kind;

        impl Leaf<$type> for $kind {
            const WANTED: &'static str = $wanted;
            fn parse(value: &Value, _: bool) -> Option<$type> {
                match text(value)? {
                    $($word => Some($type::$value),)+
                    _ => None,
                }
            }
            fn show(value: &$type) -> String {
                quoted(match value { $($type::$value => $word,)+ })
            }
        }
    )+};
}

words! {
    /// Who may do something.
    Who(Access), "anyone, authenticated, token, subscriber or nobody, in quotes" {
        "anyone" = Anyone,
        "authenticated" = Authenticated,
        "token" = Token,
        "subscriber" = Subscriber,
        "nobody" = Nobody,
    }

    /// Who hears of joins and leaves.
    Listeners(JoinLeave), "none, wanted or all, in quotes" {
        "none" = None,
        "wanted" = Wanted,
        "all" = All,
    }

    /// What becomes of a publication that comes too soon for a rate.
    TooSoon(Overflow), "reject or queue, in quotes" {
        "reject" = Reject,
        "queue" = Queue,
    }

    /// What versions of a schema have to do with each other.
    Compatible(Compatibility), "none, backward or full, in quotes" {
        "none" = None,
        "backward" = Backward,
        "full" = Full,
    }

    /// Who may make an account.
    WhoSignsUp(SignUp), "open or invitation, in quotes" {
        "open" = Open,
        "invitation" = Invitation,
    }

    /// How letters leave.
    Transport(MailTransport), "none, file or smtp, in quotes" {
        "none" = None,
        "file" = File,
        "smtp" = Smtp,
    }

    /// How a connection to a mail server is kept secret.
    Encryption(MailEncryption), "tls, starttls or none, in quotes" {
        "tls" = Tls,
        "starttls" = StartTls,
        "none" = None,
    }
}
