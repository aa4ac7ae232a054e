//! The projection made anew from `key_events`, in temporary tables, and how it differs from the real one. All of it
//! sees one moment, and leaves nothing behind.

use domain::{KeyId, WorkspaceId};
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::key::KeyEvent;

/// Named as the real ones, which they hide: what writes the projection writes into them.
const TABLES: [&str; 2] = ["keys", "secrets"];

/// An event with what makes it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// The key's version that it made.
    pub version: i64,
    /// When.
    pub time: OffsetDateTime,
    /// What.
    pub event: KeyEvent,
}

/// A row that is not what the events make it; `None` where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `keys` or `secrets`.
    pub table: &'static str,
    /// The row's id.
    pub id: Uuid,
    /// As it is.
    pub is: Option<Value>,
    /// As the events make it.
    pub replayed: Option<Value>,
}

impl Store {
    /// Starts a transaction in which the projection is empty.
    ///
    /// # Errors
    /// If Postgres does not answer, or refuses temporary tables.
    pub async fn begin_rebuild(&self) -> Result<Tx, StoreError> {
        let mut tx = self.begin().await?;
        let mut statements = vec![
            "set transaction isolation level repeatable read".to_owned(),
            "set local statement_timeout = 0".to_owned(),
        ];
        for table in TABLES {
            statements.push(format!(
                "create temporary table {table} (like {table} including defaults including indexes) on commit drop"
            ));
        }
        for sql in statements {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx.inner).await?;
        }
        Ok(tx)
    }
}

impl Tx {
    /// A page of events, by key and version, after a key's version.
    ///
    /// # Errors
    /// If Postgres does not answer, or an event can not be read.
    pub async fn events_after(
        &mut self,
        after: Option<(KeyId, i64)>,
        limit: i64,
    ) -> Result<Vec<Replayed>, StoreError> {
        let sql = "select workspace_id, key_id, version, event_time,
                          jsonb_build_object('type', type, 'payload', payload)
                   from key_events where (key_id, version) > ($1, $2)
                   order by key_id, version limit $3";
        let rows: Vec<(Uuid, Uuid, i64, OffsetDateTime, Value)> = sqlx::query_as(sql)
            .bind(after.map_or(Uuid::nil(), |(key_id, _)| key_id.as_uuid()))
            .bind(after.map_or(0, |(_, version)| version))
            .bind(limit)
            .fetch_all(&mut *self.inner)
            .await?;
        let read = |(workspace_id, key_id, version, time, event)| {
            Ok(Replayed {
                workspace_id: WorkspaceId::from_uuid(workspace_id),
                key_id: KeyId::from_uuid(key_id),
                version,
                time,
                event: serde_json::from_value(event).map_err(|_| StoreError::Damaged("key event"))?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Tells each row of the real projection that is not as the one in this transaction. Copies of secrets are not
    /// in the events.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn differences(&mut self, tell: &mut (dyn FnMut(Difference) + Send)) -> Result<(), StoreError> {
        let schema: String =
            sqlx::query_scalar("select format('%I', current_schema())").fetch_one(&mut *self.inner).await?;
        for table in TABLES {
            let id = table.trim_end_matches('s');
            let sql = format!(
                "select {id}_id, to_jsonb(a) - 'sealed', to_jsonb(b) - 'sealed'
                 from {schema}.{table} a full join pg_temp.{table} b using ({id}_id)
                 where to_jsonb(a) - 'sealed' is distinct from to_jsonb(b) - 'sealed'"
            );
            let mut rows = sqlx::query_as(AssertSqlSafe(sql)).fetch(&mut *self.inner);
            while let Some((id, is, replayed)) = rows.try_next().await? {
                tell(Difference { table, id, is, replayed });
            }
        }
        Ok(())
    }
}
