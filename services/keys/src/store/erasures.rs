//! Deleted workspaces: their end in the tables, what the bucket is still to be told, which keys still live.

use domain::{KeyId, WorkspaceId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// That a workspace was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Events that began before it are to be gone.
    pub up_to: OffsetDateTime,
}

/// A living key of a deleted workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// Who deleted the workspace.
    pub actor: String,
}

impl Tx {
    /// Ends a workspace: nobody is in it, nothing opens its copies, edges refuse its keys. The row stays as a
    /// tombstone without a name.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn end_workspace(
        &mut self,
        erasure: Erasure,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let id = erasure.workspace_id.as_uuid();
        // Suspended as well, so that a key that is just being made never works.
        let sql = "update workspaces set display_name = '', delete_time = $2, suspend_time = $2
                   where workspace_id = $1";
        sqlx::query(sql).bind(id).bind(now).execute(&mut *self.inner).await?;
        for sql in [
            "delete from memberships where workspace_id = $1",
            "delete from invitations where workspace_id = $1",
            "delete from service_tokens where workspace_id = $1",
            "delete from idempotency_keys where workspace_id = $1",
            "delete from workspace_data_keys where workspace_id = $1",
        ] {
            sqlx::query(sql).bind(id).execute(&mut *self.inner).await?;
        }
        let sql = "insert into erasures (workspace_id, up_to, actor) values ($1, $2, $3)";
        sqlx::query(sql).bind(id).bind(erasure.up_to).bind(actor).execute(&mut *self.inner).await?;
        Ok(())
    }
}

impl Store {
    /// Erasures: all of them, or those that the bucket was not told.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn erasures(&self, all: bool) -> Result<Vec<Erasure>, StoreError> {
        let sql = "select workspace_id, up_to from erasures where $1 or not relayed order by workspace_id";
        let rows: Vec<(Uuid, OffsetDateTime)> = sqlx::query_as(sql).bind(all).fetch_all(&self.pool).await?;
        let read = |(id, up_to)| Erasure { workspace_id: WorkspaceId::from_uuid(id), up_to };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Notes that the bucket was told of an erasure.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn relayed_erasure(&self, workspace_id: WorkspaceId) -> Result<(), StoreError> {
        sqlx::query("update erasures set relayed = true where workspace_id = $1")
            .bind(workspace_id.as_uuid())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// At most `limit` living keys of deleted workspaces.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn orphans(&self, limit: usize) -> Result<Vec<Orphan>, StoreError> {
        // One look into the index for each erasure, never a scan of all keys.
        let sql = "select e.workspace_id, k.key_id, e.actor from erasures e
                   cross join lateral (select key_id from keys
                                       where workspace_id = e.workspace_id and delete_time is null limit $1) k
                   limit $1";
        let rows: Vec<(Uuid, Uuid, String)> =
            sqlx::query_as(sql).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&self.pool).await?;
        let read = |(workspace_id, key_id, actor)| Orphan {
            workspace_id: WorkspaceId::from_uuid(workspace_id),
            key_id: KeyId::from_uuid(key_id),
            actor,
        };
        Ok(rows.into_iter().map(read).collect())
    }
}
