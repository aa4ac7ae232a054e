//! Whose secret was found somewhere, and what is to happen to its key.

use domain::{KeyId, SecretHash, SecretId, WorkspaceId};
use uuid::Uuid;

use super::{Store, StoreError, Tx};

impl Store {
    /// Whose secret has this hash, over all workspaces.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn secret_owner(
        &self,
        hash: SecretHash,
    ) -> Result<Option<(WorkspaceId, KeyId, SecretId)>, StoreError> {
        let sql = "select k.workspace_id, k.key_id, s.secret_id
                   from secrets s join keys k using (key_id) where s.secret_hash = $1";
        let row: Option<(Uuid, Uuid, Uuid)> =
            sqlx::query_as(sql).bind(&hash.as_bytes()[..]).fetch_optional(&self.pool).await?;
        Ok(row.map(|(workspace_id, key_id, secret_id)| {
            (WorkspaceId::from_uuid(workspace_id), KeyId::from_uuid(key_id), SecretId::from_uuid(secret_id))
        }))
    }
}

impl Tx {
    /// Whether a workspace wants keys switched off when a leak is reported.
    ///
    /// # Errors
    /// If Postgres does not answer, or there is no such workspace.
    pub async fn disables_exposed_keys(&mut self, workspace_id: WorkspaceId) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar("select disable_exposed_keys from workspaces where workspace_id = $1")
            .bind(workspace_id.as_uuid())
            .fetch_one(&mut *self.inner)
            .await?)
    }
}
