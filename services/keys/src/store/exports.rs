//! Keys of a workspace as an export shows them: every column of the projection, no hash and no copy.

use domain::{KeyId, WorkspaceId};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// At most `limit` keys of a workspace, newest first, those after `after`: where each stands, and its row as
    /// JSON without ids.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn exported_keys(
        &self,
        workspace_id: WorkspaceId,
        after: Option<(OffsetDateTime, KeyId)>,
        limit: usize,
    ) -> Result<Vec<((OffsetDateTime, KeyId), Value)>, StoreError> {
        let (time, id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id.as_uuid())));
        let sql = "select create_time, key_id, to_jsonb(k) - 'key_id' - 'workspace_id' from keys k
                   where workspace_id = $1 and ($2::timestamptz is null or (create_time, key_id) < ($2, $3))
                   order by create_time desc, key_id desc limit $4";
        let rows: Vec<(OffsetDateTime, Uuid, Value)> = sqlx::query_as(sql)
            .bind(workspace_id.as_uuid())
            .bind(time)
            .bind(id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|(time, id, row)| ((time, KeyId::from_uuid(id)), row)).collect())
    }
}
