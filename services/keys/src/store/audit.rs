//! Who did what, where it is no change of a key.

use domain::WorkspaceId;
use time::OffsetDateTime;

use super::{StoreError, Tx};
use crate::caller::Caller;

impl Tx {
    /// Adds an entry.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn audit(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        resource: &str,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let sql =
            "insert into audit_entries (workspace_id, action, resource, actor, from_address, entry_time)
                   values ($1, $2, $3, $4, $5, $6)";
        sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(action)
            .bind(resource)
            .bind(&caller.actor)
            .bind(caller.address.map(|address| address.to_string()))
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// When an actor did something in a workspace since `since`, oldest first.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn audited(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        actor: &str,
        since: OffsetDateTime,
    ) -> Result<Vec<OffsetDateTime>, StoreError> {
        let sql = "select entry_time from audit_entries
                   where workspace_id = $1 and action = $2 and actor = $3 and entry_time > $4
                   order by entry_time";
        Ok(sqlx::query_scalar(sql)
            .bind(workspace_id.as_uuid())
            .bind(action)
            .bind(actor)
            .bind(since)
            .fetch_all(&mut *self.inner)
            .await?)
    }
}
