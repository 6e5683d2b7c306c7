//! Teams: who is a member, and what of.

mod invite;
mod service;
mod team;

pub use invite::InvitationView;
pub use service::{Access, MemberView, TeamView, Teams};
pub(super) use team::Team;

/// The key of what belongs to a team: its invitations and tokens, and the documents of its apps
/// ([`crate::store::Collection::Apps`]), by which it is found whether the team has any.
pub fn team_key(team: &str) -> String {
    format!("team:{team}")
}
