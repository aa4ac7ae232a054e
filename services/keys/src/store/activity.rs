//! When keys were last used.

use domain::{KeyId, WorkspaceId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};

/// A key's newest known call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastUse {
    /// The key.
    pub key_id: KeyId,
    /// Its tenant; a key of another one is left alone.
    pub workspace_id: WorkspaceId,
    /// Start of the call.
    pub last_used_time: OffsetDateTime,
}

impl Store {
    /// Takes the later of each time and what is known; leaves out keys that are not known. Each key at most once,
    /// in the order of ids, so that two writers do not wait for each other in a circle.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn note_last_uses(&self, uses: &[LastUse]) -> Result<(), StoreError> {
        let key_ids: Vec<Uuid> = uses.iter().map(|last| last.key_id.as_uuid()).collect();
        let workspace_ids: Vec<Uuid> = uses.iter().map(|last| last.workspace_id.as_uuid()).collect();
        let times: Vec<OffsetDateTime> = uses.iter().map(|last| last.last_used_time).collect();
        let sql = "insert into key_activity (key_id, last_used_time)
                   select key_id, u.last_used_time
                   from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as u (key_id, workspace_id, last_used_time)
                   join keys using (key_id, workspace_id)
                   order by key_id
                   on conflict (key_id) do update
                   set last_used_time = excluded.last_used_time
                   where key_activity.last_used_time < excluded.last_used_time";
        sqlx::query(sql).bind(key_ids).bind(workspace_ids).bind(times).execute(&self.pool).await?;
        Ok(())
    }
}
