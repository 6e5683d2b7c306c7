use serde::{Deserialize, Serialize};

use crate::{
    control::{error::ControlError, permission::Role, records::Record},
    store::Collection,
};

/// How long a team stays closed after a deletion has begun that did not end, ms.
const CLOSING_MS: i64 = 60_000;
/// How long a deletion that has begun may go on, ms: less, so that the two never meet.
const DELETING_MS: i64 = 30_000;

/// A team as it is stored: one document, so that what is said of its members is always true of all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Team {
    pub(in crate::control) name: String,
    pub(in crate::control) created_ms: i64,
    pub(in crate::control) members: Vec<Member>,
    /// When its deletion began.
    pub(in crate::control) closing_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Member {
    pub(in crate::control) account: String,
    pub(in crate::control) role: Role,
    pub(in crate::control) since_ms: i64,
}

impl Team {
    pub(super) fn new(name: String, owner: &str, now_ms: i64) -> Self {
        let owner = Member {
            account: owner.to_owned(),
            role: Role::Owner,
            since_ms: now_ms,
        };
        Self {
            name,
            created_ms: now_ms,
            members: vec![owner],
            closing_ms: None,
        }
    }

    pub(in crate::control) fn role(&self, account: &str) -> Option<Role> {
        let member = self.members.iter().find(|member| member.account == account);
        member.map(|member| member.role)
    }

    pub(in crate::control) fn owners(&self) -> usize {
        self.members
            .iter()
            .filter(|member| member.role == Role::Owner)
            .count()
    }

    /// Whether it is being deleted.
    pub(super) fn is_closing(&self, now_ms: i64) -> bool {
        self.closing_ms
            .is_some_and(|since| now_ms.saturating_sub(since) < CLOSING_MS)
    }

    /// Whether a deletion that began as noted may still be finished.
    pub(super) fn may_be_deleted(&self, now_ms: i64) -> bool {
        self.closing_ms
            .is_some_and(|since| now_ms.saturating_sub(since) < DELETING_MS)
    }

    /// One more member.
    pub(super) fn add(
        &mut self,
        account: &str,
        role: Role,
        now_ms: i64,
        most: usize,
    ) -> Result<(), ControlError> {
        if self.role(account).is_some() {
            return Err(ControlError::AlreadyMember);
        }
        if self.members.len() >= most {
            return Err(ControlError::LimitReached("members"));
        }
        self.members.push(Member {
            account: account.to_owned(),
            role,
            since_ms: now_ms,
        });
        Ok(())
    }

    /// Gives `account` another role, in the name of one with the role `by`. The role it had.
    pub(super) fn set_role(&mut self, by: Role, account: &str, role: Role) -> Result<Role, ControlError> {
        let old = self.role(account).ok_or(ControlError::NotFound("member"))?;
        if old > by || role > by {
            return Err(ControlError::RoleTooLow);
        }
        if old == Role::Owner && role != Role::Owner && self.owners() == 1 {
            return Err(ControlError::LastOwner);
        }
        for member in &mut self.members {
            if member.account == account {
                member.role = role;
            }
        }
        Ok(old)
    }

    /// Removes `account`, in the name of one with the role `by`. The role it had.
    pub(super) fn remove(&mut self, by: Role, account: &str) -> Result<Role, ControlError> {
        let old = self.role(account).ok_or(ControlError::NotFound("member"))?;
        if old > by {
            return Err(ControlError::RoleTooLow);
        }
        if old == Role::Owner && self.owners() == 1 {
            return Err(ControlError::LastOwner);
        }
        self.members.retain(|member| member.account != account);
        Ok(old)
    }

    /// Makes `to` an owner and the owner `from` an admin.
    pub(super) fn transfer(&mut self, from: &str, to: &str) -> Result<Role, ControlError> {
        if from == to {
            return Err(ControlError::Invalid {
                field: "account",
                why: "must be another member",
            });
        }
        let old = self.set_role(Role::Owner, to, Role::Owner)?;
        self.set_role(Role::Owner, from, Role::Admin)?;
        Ok(old)
    }
}

impl Record for Team {
    const COLLECTION: Collection = Collection::Teams;
    const NAME: &'static str = "team";
    fn keys(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member_key(&member.account))
            .collect()
    }
}

/// The key of the teams that an account is a member of.
pub(super) fn member_key(account: &str) -> String {
    format!("member:{account}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_touches_or_makes_one_above_himself() {
        for by in Role::ALL {
            for old in Role::ALL {
                for new in Role::ALL {
                    let mut team = Team::new("t".into(), "boss", 0);
                    team.add("x", old, 0, 9).unwrap();
                    let allowed = old <= by && new <= by;
                    assert_eq!(
                        team.set_role(by, "x", new).is_ok(),
                        allowed,
                        "{by:?} {old:?} {new:?}"
                    );
                    assert_eq!(team.role("x"), Some(if allowed { new } else { old }));
                }
                let mut team = Team::new("t".into(), "boss", 0);
                team.add("x", old, 0, 9).unwrap();
                assert_eq!(team.remove(by, "x").is_ok(), old <= by, "{by:?} {old:?}");
            }
        }
    }

    #[test]
    fn a_team_is_handed_over() {
        let mut team = Team::new("t".into(), "a", 0);
        assert_eq!(team.transfer("a", "b"), Err(ControlError::NotFound("member")));
        team.add("b", Role::Viewer, 0, 2).unwrap();
        assert_eq!(
            team.add("b", Role::Viewer, 0, 9),
            Err(ControlError::AlreadyMember)
        );
        assert_eq!(
            team.add("c", Role::Viewer, 0, 2),
            Err(ControlError::LimitReached("members"))
        );
        assert!(team.transfer("a", "a").is_err());
        assert_eq!(team.transfer("a", "b"), Ok(Role::Viewer));
        assert_eq!(
            (team.role("a"), team.role("b")),
            (Some(Role::Admin), Some(Role::Owner))
        );
        assert_eq!(team.remove(Role::Owner, "b"), Err(ControlError::LastOwner));
        assert_eq!(
            team.set_role(Role::Owner, "b", Role::Admin),
            Err(ControlError::LastOwner)
        );
    }

    #[test]
    fn a_deletion_that_did_not_end_is_over_before_the_team_opens_again() {
        let mut team = Team::new("t".into(), "a", 0);
        assert!(!team.is_closing(0) && !team.may_be_deleted(0));
        team.closing_ms = Some(0);
        for now in (0..90_000).step_by(1_000) {
            assert!(!team.may_be_deleted(now) || team.is_closing(now));
        }
        assert!(team.may_be_deleted(29_999) && !team.may_be_deleted(30_000));
        assert!(team.is_closing(59_999) && !team.is_closing(60_000));
    }

    proptest! {
        /// Whatever is tried, by whomever: there is always an owner, nobody is there twice.
        #[test]
        fn there_is_always_an_owner(steps in prop::collection::vec((0_u8..4, 0_usize..4, 0_u8..5, 0_usize..4), 0..60)) {
            let mut team = Team::new("t".into(), "a0", 0);
            for (what, by, who, role) in steps {
                let (who, by, role) = (format!("a{who}"), Role::ALL[by], Role::ALL[role]);
                let _ = match what {
                    0 => team.add(&who, role, 0, 4),
                    1 => team.set_role(by, &who, role).map(|_| ()),
                    2 => team.remove(by, &who).map(|_| ()),
                    _ if team.role("a0") == Some(Role::Owner) => team.transfer("a0", &who).map(|_| ()),
                    _ => Ok(()),
                };
                prop_assert!(team.owners() >= 1);
                prop_assert!(team.members.len() <= 4);
                let mut keys = team.keys();
                keys.sort();
                keys.dedup();
                prop_assert_eq!(keys.len(), team.members.len());
            }
        }
    }
}
