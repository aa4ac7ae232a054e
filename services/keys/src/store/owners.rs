//! Who may own a key.

use access::Subject;
use domain::WorkspaceId;

use super::{StoreError, Tx};

impl Tx {
    /// Whether somebody is a member, or a service token that was not revoked, of a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn is_inside(&mut self, workspace_id: WorkspaceId, who: Subject) -> Result<bool, StoreError> {
        let (sql, id) = match who {
            Subject::Account(id) => (
                "select exists (select from memberships where workspace_id = $1 and account_id = $2)",
                id.as_uuid(),
            ),
            Subject::Service(id) => (
                "select exists (select from service_tokens
                 where workspace_id = $1 and service_token_id = $2 and revoke_time is null)",
                id.as_uuid(),
            ),
        };
        Ok(sqlx::query_scalar(sql).bind(workspace_id.as_uuid()).bind(id).fetch_one(&mut *self.inner).await?)
    }
}
