//! The end of an audit trail: entries over their time leave, their places in the chain stay. The service's role can
//! take out nothing else, and nothing without the database's own look at the clock.

use domain::WorkspaceId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::ledger::{PRUNE_ACTION, Pruned};

/// Most entries that leave one trail at once.
const ENTRIES_MAX: i64 = 10_000;

/// A trail with entries that are over their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlong {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The last sequence that may go now.
    pub up_to: i64,
}

impl Store {
    /// Trails whose oldest entry is over its time by a day, so that one is cut once a day at most. Records of
    /// earlier cuts alone are no reason for another.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn overlong_trails(&self, now: OffsetDateTime) -> Result<Vec<Overlong>, StoreError> {
        let sql = "select w.workspace_id, over.up_to
                   from workspaces w
                   cross join lateral (
                     select entry_time from audit_entries e
                     where e.workspace_id = w.workspace_id and e.action <> $2 order by sequence limit 1) oldest
                   cross join lateral (
                     select max(sequence) filter (
                              where entry_time < $1 - make_interval(days => w.audit_retention_days)) as up_to
                     from (select sequence, entry_time from audit_entries e
                           where e.workspace_id = w.workspace_id order by sequence limit $3) first) over
                   where oldest.entry_time < $1 - make_interval(days => w.audit_retention_days + 1)";
        let rows: Vec<(Uuid, i64)> =
            sqlx::query_as(sql).bind(now).bind(PRUNE_ACTION).bind(ENTRIES_MAX).fetch_all(&self.pool).await?;
        let read = |(id, up_to)| Overlong { workspace_id: WorkspaceId::from_uuid(id), up_to };
        Ok(rows.into_iter().map(read).collect())
    }
}

impl Tx {
    /// Takes entries over their time out of a trail, and says what of it is gone by now; `None` if there were none.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn prune_trail(&mut self, trail: Overlong) -> Result<Option<Pruned>, StoreError> {
        let id = trail.workspace_id.as_uuid();
        // One at a time, so that each counts on from the one before. What the table of places holds is not
        // counted: nobody but this puts any there.
        self.lock("prune audit trails").await?;
        let sql = "select (after ->> 'entries')::bigint from audit_entries
                   where workspace_id = $1 and action = $2 order by sequence desc limit 1";
        let last =
            sqlx::query_scalar(sql).bind(id).bind(PRUNE_ACTION).fetch_optional(&mut *self.inner).await?;
        let before: i64 = last.flatten().unwrap_or(0);
        let sql = "select prune_audit_entries($1, $2)";
        let went: i64 =
            sqlx::query_scalar(sql).bind(id).bind(trail.up_to).fetch_one(&mut *self.inner).await?;
        Ok((went > 0).then_some(Pruned { up_to_sequence: trail.up_to, entries: before + went }))
    }
}
