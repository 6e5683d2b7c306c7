//! Who may do what in a team: one table, which the documentation is made from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a member is in a team. Ordered: the greater may do all that the smaller may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Builds on the team's apps.
    Developer,
    /// Runs the team.
    Admin,
    /// Answers for it.
    Owner,
}

impl Role {
    /// All, from the least.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Developer, Self::Admin, Self::Owner];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

macro_rules! permissions {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal from $least:ident, $about:literal;)+) => {
        /// One thing that may be done in a team. Its name is also the scope of an API token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        pub enum Permission { $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+ }

        /// Every permission, the least role that has it, and what it is.
        pub const PERMISSIONS: &[(Permission, Role, &str)] =
            &[$((Permission::$name, Role::$least, $about),)+];

        impl Permission {
            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            const fn least(self) -> Role {
                match self { $(Self::$name => Role::$least,)+ }
            }
        }
    };
}

permissions! {
    /// See the team.
    TeamRead = "team.read" from Viewer, "See the team's name and settings.";
    /// Rename the team.
    TeamWrite = "team.write" from Admin, "Rename the team.";
    /// Delete the team.
    TeamDelete = "team.delete" from Owner, "Delete the team, which must have no apps.";
    /// Hand the team over.
    TeamTransfer = "team.transfer" from Owner, "Make another member the owner in one's own place.";
    /// See members.
    MembersRead = "members.read" from Viewer, "See who is a member, with role and e-mail address.";
    /// Change roles.
    MembersWrite = "members.write" from Admin, "Change roles, of and to nothing above one's own.";
    /// Remove members.
    MembersRemove = "members.remove" from Admin, "Remove members whose role is not above one's own.";
    /// See invitations.
    InvitationsRead = "invitations.read" from Admin, "See open invitations.";
    /// Invite.
    InvitationsCreate = "invitations.create" from Admin, "Invite people to a role that is not above one's own.";
    /// Withdraw invitations.
    InvitationsRevoke = "invitations.revoke" from Admin, "Withdraw invitations.";
    /// See apps.
    AppsRead = "apps.read" from Viewer, "See apps with their settings, without secrets.";
    /// Change apps.
    AppsWrite = "apps.write" from Developer, "Create apps, and change their settings and namespaces.";
    /// Delete apps.
    AppsDelete = "apps.delete" from Admin, "Delete apps.";
    /// See the names of keys.
    KeysRead = "keys.read" from Viewer, "See the names of keys, and when they were made; never a key.";
    /// Make keys.
    KeysCreate = "keys.create" from Developer, "Make keys, each of which is shown once.";
    /// Revoke keys.
    KeysRevoke = "keys.revoke" from Developer, "Revoke keys.";
    /// See the plan.
    PlanRead = "plan.read" from Viewer, "See the plan and the limits that follow from it.";
    /// Choose the plan.
    PlanWrite = "plan.write" from Owner, "Choose the plan.";
    /// Change limits.
    LimitsWrite = "limits.write" from Admin, "Change limits of apps within the plan.";
    /// See schemas.
    SchemasRead = "schemas.read" from Viewer, "See schemas of payloads.";
    /// Change schemas.
    SchemasWrite = "schemas.write" from Developer, "Add, change and remove schemas.";
    /// See usage.
    UsageRead = "usage.read" from Viewer, "See usage and statistics.";
    /// Read the audit log.
    AuditRead = "audit.read" from Admin, "Read the team's audit log.";
    /// Export the audit log.
    AuditExport = "audit.export" from Admin, "Export the team's audit log.";
    /// Make API tokens for the team.
    TokensCreate = "tokens.create" from Viewer, "Make personal API tokens that are for this team only.";
    /// See members' API tokens.
    TokensRead = "tokens.read" from Admin, "See all members' personal API tokens that are for this team only.";
    /// Revoke members' API tokens.
    TokensRevoke = "tokens.revoke" from Admin, "Revoke such a token of a member whose role is not above one's own.";
}

impl Permission {
    /// The permission of that name.
    pub fn parse(name: &str) -> Option<Self> {
        PERMISSIONS
            .iter()
            .map(|(permission, ..)| *permission)
            .find(|permission| permission.as_str() == name)
    }
}

/// Whether `role` has `permission`.
pub fn allows(role: Role, permission: Permission) -> bool {
    role >= permission.least()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Write;

    use super::*;

    /// Written by hand, so that the table cannot change by mistake: viewer, developer, admin, owner.
    pub(in crate::control) const EXPECTED: &[(&str, [u8; 4])] = &[
        ("team.read", [1, 1, 1, 1]),
        ("team.write", [0, 0, 1, 1]),
        ("team.delete", [0, 0, 0, 1]),
        ("team.transfer", [0, 0, 0, 1]),
        ("members.read", [1, 1, 1, 1]),
        ("members.write", [0, 0, 1, 1]),
        ("members.remove", [0, 0, 1, 1]),
        ("invitations.read", [0, 0, 1, 1]),
        ("invitations.create", [0, 0, 1, 1]),
        ("invitations.revoke", [0, 0, 1, 1]),
        ("apps.read", [1, 1, 1, 1]),
        ("apps.write", [0, 1, 1, 1]),
        ("apps.delete", [0, 0, 1, 1]),
        ("keys.read", [1, 1, 1, 1]),
        ("keys.create", [0, 1, 1, 1]),
        ("keys.revoke", [0, 1, 1, 1]),
        ("plan.read", [1, 1, 1, 1]),
        ("plan.write", [0, 0, 0, 1]),
        ("limits.write", [0, 0, 1, 1]),
        ("schemas.read", [1, 1, 1, 1]),
        ("schemas.write", [0, 1, 1, 1]),
        ("usage.read", [1, 1, 1, 1]),
        ("audit.read", [0, 0, 1, 1]),
        ("audit.export", [0, 0, 1, 1]),
        ("tokens.create", [1, 1, 1, 1]),
        ("tokens.read", [0, 0, 1, 1]),
        ("tokens.revoke", [0, 0, 1, 1]),
    ];

    #[test]
    fn every_cell_of_the_table() {
        assert_eq!(EXPECTED.len(), PERMISSIONS.len());
        for ((name, cells), (permission, ..)) in EXPECTED.iter().zip(PERMISSIONS) {
            assert_eq!(*name, permission.as_str());
            assert_eq!(Permission::parse(name), Some(*permission));
            let json = serde_json::to_value(permission).unwrap();
            assert_eq!(json, *name);
            for (role, cell) in Role::ALL.into_iter().zip(cells) {
                assert_eq!(allows(role, *permission), *cell == 1, "{} {name}", role.as_str());
            }
        }
        assert_eq!(Permission::parse("team.fly"), None);
    }

    #[test]
    fn roles_have_names() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("Owner"), None);
    }

    const BEGIN: &str = "<!-- Made from src/control/permission.rs: change that, then run\n     \
                         UPDATE_DOCS=1 cargo test --lib permission_table -->\n";
    const END: &str = "<!-- End of the table. -->\n";

    #[test]
    fn permission_table_of_the_page_is_the_one_of_the_code() {
        let mut table = String::from(BEGIN);
        table.push_str(
            "| permission | viewer | developer | admin | owner | meaning |\n|---|---|---|---|---|---|\n",
        );
        for (permission, _, about) in PERMISSIONS {
            let _ = write!(table, "| `{}` |", permission.as_str());
            for role in Role::ALL {
                table.push_str(if allows(role, *permission) { " yes |" } else { " |" });
            }
            let _ = writeln!(table, " {about} |");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/control.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the page has the table's begin");
        let (_, after) = rest.split_once(END).expect("the page has the table's end");
        let wanted = format!("{before}{table}{END}{after}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap();
        assert!(
            stored == wanted,
            "docs/control.md has drifted from src/control/permission.rs: \
             run `UPDATE_DOCS=1 cargo test --lib permission_table`"
        );
    }
}
