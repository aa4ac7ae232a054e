//! Resource names: `workspaces/{workspace}`, and what is in one: `…/keys/{key}`, `…/keys/{key}/secrets/{secret}`,
//! `…/requests/{request}`, `…/members/{member}`, `…/invitations/{invitation}`,
//! `…/serviceTokens/{service_token}`, `…/auditEntries/{audit_entry}`.

use domain::{
    AccountId, Id, IdError, InvitationId, KeyId, RequestId, SecretId, ServiceTokenId, WorkspaceId, id::Noun,
};

/// Why a text is no name of the wanted resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Other segments.
    #[error("expected the form {0}")]
    Form(&'static str),
    /// The right segments, but an id is none.
    #[error("{0}")]
    Id(#[from] IdError),
}

/// `workspaces/{workspace}`.
#[must_use]
pub fn workspace_name(workspace_id: WorkspaceId) -> String {
    format!("workspaces/{workspace_id}")
}

/// `workspaces/{workspace}/keys/{key}`.
#[must_use]
pub fn key_name(workspace_id: WorkspaceId, key_id: KeyId) -> String {
    format!("workspaces/{workspace_id}/keys/{key_id}")
}

/// `workspaces/{workspace}/keys/{key}/secrets/{secret}`.
#[must_use]
pub fn secret_name(workspace_id: WorkspaceId, key_id: KeyId, secret_id: SecretId) -> String {
    format!("workspaces/{workspace_id}/keys/{key_id}/secrets/{secret_id}")
}

/// `workspaces/{workspace}/requests/{request}`.
#[must_use]
pub fn request_name(workspace_id: WorkspaceId, request_id: RequestId) -> String {
    format!("workspaces/{workspace_id}/requests/{request_id}")
}

/// `workspaces/{workspace}/members/{member}`.
#[must_use]
pub fn member_name(workspace_id: WorkspaceId, account_id: AccountId) -> String {
    format!("workspaces/{workspace_id}/members/{account_id}")
}

/// `workspaces/{workspace}/invitations/{invitation}`.
#[must_use]
pub fn invitation_name(workspace_id: WorkspaceId, invitation_id: InvitationId) -> String {
    format!("workspaces/{workspace_id}/invitations/{invitation_id}")
}

/// `workspaces/{workspace}/serviceTokens/{service_token}`.
#[must_use]
pub fn service_token_name(workspace_id: WorkspaceId, service_token_id: ServiceTokenId) -> String {
    format!("workspaces/{workspace_id}/serviceTokens/{service_token_id}")
}

/// `workspaces/{workspace}/auditEntries/{audit_entry}`.
#[must_use]
pub fn audit_entry_name(workspace_id: WorkspaceId, audit_entry_id: &str) -> String {
    format!("workspaces/{workspace_id}/auditEntries/{audit_entry_id}")
}

/// Reads `workspaces/{workspace}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_workspace_name(name: &str) -> Result<WorkspaceId, NameError> {
    const FORM: &str = "workspaces/{workspace}";
    match name.split('/').collect::<Vec<_>>()[..] {
        ["workspaces", id] => Ok(id.parse()?),
        _ => Err(NameError::Form(FORM)),
    }
}

/// Reads `workspaces/{workspace}/keys/{key}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_key_name(name: &str) -> Result<(WorkspaceId, KeyId), NameError> {
    parse_child(name, "keys", "workspaces/{workspace}/keys/{key}")
}

/// Reads `workspaces/{workspace}/keys/{key}/secrets/{secret}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_secret_name(name: &str) -> Result<(WorkspaceId, (KeyId, SecretId)), NameError> {
    match name.split('/').collect::<Vec<_>>()[..] {
        ["workspaces", workspace, "keys", key, "secrets", secret] => {
            Ok((workspace.parse()?, (key.parse()?, secret.parse()?)))
        }
        _ => Err(NameError::Form("workspaces/{workspace}/keys/{key}/secrets/{secret}")),
    }
}

/// Reads `workspaces/{workspace}/requests/{request}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_request_name(name: &str) -> Result<(WorkspaceId, RequestId), NameError> {
    parse_child(name, "requests", "workspaces/{workspace}/requests/{request}")
}

/// Reads `workspaces/{workspace}/members/{member}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_member_name(name: &str) -> Result<(WorkspaceId, AccountId), NameError> {
    parse_child(name, "members", "workspaces/{workspace}/members/{member}")
}

/// Reads `workspaces/{workspace}/invitations/{invitation}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_invitation_name(name: &str) -> Result<(WorkspaceId, InvitationId), NameError> {
    parse_child(name, "invitations", "workspaces/{workspace}/invitations/{invitation}")
}

/// Reads `workspaces/{workspace}/serviceTokens/{service_token}`.
///
/// # Errors
/// What is wrong with the name.
pub fn parse_service_token_name(name: &str) -> Result<(WorkspaceId, ServiceTokenId), NameError> {
    parse_child(name, "serviceTokens", "workspaces/{workspace}/serviceTokens/{service_token}")
}

fn parse_child<N: Noun>(
    name: &str,
    collection: &str,
    form: &'static str,
) -> Result<(WorkspaceId, Id<N>), NameError> {
    match name.split('/').collect::<Vec<_>>()[..] {
        ["workspaces", workspace, found, id] if found == collection => Ok((workspace.parse()?, id.parse()?)),
        _ => Err(NameError::Form(form)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        let (workspace, key) = (WorkspaceId::generate(), KeyId::generate());
        let name = key_name(workspace, key);
        assert_eq!(parse_key_name(&name), Ok((workspace, key)));
        assert_eq!(parse_workspace_name(&workspace_name(workspace)), Ok(workspace));
        assert!(matches!(parse_workspace_name(&name), Err(NameError::Form(_))));
        assert!(matches!(parse_request_name(&name), Err(NameError::Form(_))));
        assert!(matches!(parse_key_name(&format!("workspaces/x/keys/{key}")), Err(NameError::Id(_))));
        assert!(matches!(parse_key_name(""), Err(NameError::Form(_))));
        let secret = SecretId::generate();
        let of_secret = secret_name(workspace, key, secret);
        assert_eq!(parse_secret_name(&of_secret), Ok((workspace, (key, secret))));
        assert!(matches!(parse_secret_name(&name), Err(NameError::Form(_))));
        assert!(matches!(parse_key_name(&of_secret), Err(NameError::Form(_))));
    }
}
