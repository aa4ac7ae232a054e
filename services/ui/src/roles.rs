//! What people of each role may do, as far as pages show or hide it. Decides nothing: services refuse by the table
//! of `access`, which tests hold this against.

use proto::keys::Role;

/// Roles of people, the mightiest first.
pub(crate) const ROLES: [Role; 5] = [Role::Owner, Role::Admin, Role::Member, Role::LogViewer, Role::Viewer];

/// Something that not everybody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Invite, change and remove members.
    ManageMembers,
    /// Read the audit log.
    ReadAudit,
    /// Make and revoke service tokens.
    ManageServiceTokens,
    /// Change the workspace's settings.
    ChangeWorkspace,
    /// Suspend, export and delete the workspace.
    EndWorkspace,
}

impl Right {
    /// What it is about, after "may not".
    #[must_use]
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::ManageMembers => "invite, change or remove members",
            Self::ReadAudit => "read the audit log",
            Self::ManageServiceTokens => "see or make service tokens",
            Self::ChangeWorkspace => "see or change the settings",
            Self::EndWorkspace => "suspend, export or delete the workspace",
        }
    }

    /// Who has it.
    #[must_use]
    pub(crate) const fn roles(self) -> &'static [Role] {
        match self {
            Self::EndWorkspace => &[Role::Owner],
            _ => &[Role::Owner, Role::Admin],
        }
    }

    /// Whether people of `role` have it.
    #[must_use]
    pub(crate) fn is_of(self, role: Role) -> bool {
        self.roles().contains(&role)
    }
}

/// The name of a role in forms.
#[must_use]
pub(crate) const fn name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
        Role::Viewer => "viewer",
        Role::LogViewer => "log_viewer",
        Role::Unspecified => "",
    }
}

/// The role of a name; unspecified for every other text, which services refuse.
#[must_use]
pub(crate) fn named(text: &str) -> Role {
    ROLES.into_iter().find(|role| name(*role) == text).unwrap_or(Role::Unspecified)
}

/// A role as people read it.
#[must_use]
pub(crate) const fn title(role: Role) -> &'static str {
    match role {
        Role::Owner => "Owner",
        Role::Admin => "Admin",
        Role::Member => "Member",
        Role::Viewer => "Viewer",
        Role::LogViewer => "Log viewer",
        Role::Unspecified => "Unknown",
    }
}

/// What somebody with the role may do, in a sentence.
#[must_use]
pub(crate) const fn explain(role: Role) -> &'static str {
    match role {
        Role::Owner => "Everything, also suspend, export and delete the workspace.",
        Role::Admin => {
            "Manages keys, members, service tokens and settings; owners and admins stay to owners."
        }
        Role::Member => "Generates keys, changes and deletes the own ones, and reads keys, usage and logs.",
        Role::Viewer => "Reads keys, members and usage, but no single calls.",
        Role::LogViewer => "Reads keys, members and usage, and single calls in the request log.",
        Role::Unspecified => "",
    }
}

/// Whether `actor` may give, change or take away the role `other` of another member.
#[must_use]
pub(crate) const fn may_manage(actor: Role, other: Role) -> bool {
    match actor {
        Role::Owner => true,
        Role::Admin => matches!(other, Role::Member | Role::Viewer | Role::LogViewer),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use access::table::{Who, who};
    use rstest::rstest;

    use super::*;

    fn of_access(role: Role) -> access::Role {
        name(role).parse().unwrap()
    }

    #[rstest]
    #[case(Right::ManageMembers, "MembersService/UpdateMember")]
    #[case(Right::ManageMembers, "MembersService/CreateInvitation")]
    #[case(Right::ManageMembers, "MembersService/ListInvitations")]
    #[case(Right::ManageMembers, "MembersService/DeleteInvitation")]
    #[case(Right::ReadAudit, "AuditService/ListAuditEntries")]
    #[case(Right::ReadAudit, "AuditService/ExportAuditEntries")]
    #[case(Right::ManageServiceTokens, "ServiceTokensService/CreateServiceToken")]
    #[case(Right::ManageServiceTokens, "ServiceTokensService/ListServiceTokens")]
    #[case(Right::ManageServiceTokens, "ServiceTokensService/RevokeServiceToken")]
    #[case(Right::ChangeWorkspace, "WorkspacesService/UpdateWorkspace")]
    #[case(Right::EndWorkspace, "WorkspacesService/SuspendWorkspace")]
    #[case(Right::EndWorkspace, "WorkspacesService/ResumeWorkspace")]
    #[case(Right::EndWorkspace, "WorkspacesService/ExportWorkspace")]
    #[case(Right::EndWorkspace, "WorkspacesService/DeleteWorkspace")]
    fn rights_are_those_of_the_table(#[case] right: Right, #[case] rpc: &str) {
        let Who::Holders { people, .. } = who(&format!("/keymeter.keys.v1.{rpc}")).unwrap() else {
            panic!("{rpc} is for holders of tokens");
        };
        for role in ROLES {
            assert_eq!(right.is_of(role), people.contains(&of_access(role)), "{rpc} {role:?}");
        }
    }

    #[test]
    fn roles_manage_each_other_as_the_services_say() {
        for actor in ROLES {
            for other in ROLES {
                let allowed = of_access(actor).may_manage(of_access(other));
                assert_eq!(may_manage(actor, other), allowed, "{actor:?} {other:?}");
            }
        }
    }

    #[test]
    fn names_are_read_back_and_others_are_no_role() {
        for role in ROLES {
            assert_eq!(named(name(role)), role);
            assert!(!explain(role).is_empty() && title(role) != "Unknown");
        }
        assert_eq!(named("service"), Role::Unspecified);
    }
}
