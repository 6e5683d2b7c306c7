use serde::Serialize;
use utoipa::ToSchema;

use super::{
    service::{TeamView, Teams},
    team::Team,
    team_key,
};
use crate::{
    config::Secret,
    control::{
        Deed,
        account::Account,
        clock::ms,
        context::{Actor, Who},
        email,
        error::ControlError,
        hash::{hash, new_id, secret},
        letter::{Invitation, Link, What, account_key},
        mail::Purpose,
        permission::{Permission, Role, allows},
        records::{Record, Stored},
    },
};

/// An invitation that was not accepted yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InvitationView {
    /// Its id.
    pub id: String,
    /// Whom it is for.
    pub email: String,
    /// What they will be.
    pub role: Role,
    /// The account that has invited; empty for the operator.
    pub by: String,
    /// When, ms since 1970.
    pub created_ms: i64,
    /// Until when it can be accepted, ms since 1970.
    pub expires_ms: i64,
}

impl Teams {
    /// Invites an address to a team, by a letter with a link that can be used once. The role must not be above
    /// that of who asks. Another invitation of the same address to the team is worth nothing then.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `invitations.create`; `invalid_input`, `role_too_low`, `already_member`,
    /// `limit_reached`, `busy`, `not_configured`.
    pub async fn invite(
        &self,
        actor: &Actor,
        team: &str,
        email: &str,
        role: Role,
    ) -> Result<InvitationView, ControlError> {
        let access = self.authorize(actor, team, Permission::InvitationsCreate).await?;
        if role > access.role {
            return Err(ControlError::RoleTooLow);
        }
        let email = email::normalise(email)?;
        let place = self.core.mail.place()?;
        let members = self.core.records.need::<Team>(team).await?.value;
        let known = self.core.records.find::<Account>(&email).await?;
        if known.is_some_and(|account| members.role(&account.id).is_some()) {
            return Err(ControlError::AlreadyMember);
        }
        let open = self.open_invitations(team).await?;
        let (same, others): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|(_, invitation)| invitation.email == email);
        if others.len() >= self.core.config.max_invitations {
            return Err(ControlError::LimitReached("invitations"));
        }
        for (stored, _) in &same {
            self.core.records.remove(stored).await?;
        }
        let by = actor.account().unwrap_or_default().to_owned();
        let inviter = match self.core.records.get::<Account>(&by).await? {
            Some(account) => account.value.name,
            None => "Slipstream".to_owned(),
        };
        let invitation = Invitation {
            team: Some(team.to_owned()),
            email: email.clone(),
            role,
            by,
            used_by: None,
        };
        let (stored, secret) = self.store_invitation(invitation.clone()).await?;
        let purpose = Purpose::Invitation {
            team: Some(&access.team.name),
            by: &inviter,
            secret: secret.expose(),
        };
        place.send(self.core.letters.write(&email, &purpose));
        let deed = Deed::new("invitation.create", "invitation", &stored.id)
            .in_team(team)
            .change("email", (), email)
            .change("role", (), role.as_str());
        self.core.audit.write(actor, deed).await?;
        Ok(view(&stored, &invitation))
    }

    /// Invites an address to make an account, in the name of the operator. The secret of the link is returned
    /// too, for an operator without a mail server.
    ///
    /// # Errors
    ///
    /// `forbidden` unless it is the operator; `invalid_input`, `unavailable`.
    pub async fn invite_to_sign_up(&self, actor: &Actor, email: &str) -> Result<Secret, ControlError> {
        if !matches!(actor.who, Who::System(_)) {
            return Err(ControlError::Forbidden(Permission::InvitationsCreate));
        }
        let email = email::normalise(email)?;
        let invitation = Invitation {
            team: None,
            email: email.clone(),
            role: Role::Viewer,
            by: String::new(),
            used_by: None,
        };
        let (stored, secret) = self.store_invitation(invitation).await?;
        if let Ok(place) = self.core.mail.place() {
            let purpose = Purpose::Invitation {
                team: None,
                by: "Slipstream",
                secret: secret.expose(),
            };
            place.send(self.core.letters.write(&email, &purpose));
        }
        let deed = Deed::new("invitation.create", "invitation", &stored.id).change("email", (), email);
        self.core.audit.write(actor, deed).await?;
        Ok(secret)
    }

    async fn store_invitation(&self, invitation: Invitation) -> Result<(Stored<Link>, Secret), ControlError> {
        let secret = secret();
        let now = self.core.clock.now_ms();
        let link = Link {
            hash: hash(&secret),
            created_ms: now,
            expires_ms: now.saturating_add(ms(self.core.config.invitation_lifetime)),
            what: What::Invitation(invitation),
        };
        let stored = self.core.records.insert(new_id("inv"), link).await?;
        Ok((stored, Secret::new(secret)))
    }

    async fn open_invitations(&self, team: &str) -> Result<Vec<(Stored<Link>, Invitation)>, ControlError> {
        let now = self.core.clock.now_ms();
        let links = self.core.records.list::<Link>(team_key(team)).await?;
        let open = links.into_iter().filter_map(|link| match &link.value.what {
            What::Invitation(invitation) if invitation.used_by.is_none() && now < link.value.expires_ms => {
                let invitation = invitation.clone();
                Some((link, invitation))
            }
            _ => None,
        });
        Ok(open.collect())
    }

    /// The open invitations of a team.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `invitations.read`.
    pub async fn invitations(&self, actor: &Actor, team: &str) -> Result<Vec<InvitationView>, ControlError> {
        self.authorize(actor, team, Permission::InvitationsRead).await?;
        let open = self.open_invitations(team).await?;
        Ok(open
            .iter()
            .map(|(link, invitation)| view(link, invitation))
            .collect())
    }

    /// Withdraws an open invitation.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `invitations.revoke`; `not_found`, `invitation_used`.
    pub async fn withdraw(&self, actor: &Actor, team: &str, invitation: &str) -> Result<(), ControlError> {
        self.authorize(actor, team, Permission::InvitationsRevoke).await?;
        let link = self.core.records.need::<Link>(invitation).await?;
        let email = match &link.value.what {
            What::Invitation(it) if it.team.as_deref() == Some(team) => match it.used_by {
                None => it.email.clone(),
                Some(_) => return Err(ControlError::InvitationUsed),
            },
            _ => return Err(ControlError::NotFound(Link::NAME)),
        };
        if !self.core.records.remove(&link).await? {
            return Err(ControlError::InvitationUsed);
        }
        let deed = Deed::new("invitation.revoke", "invitation", invitation)
            .in_team(team)
            .change("email", email, ());
        self.core.audit.write(actor, deed).await
    }

    /// Accepts an invitation with the secret of its link. It must be for the address of who asks, which is
    /// verified by this; whoever has invited must still be able to.
    ///
    /// # Errors
    ///
    /// `session_required`, `link_invalid`, `invitation_not_yours`, `invitation_used`, `invitation_withdrawn`,
    /// `already_member`, `limit_reached`, `conflict`, `unavailable`.
    pub async fn accept(&self, actor: &Actor, secret: &Secret) -> Result<TeamView, ControlError> {
        let (account, _) = actor.signed_in()?;
        let (link, invitation) = self.invitation(secret).await?;
        let team = invitation.team.clone().ok_or(ControlError::LinkInvalid)?;
        let owner = self.core.records.need::<Account>(account).await?;
        if owner.value.email != invitation.email {
            return Err(ControlError::InvitationNotYours);
        }
        let role = self.join(&link.id, account).await?;
        let deed = Deed::new("invitation.accept", "invitation", &link.id)
            .in_team(&team)
            .change(&format!("members.{account}.role"), (), role.as_str());
        self.core.audit.write(actor, deed).await?;
        self.get(actor, &team).await
    }

    /// The invitation with this secret, if it can still be accepted by somebody.
    pub(in crate::control) async fn invitation(
        &self,
        secret: &Secret,
    ) -> Result<(Stored<Link>, Invitation), ControlError> {
        let found = self.core.records.find::<Link>(&hash(secret.expose())).await?;
        let link = found.ok_or(ControlError::LinkInvalid)?;
        if self.core.clock.now_ms() >= link.value.expires_ms {
            return Err(ControlError::LinkInvalid);
        }
        match &link.value.what {
            What::Invitation(invitation) => {
                let invitation = invitation.clone();
                Ok((link, invitation))
            }
            _ => Err(ControlError::LinkInvalid),
        }
    }

    /// Claims an invitation for `account`: of two one alone succeeds. The same account may claim it again,
    /// for an earlier time may have ended half way.
    pub(in crate::control) async fn claim(
        &self,
        link: &str,
        account: &str,
    ) -> Result<Invitation, ControlError> {
        let claimed = self
            .core
            .records
            .change::<Link, _>(link, |link| match &mut link.what {
                What::Invitation(invitation) => match &invitation.used_by {
                    Some(other) if other != account => Err(ControlError::InvitationUsed),
                    _ => {
                        invitation.used_by = Some(account.to_owned());
                        Ok(invitation.clone())
                    }
                },
                _ => Err(ControlError::LinkInvalid),
            });
        match claimed.await {
            Ok(claimed) => Ok(claimed.with),
            Err(ControlError::NotFound(_)) => Err(ControlError::InvitationUsed),
            Err(error) => Err(error),
        }
    }

    /// Claims an invitation that is not for a team, and uses it up.
    pub(in crate::control) async fn claim_alone(
        &self,
        link: &str,
        account: &str,
    ) -> Result<(), ControlError> {
        self.claim(link, account).await?;
        self.core.records.remove_any::<Link>(link).await.map(|_| ())
    }

    /// Removes what is left of invitations that `account` has accepted to this team, in case that an
    /// acceptance ended half way: who was removed must not come back by them.
    pub(super) async fn forget_accepted(&self, team: &str, account: &str) -> Result<(), ControlError> {
        for link in self.core.records.list::<Link>(account_key(account)).await? {
            if matches!(&link.value.what, What::Invitation(it) if it.team.as_deref() == Some(team)) {
                self.core.records.remove_any::<Link>(&link.id).await?;
            }
        }
        Ok(())
    }

    /// Claims the invitation, makes `account` a member, and uses the invitation up.
    pub(in crate::control) async fn join(&self, link: &str, account: &str) -> Result<Role, ControlError> {
        self.room_for_one_more(account).await?;
        let invitation = self.claim(link, account).await?;
        let team = invitation.team.as_deref().ok_or(ControlError::LinkInvalid)?;
        let (now, most) = (self.core.clock.now_ms(), self.core.config.max_members);
        let joined = self.core.records.change::<Team, _>(team, |team| {
            if team.is_closing(now) {
                return Err(ControlError::InvitationWithdrawn);
            }
            // The operator, who is no member, may always.
            let by = match invitation.by.as_str() {
                "" => Role::Owner,
                by => team.role(by).ok_or(ControlError::InvitationWithdrawn)?,
            };
            if by < invitation.role || !allows(by, Permission::InvitationsCreate) {
                return Err(ControlError::InvitationWithdrawn);
            }
            team.add(account, invitation.role, now, most)
        });
        match joined.await {
            Ok(_) => {
                self.core.records.remove_any::<Link>(link).await?;
                Ok(invitation.role)
            }
            Err(ControlError::NotFound(_)) => Err(ControlError::InvitationWithdrawn),
            Err(error @ (ControlError::LimitReached(_) | ControlError::Conflict)) => {
                self.unclaim(link).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What could not be used now can be used later.
    async fn unclaim(&self, link: &str) -> Result<(), ControlError> {
        let unclaimed = self.core.records.change::<Link, _>(link, |link| {
            if let What::Invitation(invitation) = &mut link.what {
                invitation.used_by = None;
            }
            Ok(())
        });
        unclaimed.await.map(|_| ())
    }
}

fn view(link: &Stored<Link>, invitation: &Invitation) -> InvitationView {
    InvitationView {
        id: link.id.clone(),
        email: invitation.email.clone(),
        role: invitation.role,
        by: invitation.by.clone(),
        created_ms: link.value.created_ms,
        expires_ms: link.value.expires_ms,
    }
}
