//! Roles of people and services in a workspace, and the scopes that narrow what a service may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a caller may do in the token's workspace; which RPCs, says [`crate::table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A person who may do everything.
    Owner,
    /// A person who may do everything but touch owners and admins, or end the workspace.
    Admin,
    /// A person who changes only the own keys.
    Member,
    /// A person who reads keys, members and totals of usage.
    Viewer,
    /// A viewer who reads single calls as well.
    LogViewer,
    /// An internal service, narrowed by its scopes.
    Service,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Admin, Self::Member, Self::Viewer, Self::LogViewer, Self::Service];

    /// As it stands in tokens and in Postgres.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::LogViewer => "log_viewer",
            Self::Service => "service",
        }
    }

    /// Whether somebody with this role may give, change or take away the role `other` of another member.
    #[must_use]
    pub fn may_manage(self, other: Self) -> bool {
        match self {
            Self::Owner => other != Self::Service,
            Self::Admin => matches!(other, Self::Member | Self::Viewer | Self::LogViewer),
            Self::Member | Self::Viewer | Self::LogViewer | Self::Service => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(())
    }
}

/// What a service token may be narrowed to; a token without scopes has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See keys.
    KeysRead,
    /// Create, change and delete keys.
    KeysWrite,
    /// Ask whether a secret is good.
    KeysVerify,
    /// See totals of usage.
    UsageRead,
    /// See single calls.
    LogsRead,
    /// See the audit trail.
    AuditRead,
    /// See members.
    MembersRead,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 7] = [
        Self::KeysRead,
        Self::KeysWrite,
        Self::KeysVerify,
        Self::UsageRead,
        Self::LogsRead,
        Self::AuditRead,
        Self::MembersRead,
    ];

    /// As it stands in tokens, requests and Postgres.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeysRead => "keys.read",
            Self::KeysWrite => "keys.write",
            Self::KeysVerify => "keys.verify",
            Self::UsageRead => "usage.read",
            Self::LogsRead => "logs.read",
            Self::AuditRead => "audit.read",
            Self::MembersRead => "members.read",
        }
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_tokens() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("root".parse::<Role>().is_err() && "keys.reveal".parse::<Scope>().is_err());
    }

    #[test]
    fn admins_do_not_touch_owners_and_admins() {
        let managed = |role: Role| Role::ALL.into_iter().filter(|other| role.may_manage(*other)).count();
        assert_eq!(Role::ALL.map(managed), [5, 3, 0, 0, 0, 0]);
        assert!(!Role::Admin.may_manage(Role::Owner) && !Role::Admin.may_manage(Role::Admin));
    }
}
