//! How long workspaces keep their single calls, and what the bucket is still to be told of it.

use domain::WorkspaceId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// What a workspace has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// For how many days.
    pub days: i32,
    /// When.
    pub chosen_at: OffsetDateTime,
}

impl Tx {
    /// Keeps single calls of a workspace for so many days.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn choose_request_retention(
        &mut self,
        workspace_id: WorkspaceId,
        days: i32,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        // Later than the choice before, whatever the clock says: the later one holds.
        let sql = "update workspaces
                   set request_retention_days = $2, request_retention_told = false,
                       request_retention_time =
                         greatest($3, request_retention_time + interval '1 millisecond')
                   where workspace_id = $1";
        let query = sqlx::query(sql).bind(workspace_id.as_uuid()).bind(days).bind(now);
        query.execute(&mut *self.inner).await?;
        Ok(())
    }
}

impl Store {
    /// Retentions that were ever changed: all of them, or those that the bucket was not told.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn request_retentions(&self, all: bool) -> Result<Vec<Retention>, StoreError> {
        let sql = "select workspace_id, request_retention_days, request_retention_time from workspaces
                   where ($1 or not request_retention_told) and request_retention_time is not null
                     and delete_time is null
                   order by workspace_id";
        let rows: Vec<(Uuid, i32, OffsetDateTime)> =
            sqlx::query_as(sql).bind(all).fetch_all(&self.pool).await?;
        let read =
            |(id, days, chosen_at)| Retention { workspace_id: WorkspaceId::from_uuid(id), days, chosen_at };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Notes that the bucket was told of it, unless it was changed meanwhile.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn told_request_retention(&self, retention: Retention) -> Result<(), StoreError> {
        let sql = "update workspaces set request_retention_told = true
                   where workspace_id = $1 and request_retention_time = $2";
        let query = sqlx::query(sql).bind(retention.workspace_id.as_uuid()).bind(retention.chosen_at);
        query.execute(&self.pool).await?;
        Ok(())
    }
}
