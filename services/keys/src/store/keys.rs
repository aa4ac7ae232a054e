//! Keys: the projection, and the events that make it.

use std::collections::BTreeMap;

use domain::{KeyId, SecretHash, SecretId, WorkspaceId};
use serde_json::Value;
use sqlx::{Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;

use super::{Store, StoreError, Tx, ledger::Pending, secrets};
use crate::{
    caller::Caller,
    key::{Key, KeyEvent},
    ledger::Fact,
};

/// What is notified when rows were added to the outbox.
pub(super) const OUTBOX_CHANNEL: &str = "key_outbox";

/// A key as it is shown. Of its secrets those are there that work or retired lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key.
    pub key: Key,
    /// What is known of its use.
    pub usage: Usage,
}

/// What is known of a key's use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Start of its newest call; `None` if it was never used.
    pub last_used_time: Option<OffsetDateTime>,
    /// From how many addresses it was used lately.
    pub address_count: i32,
    /// Start of the newest call with each of its secrets that was used.
    pub secrets: BTreeMap<SecretId, OffsetDateTime>,
}

impl Shown {
    pub(super) fn of(row: &PgRow) -> Result<Self, StoreError> {
        let (secrets, used) = secrets::of_key(row)?;
        Ok(Self {
            key: Key { secrets, ..key(row)? },
            usage: Usage {
                last_used_time: row.try_get("last_used_time")?,
                address_count: row.try_get("address_count")?,
                secrets: used,
            },
        })
    }
}

/// One key with its activity; what stands behind it must bind the workspace, the id, and as `$3` from when on
/// retired secrets are shown.
const ONE: &str = concat!(
    "select k.*, a.last_used_time, a.address_count, s.*
     from keys k join key_activity a using (key_id) ",
    secrets::join_secrets!("$3"),
    " where k.workspace_id = $1 and k.key_id = $2"
);

impl Store {
    /// A key of a workspace, deleted or not, with those of its secrets that retire after `secrets_from`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn key(
        &self,
        workspace_id: WorkspaceId,
        key_id: KeyId,
        secrets_from: OffsetDateTime,
    ) -> Result<Option<Shown>, StoreError> {
        let row = sqlx::query(ONE)
            .bind(workspace_id.as_uuid())
            .bind(key_id.as_uuid())
            .bind(secrets_from)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(Shown::of).transpose()
    }

    /// The key of a workspace that has the secret with this hash, deleted or not, with those of its secrets that
    /// retire after `secrets_from`; and which secret that is.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn key_by_hash(
        &self,
        workspace_id: WorkspaceId,
        hash: SecretHash,
        secrets_from: OffsetDateTime,
    ) -> Result<Option<(Shown, SecretId)>, StoreError> {
        let sql = concat!(
            "select k.*, a.last_used_time, a.address_count, s.*, h.secret_id, w.suspend_time
             from secrets h join keys k using (key_id) join key_activity a using (key_id)
               join workspaces w on w.workspace_id = k.workspace_id ",
            secrets::join_secrets!("$3"),
            " where h.secret_hash = $2 and k.workspace_id = $1"
        );
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(&hash.as_bytes()[..])
            .bind(secrets_from)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut shown = Shown::of(&row)?;
        // All keys of a suspended workspace are switched off.
        shown.key.disable_time = shown.key.disable_time.or(row.try_get("suspend_time")?);
        Ok(Some((shown, SecretId::from_uuid(row.try_get("secret_id")?))))
    }
}

impl Tx {
    /// A key of a workspace with those of its secrets that retire after `secrets_from`, held against changes
    /// until the end of the transaction.
    ///
    /// # Errors
    /// If Postgres does not answer, or somebody else holds it too long.
    pub async fn hold_key(
        &mut self,
        workspace_id: WorkspaceId,
        key_id: KeyId,
        secrets_from: OffsetDateTime,
    ) -> Result<Option<Shown>, StoreError> {
        // Held first: a statement that waits for the row would go on with the secrets from before its wait.
        sqlx::query("select from keys where workspace_id = $1 and key_id = $2 for update")
            .bind(workspace_id.as_uuid())
            .bind(key_id.as_uuid())
            .execute(&mut *self.inner)
            .await?;
        let row = sqlx::query(ONE)
            .bind(workspace_id.as_uuid())
            .bind(key_id.as_uuid())
            .bind(secrets_from)
            .fetch_optional(&mut *self.inner)
            .await?;
        row.as_ref().map(Shown::of).transpose()
    }

    /// Appends the event that made `key` what it is, and writes the projection but for new secrets. The feed is
    /// told by [`Self::feed`], after the key has its secrets.
    ///
    /// # Errors
    /// If Postgres does not answer. The event itself is written at the commit.
    pub async fn record(&mut self, key: &Key, event: &KeyEvent, caller: &Caller) -> Result<(), StoreError> {
        let (kind, payload) = stored(event)?;
        let before = self.project(key).await?;
        if key.version > 1 {
            self.project_secrets(key).await?;
        } else {
            self.add_activity(key).await?;
        }
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
                      create_time, update_time, expire_time, delete_time,
                      tags, owner, scopes, allowed_networks, rate_limits, disable_time, expose_time)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
                   on conflict (key_id) do update
                   set version = excluded.version, display_name = excluded.display_name,
                       description = excluded.description, start = excluded.start,
                       update_time = excluded.update_time, expire_time = excluded.expire_time,
                       delete_time = excluded.delete_time, tags = excluded.tags, owner = excluded.owner,
                       scopes = excluded.scopes, allowed_networks = excluded.allowed_networks,
                       rate_limits = excluded.rate_limits, disable_time = excluded.disable_time,
                       expose_time = excluded.expose_time
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
            .bind(Json(&key.tags))
            .bind(key.owner.map(|owner| owner.to_string()).unwrap_or_default())
            .bind(&key.scopes)
            .bind(key.allowed_networks.iter().map(ToString::to_string).collect::<Vec<_>>())
            .bind(Json(&key.rate_limits))
            .bind(key.disable_time)
            .bind(key.expose_time)
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

    /// The event that made a key's version.
    ///
    /// # Errors
    /// If Postgres does not answer, or has no such event.
    pub async fn event(&mut self, key_id: KeyId, version: i64) -> Result<KeyEvent, StoreError> {
        let sql = "select jsonb_build_object('type', type, 'payload', payload)
                   from key_events where key_id = $1 and version = $2";
        let json: Option<Value> = sqlx::query_scalar(sql)
            .bind(key_id.as_uuid())
            .bind(version)
            .fetch_optional(&mut *self.inner)
            .await?;
        json.and_then(|json| serde_json::from_value(json).ok()).ok_or(StoreError::Damaged("key event"))
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

/// The key of a row, without its secrets.
fn key(row: &PgRow) -> Result<Key, StoreError> {
    let damaged = || StoreError::Damaged("key");
    let environment: &str = row.try_get("environment")?;
    let owner: &str = row.try_get("owner")?;
    let owner = (!owner.is_empty()).then(|| owner.parse()).transpose();
    let networks: Vec<String> = row.try_get("allowed_networks")?;
    let networks: Result<_, _> = networks.iter().map(|network| network.parse()).collect();
    Ok(Key {
        workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
        key_id: KeyId::from_uuid(row.try_get("key_id")?),
        version: row.try_get("version")?,
        display_name: row.try_get("display_name")?,
        description: row.try_get("description")?,
        environment: environment.parse().map_err(|()| damaged())?,
        start: row.try_get("start")?,
        tags: row.try_get::<Json<_>, _>("tags")?.0,
        owner: owner.map_err(|_| damaged())?,
        scopes: row.try_get("scopes")?,
        allowed_networks: networks.map_err(|_| damaged())?,
        rate_limits: row.try_get::<Json<_>, _>("rate_limits")?.0,
        create_time: row.try_get("create_time")?,
        update_time: row.try_get("update_time")?,
        expire_time: row.try_get("expire_time")?,
        disable_time: row.try_get("disable_time")?,
        expose_time: row.try_get("expose_time")?,
        delete_time: row.try_get("delete_time")?,
        secrets: Vec::new(),
    })
}
