//! What an access token says: who calls, in which role, and for which workspace.

use std::{fmt, str::FromStr};

use domain::{AccountId, ServiceTokenId, WorkspaceId};
use proto::{resource, status};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tonic::Status;

/// A checked access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who calls.
    pub subject: Subject,
    /// The one workspace that the token is for.
    pub workspace_id: WorkspaceId,
    /// What the caller may do there.
    pub role: Role,
    /// Narrows what a service may do; empty for people.
    pub scopes: Vec<String>,
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

/// What a caller may do in the token's workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A person who may do everything.
    Admin,
    /// An internal service: everything but what only a person may do, such as seeing a key's secret again.
    Service,
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
        }
    }

    /// `None` if an id or a time is none.
    pub(crate) fn read(self) -> Option<Claims> {
        Some(Claims {
            subject: self.sub.parse().ok()?,
            workspace_id: self.workspace.parse().ok()?,
            role: self.role,
            scopes: self.scopes,
            expires: OffsetDateTime::from_unix_timestamp(self.exp).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_the_own_workspace_is_found() {
        let own = WorkspaceId::generate();
        let claims = Claims {
            subject: Subject::Account(AccountId::generate()),
            workspace_id: own,
            role: Role::Admin,
            scopes: vec![],
            expires: OffsetDateTime::UNIX_EPOCH,
        };
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
