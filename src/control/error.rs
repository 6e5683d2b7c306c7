use std::time::Duration;

use super::permission::Permission;
use crate::store::StoreError;

/// What kind of an answer an error is: what HTTP has a status for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 400: what was sent cannot be right.
    Invalid,
    /// 401: who it is was not proven.
    Unauthenticated,
    /// 403: who it is may not.
    Forbidden,
    /// 404: there is no such thing, or it is not for this one to know.
    NotFound,
    /// 409: not as things are.
    Conflict,
    /// 412: it is not what the caller has seen any more.
    Stale,
    /// 422: well-formed, and cannot be so.
    Refused,
    /// 429: not so often.
    TooMany,
    /// 500: our mistake.
    Internal,
    /// 503: not now. After `unavailable` it is not known whether anything was done.
    Unavailable,
}

impl Class {
    /// The status of HTTP.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Stale => 412,
            Self::Refused => 422,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

/// Why a service of the control plane did not do what it was asked. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A field of the request.
    #[error("{field} {why}")]
    Invalid {
        /// Its name.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A new password that is none.
    #[error("the password {0}")]
    WeakPassword(&'static str),
    /// The link is wrong, was used, or has expired: these are not told apart.
    #[error("the link is not valid any more")]
    LinkInvalid,
    /// Wrong e-mail address or password: these are not told apart.
    #[error("wrong e-mail address or password")]
    InvalidCredentials,
    /// The password was right, and a code is needed besides.
    #[error("a code of the second factor is needed")]
    SecondFactorRequired,
    /// The code is wrong or was used.
    #[error("wrong code of the second factor")]
    SecondFactorInvalid,
    /// No access token, or none of ours.
    #[error("not signed in")]
    Unauthenticated,
    /// The access or API token has expired.
    #[error("the token has expired")]
    TokenExpired,
    /// The session was ended, or has expired.
    #[error("the session has ended; sign in again")]
    SessionEnded,
    /// Not the refresh token of any session.
    #[error("not a refresh token")]
    RefreshInvalid,
    /// An old refresh token: somebody else may have it, so the session was ended.
    #[error("the refresh token was used before; the session was ended")]
    RefreshReused,
    /// The refresh token was replaced a moment ago.
    #[error("the refresh token was replaced a moment ago; take the new one and try again")]
    RefreshRotated,
    /// The e-mail address was never verified.
    #[error("the e-mail address is not verified")]
    NotVerified,
    /// The role does not allow it.
    #[error("the role does not allow {}", .0.as_str())]
    Forbidden(Permission),
    /// The API token does not allow it.
    #[error("the token has no scope {}", .0.as_str())]
    ScopeMissing(Permission),
    /// It would touch, or make, somebody with a higher role than one's own.
    #[error("nobody changes a role above his own")]
    RoleTooLow,
    /// Only the operator may.
    #[error("only the operator may do this")]
    OperatorOnly,
    /// An API token cannot do it, only who is signed in.
    #[error("only who is signed in can do this, no token")]
    SessionRequired,
    /// Accounts are made by invitation.
    #[error("an invitation is needed to sign up")]
    SignUpClosed,
    /// The invitation is for another address.
    #[error("the invitation is for another e-mail address")]
    InvitationNotYours,
    /// There is none, or not for this one to see.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The invitation was accepted by another.
    #[error("the invitation was used")]
    InvitationUsed,
    /// Who invited could not do so any more.
    #[error("the invitation does not hold any more")]
    InvitationWithdrawn,
    /// The address is another account's.
    #[error("the e-mail address is in use")]
    EmailTaken,
    /// A member already.
    #[error("is a member of the team already")]
    AlreadyMember,
    /// A team always has an owner.
    #[error("the team would have no owner")]
    LastOwner,
    /// The account is the last owner of teams with apps.
    #[error("the account is the last owner of teams that have apps")]
    OwnsApps(Vec<String>),
    /// The team has apps.
    #[error("the team has apps")]
    TeamHasApps,
    /// As many as there may be.
    #[error("no more {0} are possible")]
    LimitReached(&'static str),
    /// The second factor is not in the state that this needs.
    #[error("the second factor {0}")]
    SecondFactorState(&'static str),
    /// Others changed it at the same time, again and again.
    #[error("others are changing this; try again")]
    Conflict,
    /// It has another revision than the caller has seen: this one.
    #[error("it has been changed: it is at revision {0}")]
    Stale(u64),
    /// Too many failed tries, or letters.
    #[error("too many tries; wait")]
    TooMany(Duration),
    /// A queue is full. Nothing was done.
    #[error("too busy; try again")]
    Busy,
    /// The database does not answer: it is not known whether the change was made, or it was made and is not
    /// in the audit log.
    #[error("the database does not answer")]
    Unavailable,
    /// What it needs is not configured.
    #[error("{0} is not configured")]
    NotConfigured(&'static str),
    /// A mistake of ours or of the database.
    #[error("internal error")]
    Internal,
}

impl ControlError {
    /// A stable name for programs.
    pub const fn code(&self) -> &'static str {
        self.row().0
    }

    /// What kind of an answer it is.
    pub const fn class(&self) -> Class {
        self.row().1
    }

    /// When to try again, if that can help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany(wait) => Some(*wait),
            Self::Busy | Self::Conflict | Self::Unavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    const fn row(&self) -> (&'static str, Class) {
        match self {
            Self::Invalid { .. } => ("invalid_input", Class::Invalid),
            Self::WeakPassword(_) => ("weak_password", Class::Invalid),
            Self::LinkInvalid => ("link_invalid", Class::Invalid),
            Self::InvalidCredentials => ("invalid_credentials", Class::Unauthenticated),
            Self::SecondFactorRequired => ("second_factor_required", Class::Unauthenticated),
            Self::SecondFactorInvalid => ("second_factor_invalid", Class::Unauthenticated),
            Self::Unauthenticated => ("unauthenticated", Class::Unauthenticated),
            Self::TokenExpired => ("token_expired", Class::Unauthenticated),
            Self::SessionEnded => ("session_ended", Class::Unauthenticated),
            Self::RefreshInvalid => ("refresh_invalid", Class::Unauthenticated),
            Self::RefreshReused => ("refresh_reused", Class::Unauthenticated),
            Self::RefreshRotated => ("refresh_rotated", Class::Conflict),
            Self::NotVerified => ("email_not_verified", Class::Forbidden),
            Self::Forbidden(_) => ("forbidden", Class::Forbidden),
            Self::ScopeMissing(_) => ("scope_missing", Class::Forbidden),
            Self::RoleTooLow => ("role_too_low", Class::Forbidden),
            Self::OperatorOnly => ("operator_only", Class::Forbidden),
            Self::SessionRequired => ("session_required", Class::Forbidden),
            Self::SignUpClosed => ("sign_up_closed", Class::Forbidden),
            Self::InvitationNotYours => ("invitation_not_yours", Class::Forbidden),
            Self::NotFound(_) => ("not_found", Class::NotFound),
            Self::InvitationUsed => ("invitation_used", Class::Conflict),
            Self::InvitationWithdrawn => ("invitation_withdrawn", Class::Conflict),
            Self::EmailTaken => ("email_taken", Class::Conflict),
            Self::AlreadyMember => ("already_member", Class::Conflict),
            Self::LastOwner => ("last_owner", Class::Conflict),
            Self::OwnsApps(_) => ("owns_apps", Class::Conflict),
            Self::TeamHasApps => ("team_has_apps", Class::Conflict),
            Self::LimitReached(_) => ("limit_reached", Class::Conflict),
            Self::SecondFactorState(_) => ("second_factor_state", Class::Conflict),
            Self::Conflict => ("conflict", Class::Conflict),
            Self::Stale(_) => ("stale", Class::Stale),
            Self::TooMany(_) => ("too_many_attempts", Class::TooMany),
            Self::Busy => ("busy", Class::Unavailable),
            Self::Unavailable => ("unavailable", Class::Unavailable),
            Self::NotConfigured(_) => ("not_configured", Class::Unavailable),
            Self::Internal => ("internal", Class::Internal),
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => {
                tracing::warn!(%why, "the database does not answer");
                Self::Unavailable
            }
            error => {
                tracing::error!(%error, "the database cannot do what it was asked");
                Self::Internal
            }
        }
    }
}
