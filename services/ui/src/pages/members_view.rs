//! Members and invitations as pages show them: from messages to texts, pure.

use domain::{AccountId, InvitationId};
use proto::{
    keys::{Invitation, Member, Role},
    resource::{parse_invitation_name, parse_member_name},
};
use time::OffsetDateTime;

use crate::{
    format::{Moment, Show},
    roles,
};

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    /// `acc_…`
    pub(crate) id: AccountId,
    /// The account's address.
    pub(crate) email: String,
    /// What the person may do.
    pub(crate) role: Role,
    /// When the person came in.
    pub(crate) since: Option<Moment>,
    /// Whether it is the reader.
    pub(crate) is_self: bool,
    /// Whether the reader may change the role and remove the person.
    pub(crate) is_managed: bool,
}

/// One open invitation.
#[derive(Debug, Clone)]
pub(crate) struct InvitationView {
    /// `inv_…`
    pub(crate) id: InvitationId,
    /// Who may accept it.
    pub(crate) email: String,
    /// What the person may do then.
    pub(crate) role: Role,
    /// When it ends.
    pub(crate) expires: Option<Moment>,
    /// Whether the reader may withdraw it.
    pub(crate) is_managed: bool,
}

/// Who looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// The account's address.
    pub(crate) email: &'a str,
    /// What the person may do.
    pub(crate) role: Role,
}

impl MemberView {
    /// The view of `member` at `now`; `None` if its name is none.
    #[must_use]
    pub(crate) fn new(member: &Member, reader: Reader<'_>, now: OffsetDateTime) -> Option<Self> {
        let (_, id) = parse_member_name(&member.name).ok()?;
        let (role, is_self) = (member.role(), member.email == reader.email);
        Some(Self {
            id,
            email: member.email.clone(),
            role,
            since: Moment::of(member.create_time.as_ref(), Show::Day, now),
            is_self,
            is_managed: !is_self && roles::may_manage(reader.role, role),
        })
    }

    /// The role's name, for its colour.
    #[must_use]
    pub(crate) fn role_name(&self) -> &'static str {
        roles::name(self.role)
    }

    /// The role as people read it.
    #[must_use]
    pub(crate) fn role_title(&self) -> &'static str {
        roles::title(self.role)
    }
}

impl InvitationView {
    /// The view of `invitation` at `now`; `None` if its name is none.
    #[must_use]
    pub(crate) fn new(invitation: &Invitation, reader: Reader<'_>, now: OffsetDateTime) -> Option<Self> {
        let (_, id) = parse_invitation_name(&invitation.name).ok()?;
        let role = invitation.role();
        Some(Self {
            id,
            email: invitation.email.clone(),
            role,
            expires: Moment::of(invitation.expire_time.as_ref(), Show::Full, now),
            is_managed: roles::may_manage(reader.role, role),
        })
    }

    /// The role's name, for its colour.
    #[must_use]
    pub(crate) fn role_name(&self) -> &'static str {
        roles::name(self.role)
    }

    /// The role as people read it.
    #[must_use]
    pub(crate) fn role_title(&self) -> &'static str {
        roles::title(self.role)
    }
}

/// A role to choose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// In the form.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// What it allows.
    pub(crate) text: &'static str,
    /// Whether it is the chosen one.
    pub(crate) is_chosen: bool,
}

/// The roles that somebody may give, the mightiest first.
#[must_use]
pub(crate) fn choices(giver: Role, chosen: Role) -> Vec<Choice> {
    let given = roles::ROLES.into_iter().filter(|role| roles::may_manage(giver, *role));
    given
        .map(|role| Choice {
            name: roles::name(role),
            title: roles::title(role),
            text: roles::explain(role),
            is_chosen: role == chosen,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use domain::WorkspaceId;

    use super::*;

    #[test]
    fn nobody_manages_themselves_and_admins_no_owners() {
        let member = |email: &str, role: Role| Member {
            name: proto::resource::member_name(WorkspaceId::generate(), AccountId::generate()),
            email: email.to_owned(),
            role: role.into(),
            create_time: None,
        };
        let reader = Reader { email: "a@example.com", role: Role::Admin };
        let seen = |member: &Member| {
            let view = MemberView::new(member, reader, OffsetDateTime::UNIX_EPOCH).unwrap();
            (view.is_self, view.is_managed)
        };
        assert_eq!(seen(&member("a@example.com", Role::Admin)), (true, false));
        assert_eq!(seen(&member("b@example.com", Role::Owner)), (false, false));
        assert_eq!(seen(&member("c@example.com", Role::Viewer)), (false, true));
    }

    #[test]
    fn only_roles_that_may_be_given_are_offered() {
        let names = |giver| choices(giver, Role::Member).iter().map(|choice| choice.name).collect::<Vec<_>>();
        assert_eq!(names(Role::Owner), ["owner", "admin", "member", "log_viewer", "viewer"]);
        assert_eq!(names(Role::Admin), ["member", "log_viewer", "viewer"]);
        assert!(names(Role::Viewer).is_empty());
        assert!(choices(Role::Owner, Role::Member)[2].is_chosen);
    }
}
