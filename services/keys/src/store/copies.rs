//! Whether a workspace keeps sealed copies of its secrets. Without a data key there is none, and none is added.

use domain::WorkspaceId;

use super::{StoreError, Tx};
use crate::seal::Wrapped;

impl Tx {
    /// Ends copying in a workspace: destroys its copies and the key that they are sealed under. Creations that are
    /// just going on end first; later ones keep no copy.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn stop_copies(&mut self, workspace_id: WorkspaceId) -> Result<(), StoreError> {
        for sql in [
            // First, since it waits for those who add copies.
            "delete from workspace_data_keys where workspace_id = $1",
            "update secrets set sealed = null
             where sealed is not null and key_id in (select key_id from keys where workspace_id = $1)",
            "update workspaces set keep_copies = false where workspace_id = $1",
        ] {
            sqlx::query(sql).bind(workspace_id.as_uuid()).execute(&mut *self.inner).await?;
        }
        Ok(())
    }

    /// Starts copying in a workspace under a new data key, if it does not copy already. Secrets made before have
    /// no copies.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn start_copies(
        &mut self,
        workspace_id: WorkspaceId,
        wrapped: &Wrapped,
    ) -> Result<(), StoreError> {
        let sql = "with started as (
                     update workspaces set keep_copies = true where workspace_id = $1 returning workspace_id
                   )
                   insert into workspace_data_keys (workspace_id, kek_id, wrapped_key, create_time)
                   select workspace_id, $2, $3, now() from started on conflict do nothing";
        sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(&wrapped.kek_id)
            .bind(&wrapped.bytes)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
