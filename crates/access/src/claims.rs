//! What an access token says: who calls, in which role, and for which workspace.

use std::{fmt, str::FromStr};

use domain::{AccountId, ServiceTokenId, WorkspaceId};
use proto::{
    resource::{self, NameError},
    status,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tonic::Status;

use crate::Role;

/// A checked access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who calls.
    pub subject: Subject,
    /// The one workspace that the token is for.
    pub workspace_id: WorkspaceId,
    /// What the caller may do there.
    pub role: Role,
    /// Narrows what a service may do; empty is all, and for people.
    pub scopes: Vec<String>,
    /// When the person last gave the password, to the second; `None` for services.
    pub authenticated: Option<OffsetDateTime>,
    /// When the token ends, to the second.
    pub expires: OffsetDateTime,
}

impl Claims {
    /// The workspace that a request names in its field `parent`, `workspaces/{workspace}`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another form of name; `NOT_FOUND` for another workspace than the token's, which
    /// is what a workspace that never was gets.
    pub fn workspace(&self, parent: &str) -> Result<WorkspaceId, Status> {
        let workspace_id = resource::parse_workspace_name(parent)
            .map_err(|error| status::invalid("parent", error.to_string()))?;
        self.owns(workspace_id).then_some(workspace_id).ok_or_else(|| status::not_found("workspace", parent))
    }

    /// What a request names by `parse`, in one of its fields: the id of something in a workspace.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another form of name; `NOT_FOUND` for what is in another workspace than the token's,
    /// as for what never was.
    pub fn own<I>(
        &self,
        field: &str,
        what: &str,
        name: &str,
        parse: impl FnOnce(&str) -> Result<(WorkspaceId, I), NameError>,
    ) -> Result<(WorkspaceId, I), Status> {
        let (workspace_id, id) = parse(name).map_err(|error| status::invalid(field, error.to_string()))?;
        self.owns(workspace_id).then_some((workspace_id, id)).ok_or_else(|| status::not_found(what, name))
    }

    /// Whether the caller may change, reveal or delete a key that `owner` (`acc_…` or `svc_…`) answers for: members
    /// only their own ones.
    #[must_use]
    pub fn may_change_key_of(&self, owner: &str) -> bool {
        match self.role {
            Role::Owner | Role::Admin | Role::Service => true,
            Role::Member => owner == self.subject.to_string(),
            Role::Viewer | Role::LogViewer => false,
        }
    }

    /// Whether the token is for this workspace. What belongs to any other is to be answered as not found.
    #[must_use]
    pub fn owns(&self, workspace_id: WorkspaceId) -> bool {
        self.workspace_id == workspace_id
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A person.
    Account(AccountId),
    /// An internal service.
    Service(ServiceTokenId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(id) => id.fmt(f),
            Self::Service(id) => id.fmt(f),
        }
    }
}

impl FromStr for Subject {
    type Err = domain::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::Account).or_else(|_| text.parse().map(Self::Service))
    }
}

/// The claims as they stand in the token.
#[derive(Serialize, Deserialize)]
pub(crate) struct Wire {
    sub: String,
    workspace: String,
    role: Role,
    scopes: Vec<String>,
    aud: String,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
}

impl Wire {
    pub(crate) fn new(claims: &Claims, issued: OffsetDateTime) -> Self {
        Self {
            sub: claims.subject.to_string(),
            workspace: claims.workspace_id.to_string(),
            role: claims.role,
            scopes: claims.scopes.clone(),
            aud: crate::AUDIENCE.to_owned(),
            iat: issued.unix_timestamp(),
            exp: claims.expires.unix_timestamp(),
            auth_time: claims.authenticated.map(OffsetDateTime::unix_timestamp),
        }
    }

    /// `None` if an id or a time is none.
    pub(crate) fn read(self) -> Option<Claims> {
        let authenticated = match self.auth_time {
            Some(seconds) => Some(OffsetDateTime::from_unix_timestamp(seconds).ok()?),
            None => None,
        };
        Some(Claims {
            subject: self.sub.parse().ok()?,
            workspace_id: self.workspace.parse().ok()?,
            role: self.role,
            scopes: self.scopes,
            authenticated,
            expires: OffsetDateTime::from_unix_timestamp(self.exp).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn claims(role: Role) -> Claims {
        Claims {
            subject: Subject::Account(AccountId::generate()),
            workspace_id: WorkspaceId::generate(),
            role,
            scopes: vec![],
            authenticated: None,
            expires: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn members_change_only_their_own_keys() {
        let other = AccountId::generate().to_string();
        for (role, own, others) in [
            (Role::Owner, true, true),
            (Role::Admin, true, true),
            (Role::Service, true, true),
            (Role::Member, true, false),
            (Role::Viewer, false, false),
            (Role::LogViewer, false, false),
        ] {
            let claims = claims(role);
            assert_eq!(claims.may_change_key_of(&claims.subject.to_string()), own, "{role}");
            assert_eq!(claims.may_change_key_of(&other), others, "{role}");
            assert_eq!(
                claims.may_change_key_of(""),
                others,
                "{role}: a key without an owner is not a member's"
            );
        }
    }

    #[test]
    fn what_is_in_another_workspace_is_as_what_never_was() {
        let claims = claims(Role::Owner);
        let read = |name: &str| {
            claims.own("key.name", "key", name, resource::parse_key_name).map_err(|status| status.code())
        };
        let key = domain::KeyId::generate();
        let name = resource::key_name(claims.workspace_id, key);
        assert_eq!(read(&name), Ok((claims.workspace_id, key)));
        assert_eq!(read(&resource::key_name(WorkspaceId::generate(), key)), Err(Code::NotFound));
        assert_eq!(read(&format!("{name}/x")), Err(Code::InvalidArgument));
    }

    #[test]
    fn only_the_own_workspace_is_found() {
        let claims = claims(Role::Admin);
        let own = claims.workspace_id;
        let code = |name: &str| claims.workspace(name).map_err(|status| status.code());
        assert_eq!(code(&resource::workspace_name(own)), Ok(own));
        assert_eq!(code(&resource::workspace_name(WorkspaceId::generate())), Err(Code::NotFound));
        assert_eq!(code(""), Err(Code::InvalidArgument));
        assert_eq!(code(&own.to_string()), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_subject_is_a_person_or_a_service() {
        for subject in [Subject::Account(AccountId::generate()), Subject::Service(ServiceTokenId::generate())]
        {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        assert!(WorkspaceId::generate().to_string().parse::<Subject>().is_err());
    }
}
