//! Which key events are still to be announced. Places in a chain are taken in the order of commits, so what lies
//! behind the last one announced is complete.

use domain::{KeyId, WorkspaceId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};

/// A chain that is longer than what was announced of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unannounced {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The last place that was announced.
    pub after: i64,
    /// The last place there is.
    pub up_to: i64,
}

/// A key event without what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Its place in the workspace's chain.
    pub sequence: i64,
    /// The key.
    pub key_id: KeyId,
    /// The key's version that the event made.
    pub version: i64,
    /// `created`, `exposed`, …
    pub kind: String,
    /// `acc_…`, `svc_…`, or the name of a command.
    pub actor: String,
    /// When.
    pub time: OffsetDateTime,
}

type Row = (i64, Uuid, i64, String, String, OffsetDateTime);

impl Store {
    /// At most `limit` chains with something to announce.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn unannounced(&self, limit: i64) -> Result<Vec<Unannounced>, StoreError> {
        let sql = "select workspace_id, coalesce(a.sequence, 0), c.sequence
                   from workspace_chains c left join announced_key_events a using (workspace_id)
                   where c.sequence > coalesce(a.sequence, 0) limit $1";
        let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(sql).bind(limit).fetch_all(&self.pool).await?;
        let read =
            |(id, after, up_to)| Unannounced { workspace_id: WorkspaceId::from_uuid(id), after, up_to };
        Ok(rows.into_iter().map(read).collect())
    }

    /// At most `limit` key events of what is to be announced, in their order.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn happened(&self, what: Unannounced, limit: i64) -> Result<Vec<Happened>, StoreError> {
        let sql = "select sequence, key_id, version, type, actor, event_time from key_events
                   where workspace_id = $1 and sequence > $2 and sequence <= $3 order by sequence limit $4";
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(what.workspace_id.as_uuid())
            .bind(what.after)
            .bind(what.up_to)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        let read = |(sequence, key_id, version, kind, actor, time)| Happened {
            sequence,
            key_id: KeyId::from_uuid(key_id),
            version,
            kind,
            actor,
            time,
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Notes up to where a chain was announced; never less than before.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn announced(&self, workspace_id: WorkspaceId, up_to: i64) -> Result<(), StoreError> {
        let sql = "insert into announced_key_events as a (workspace_id, sequence) values ($1, $2)
                   on conflict (workspace_id) do update set sequence = greatest(a.sequence, excluded.sequence)";
        sqlx::query(sql).bind(workspace_id.as_uuid()).bind(up_to).execute(&self.pool).await?;
        Ok(())
    }
}
