//! Sealed copies of secrets, for a whole workspace.

use domain::WorkspaceId;

use super::{StoreError, Tx};

impl Tx {
    /// Destroys all sealed copies of a workspace.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn stop_copies(&mut self, workspace_id: WorkspaceId) -> Result<(), StoreError> {
        let sql = "update secrets s set sealed = null from keys k
                   where k.key_id = s.key_id and k.workspace_id = $1 and s.sealed is not null";
        sqlx::query(sql).bind(workspace_id.as_uuid()).execute(&mut *self.inner).await?;
        Ok(())
    }
}
