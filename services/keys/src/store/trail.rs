//! The audit trail as it is read: changes of keys and everything else together, newest first.

use domain::{KeyId, WorkspaceId};
use proto::resource::key_name;
use serde_json::Value;
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;

use super::{Store, StoreError, ledger::origin_of};
use crate::ledger::Address;

/// Something that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the workspace's chain: 1, 2, 3 …
    pub sequence: i64,
    /// When.
    pub time: OffsetDateTime,
    /// `create_key`, `reveal_key`, `remove_member` …
    pub action: String,
    /// A resource name.
    pub resource: String,
    /// `acc_…`, `svc_…` or the name of a command.
    pub actor: String,
    /// An IP address, `erased` or `unreadable`.
    pub from_address: Option<String>,
    /// The changed fields before.
    pub before: Option<Value>,
    /// The changed fields after.
    pub after: Option<Value>,
}

/// Which entries are meant; `None` is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who.
    pub actor: Option<String>,
    /// What.
    pub action: Option<String>,
    /// To what.
    pub resource: Option<Target>,
    /// At or after it.
    pub from: Option<OffsetDateTime>,
    /// Before it.
    pub to: Option<OffsetDateTime>,
}

/// A resource that entries are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its id, where it is a key.
    pub key_id: Option<KeyId>,
}

/// `type` of a key event by its action.
const KEY_ACTIONS: &[(&str, &str)] = &[
    ("create_key", "created"),
    ("update_key", "updated"),
    ("disable_key", "disabled"),
    ("enable_key", "enabled"),
    ("rotate_key", "rotated"),
    ("retire_secret", "secret_retired"),
    ("expose_key", "exposed"),
    ("delete_key", "deleted"),
];

// Each half is read along its chain, no further than one page.
const PAGE: &str = "
    select * from (
      (select sequence, event_time as time, type as action, key_id, null as resource, actor, from_address,
              person_key_id, personal, before, payload as after
       from key_events
       where workspace_id = $1 and ($2::text is null or actor = $2) and ($3::text is null or type = $4)
         and ($5::text is null or key_id = $6)
         and event_time >= $7 and ($8::timestamptz is null or event_time < $8)
         and ($9::bigint is null or sequence < $9)
       order by sequence desc limit $10)
      union all
      (select sequence, entry_time, action, null, resource, actor, from_address, person_key_id, personal,
              before, after
       from audit_entries
       where workspace_id = $1 and ($2::text is null or actor = $2) and ($3::text is null or action = $3)
         and ($5::text is null or resource = $5)
         and entry_time >= $7 and ($8::timestamptz is null or entry_time < $8)
         and ($9::bigint is null or sequence < $9)
       order by sequence desc limit $10)
    ) as entries
    order by sequence desc limit $10";

impl Store {
    /// At most `limit` entries of a workspace that are not older than `since`, newest first, those before a
    /// place.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn trail(
        &self,
        workspace_id: WorkspaceId,
        filter: &Filter,
        since: OffsetDateTime,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let action = filter.action.as_deref();
        let kind = KEY_ACTIONS.iter().find(|(name, _)| Some(*name) == action).map(|(_, kind)| *kind);
        let rows = sqlx::query(PAGE)
            .bind(workspace_id.as_uuid())
            .bind(&filter.actor)
            .bind(action)
            .bind(kind)
            .bind(filter.resource.as_ref().map(|target| &target.name))
            .bind(filter.resource.as_ref().and_then(|target| target.key_id).map(|id| id.as_uuid()))
            .bind(filter.from.map_or(since, |from| from.max(since)))
            .bind(filter.to)
            .bind(before)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        let mut entries = Vec::with_capacity(rows.len());
        let mut origins = Vec::with_capacity(rows.len());
        for row in &rows {
            let entry = entry(workspace_id, row)?;
            origins.push(((workspace_id, entry.sequence), origin_of(row)?));
            entries.push(entry);
        }
        let places: Vec<_> = origins.iter().map(|(place, origin)| (*place, origin)).collect();
        for (entry, address) in entries.iter_mut().zip(self.addresses(&places).await?) {
            entry.from_address = match address {
                Address::None => None,
                Address::Known(address) => Some(address),
                Address::Erased => Some("erased".to_owned()),
                Address::Unreadable => Some("unreadable".to_owned()),
            };
        }
        Ok(entries)
    }
}

fn entry(workspace_id: WorkspaceId, row: &PgRow) -> Result<Entry, StoreError> {
    let (action, resource) = match row.try_get::<Option<_>, _>("key_id")? {
        Some(key_id) => {
            let kind: &str = row.try_get("action")?;
            let action = KEY_ACTIONS.iter().find(|(_, stored)| *stored == kind).map(|(name, _)| *name);
            let action = action.ok_or(StoreError::Damaged("key event"))?.to_owned();
            (action, key_name(workspace_id, KeyId::from_uuid(key_id)))
        }
        None => (row.try_get("action")?, row.try_get("resource")?),
    };
    Ok(Entry {
        sequence: row.try_get("sequence")?,
        time: row.try_get("time")?,
        action,
        resource,
        actor: row.try_get("actor")?,
        from_address: None,
        before: row.try_get::<Option<Value>, _>("before")?.map(shown),
        after: row.try_get::<Option<Value>, _>("after")?.map(shown),
    })
}

/// Without hashes of secrets: whoever has one could try secrets against it.
fn shown(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("secret_hash");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hashes_are_not_shown() {
        let stored =
            json!({"start": "km_live_0", "secret_hash": "ab", "secrets": [{"secret_hash": "cd", "n": 1}]});
        assert_eq!(shown(stored), json!({"start": "km_live_0", "secrets": [{"n": 1}]}));
    }
}
