//! Keys: the projection, and the events that make it.

use domain::{KeyId, SecretHash, WorkspaceId};
use serde_json::Value;
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;

use super::{Store, StoreError, Tx, ledger::Pending};
use crate::{
    caller::Caller,
    key::{Key, KeyEvent},
    ledger::Fact,
};

/// What is notified when rows were added to the outbox.
pub(super) const OUTBOX_CHANNEL: &str = "key_outbox";

/// A key as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key.
    pub key: Key,
    /// Start of its newest call; `None` if it was never used.
    pub last_used_time: Option<OffsetDateTime>,
}

impl Shown {
    fn of(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self { key: key(row)?, last_used_time: row.try_get("last_used_time")? })
    }
}

impl Store {
    /// A key of a workspace, deleted or not.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn key(&self, workspace_id: WorkspaceId, key_id: KeyId) -> Result<Option<Shown>, StoreError> {
        let sql = "select k.*, a.last_used_time from keys k left join key_activity a using (key_id)
                   where k.workspace_id = $1 and k.key_id = $2";
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(key_id.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Shown::of).transpose()
    }

    /// The key of a workspace that has the secret with this hash, deleted or not.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn key_by_hash(
        &self,
        workspace_id: WorkspaceId,
        hash: SecretHash,
    ) -> Result<Option<Shown>, StoreError> {
        let sql = "select k.*, a.last_used_time
                   from secrets s join keys k using (key_id) left join key_activity a using (key_id)
                   where s.secret_hash = $2 and k.workspace_id = $1";
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(&hash.as_bytes()[..])
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Shown::of).transpose()
    }

    /// At most `limit` keys of a workspace, newest first, those after `after` (time of creation and id).
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn keys_of(
        &self,
        workspace_id: WorkspaceId,
        show_deleted: bool,
        after: Option<(OffsetDateTime, KeyId)>,
        limit: usize,
    ) -> Result<Vec<Shown>, StoreError> {
        let (time, id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id.as_uuid())));
        let sql = "select k.*, a.last_used_time from keys k left join key_activity a using (key_id)
                   where k.workspace_id = $1 and (k.delete_time is null or $2)
                     and ($3::timestamptz is null or (k.create_time, k.key_id) < ($3, $4))
                   order by k.create_time desc, k.key_id desc limit $5";
        let rows = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(show_deleted)
            .bind(time)
            .bind(id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(Shown::of).collect()
    }
}

impl Tx {
    /// A key of a workspace, held against changes until the end of the transaction.
    ///
    /// # Errors
    /// If Postgres does not answer, or somebody else holds it too long.
    pub async fn hold_key(
        &mut self,
        workspace_id: WorkspaceId,
        key_id: KeyId,
    ) -> Result<Option<Shown>, StoreError> {
        let sql = "select k.*, a.last_used_time from keys k left join key_activity a using (key_id)
                   where k.workspace_id = $1 and k.key_id = $2 for update of k";
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(key_id.as_uuid())
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(Shown::of).transpose()
    }

    /// Appends the event that made `key` what it is, and writes the projection. The feed is told by
    /// [`Self::feed`], after the key has its secrets.
    ///
    /// # Errors
    /// If Postgres does not answer. The event itself is written at the commit.
    pub async fn record(&mut self, key: &Key, event: &KeyEvent, caller: &Caller) -> Result<(), StoreError> {
        let (kind, payload) = stored(event)?;
        let before = self.project(key).await?;
        let fact = Fact::Key { key_id: key.key_id, version: key.version, kind, payload, before };
        let Key { workspace_id, update_time: time, .. } = *key;
        self.pending.push(Pending { workspace_id, fact, caller: caller.clone(), time });
        Ok(())
    }

    /// Writes the projection; says what the fields were that are different now, `None` for a new key.
    pub(crate) async fn project(&mut self, key: &Key) -> Result<Option<Value>, StoreError> {
        let sql = "with old as (select to_jsonb(k) as fields from keys k where key_id = $1)
                   insert into keys as k
                     (key_id, workspace_id, version, display_name, description, environment, start,
                      create_time, update_time, expire_time, delete_time)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                   on conflict (key_id) do update
                   set version = excluded.version, display_name = excluded.display_name,
                       description = excluded.description, update_time = excluded.update_time,
                       expire_time = excluded.expire_time, delete_time = excluded.delete_time
                   returning (select fields from old), to_jsonb(k)";
        let (old, new): (Option<Value>, Value) = sqlx::query_as(sql)
            .bind(key.key_id.as_uuid())
            .bind(key.workspace_id.as_uuid())
            .bind(key.version)
            .bind(&key.display_name)
            .bind(&key.description)
            .bind(key.environment.as_str())
            .bind(&key.start)
            .bind(key.create_time)
            .bind(key.update_time)
            .bind(key.expire_time)
            .bind(key.delete_time)
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(old.map(|old| changed(old, &new)))
    }

    /// Puts all secrets of a key into the outbox, and wakes the relay at the commit.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn feed(&mut self, key_id: KeyId) -> Result<(), StoreError> {
        let sql = "insert into key_outbox (secret_id) select secret_id from secrets where key_id = $1";
        sqlx::query(sql).bind(key_id.as_uuid()).execute(&mut *self.inner).await?;
        sqlx::query("select pg_notify($1, '')").bind(OUTBOX_CHANNEL).execute(&mut *self.inner).await?;
        Ok(())
    }
}

/// The old values of fields that are different now, but for those that every event changes.
fn changed(old: Value, new: &Value) -> Value {
    let Value::Object(mut fields) = old else { return old };
    fields.retain(|name, was| {
        !matches!(name.as_str(), "version" | "update_time") && new[name.as_str()] != *was
    });
    Value::Object(fields)
}

/// The columns `type` and `payload` of an event.
fn stored(event: &KeyEvent) -> Result<(String, Value), StoreError> {
    let mut json = serde_json::to_value(event).map_err(|_| StoreError::Damaged("key event"))?;
    match (json["type"].as_str().map(str::to_owned), json["payload"].take()) {
        (Some(kind), payload @ Value::Object(_)) => Ok((kind, payload)),
        _ => Err(StoreError::Damaged("key event")),
    }
}

fn key(row: &PgRow) -> Result<Key, StoreError> {
    let environment: &str = row.try_get("environment")?;
    Ok(Key {
        workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
        key_id: KeyId::from_uuid(row.try_get("key_id")?),
        version: row.try_get("version")?,
        display_name: row.try_get("display_name")?,
        description: row.try_get("description")?,
        environment: environment.parse().map_err(|()| StoreError::Damaged("key"))?,
        start: row.try_get("start")?,
        create_time: row.try_get("create_time")?,
        update_time: row.try_get("update_time")?,
        expire_time: row.try_get("expire_time")?,
        delete_time: row.try_get("delete_time")?,
    })
}
