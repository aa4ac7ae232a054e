//! The use of keys: when they and their secrets were last used, and from how many addresses lately.

use domain::{KeyId, SecretId, WorkspaceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::key::Key;

/// How many addresses of a key are kept, the newest ones.
const ADDRESSES_MAX: i64 = 64;
/// Keys whose old addresses are removed in one transaction.
const SWEPT_KEYS_MAX: i64 = 1_000;

/// What calls tell of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub key_id: KeyId,
    /// Its tenant; a key of another one is left alone.
    pub workspace_id: WorkspaceId,
    /// Start of the newest call.
    pub last_used_time: OffsetDateTime,
    /// The same for its secrets; one of another key is left alone.
    pub secrets: Vec<(SecretId, OffsetDateTime)>,
    /// Where calls came from, and a time not before the newest from there.
    pub client_prints: Vec<(Vec<u8>, OffsetDateTime)>,
}

impl Store {
    /// Takes the later of each time and what is known; leaves out what is not known. Addresses count from
    /// `addresses_from` on. Each key at most once; the same again, and in any order, gives the same.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn note_uses(&self, uses: &[KeyUse], addresses_from: OffsetDateTime) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        // First: holds the rows of all keys, in the order of ids, until the end. So two writers neither count a
        // key's addresses at the same time nor wait for each other in a circle.
        note_keys(&mut tx, uses).await?;
        note_secrets(&mut tx, uses).await?;
        note_addresses(&mut tx, uses, addresses_from).await?;
        let keys = uses.iter().filter(|used| !used.client_prints.is_empty());
        count_addresses(&mut tx, &keys.map(|used| used.key_id.as_uuid()).collect::<Vec<_>>()).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets addresses that were not seen since `until`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_addresses(&self, until: OffsetDateTime) -> Result<(), StoreError> {
        loop {
            let mut tx = self.pool.begin().await?;
            let sql = "select key_id from key_activity
                       where key_id in (select key_id from key_addresses where last_used_time < $1 limit $2)
                       order by key_id for update";
            let keys: Vec<Uuid> =
                sqlx::query_scalar(sql).bind(until).bind(SWEPT_KEYS_MAX).fetch_all(&mut *tx).await?;
            if keys.is_empty() {
                return Ok(());
            }
            sqlx::query("delete from key_addresses where key_id = any($1) and last_used_time < $2")
                .bind(&keys)
                .bind(until)
                .execute(&mut *tx)
                .await?;
            count_addresses(&mut tx, &keys).await?;
            tx.commit().await?;
        }
    }
}

impl Tx {
    /// A new key's row, which says that it was never used.
    pub(super) async fn add_activity(&mut self, key: &Key) -> Result<(), StoreError> {
        sqlx::query("insert into key_activity (key_id, workspace_id) values ($1, $2)")
            .bind(key.key_id.as_uuid())
            .bind(key.workspace_id.as_uuid())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

async fn note_keys(tx: &mut PgConnection, uses: &[KeyUse]) -> Result<(), StoreError> {
    let sql = "insert into key_activity (key_id, workspace_id, last_used_time)
               select key_id, workspace_id, u.last_used_time
               from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as u (key_id, workspace_id, last_used_time)
               join keys using (key_id, workspace_id)
               order by key_id
               on conflict (key_id) do update set last_used_time = excluded.last_used_time
               where key_activity.last_used_time is null
                  or key_activity.last_used_time < excluded.last_used_time";
    sqlx::query(sql)
        .bind(uses.iter().map(|used| used.key_id.as_uuid()).collect::<Vec<_>>())
        .bind(uses.iter().map(|used| used.workspace_id.as_uuid()).collect::<Vec<_>>())
        .bind(uses.iter().map(|used| used.last_used_time).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn note_secrets(tx: &mut PgConnection, uses: &[KeyUse]) -> Result<(), StoreError> {
    let (mut keys, mut workspaces, mut secrets, mut times) = (vec![], vec![], vec![], vec![]);
    for used in uses {
        for (secret_id, at) in &used.secrets {
            keys.push(used.key_id.as_uuid());
            workspaces.push(used.workspace_id.as_uuid());
            secrets.push(secret_id.as_uuid());
            times.push(*at);
        }
    }
    let sql = "insert into secret_activity (secret_id, last_used_time)
               select secret_id, max(u.last_used_time)
               from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[])
                 as u (key_id, workspace_id, secret_id, last_used_time)
               join secrets using (secret_id, key_id) join keys using (key_id, workspace_id)
               group by secret_id order by secret_id
               on conflict (secret_id) do update set last_used_time = excluded.last_used_time
               where secret_activity.last_used_time < excluded.last_used_time";
    sqlx::query(sql).bind(keys).bind(workspaces).bind(secrets).bind(times).execute(tx).await?;
    Ok(())
}

async fn note_addresses(
    tx: &mut PgConnection,
    uses: &[KeyUse],
    from: OffsetDateTime,
) -> Result<(), StoreError> {
    let (mut keys, mut workspaces, mut prints, mut times) = (vec![], vec![], vec![], vec![]);
    for used in uses {
        for (print, at) in used.client_prints.iter().filter(|(_, at)| *at >= from) {
            keys.push(used.key_id.as_uuid());
            workspaces.push(used.workspace_id.as_uuid());
            prints.push(print.as_slice());
            times.push(*at);
        }
    }
    let sql = "insert into key_addresses (key_id, client_print, last_used_time)
               select key_id, client_print, max(u.last_used_time)
               from unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::timestamptz[])
                 as u (key_id, workspace_id, client_print, last_used_time)
               join keys using (key_id, workspace_id)
               group by key_id, client_print
               on conflict (key_id, client_print) do update set last_used_time = excluded.last_used_time
               where key_addresses.last_used_time < excluded.last_used_time";
    sqlx::query(sql).bind(&keys).bind(workspaces).bind(prints).bind(times).execute(&mut *tx).await?;
    // The newest stay, whatever the order in which they came.
    let sql = "delete from key_addresses a using (
                 select key_id, client_print, row_number() over (
                   partition by key_id order by last_used_time desc, client_print) as place
                 from key_addresses where key_id = any($1)
               ) p
               where a.key_id = p.key_id and a.client_print = p.client_print and p.place > $2";
    sqlx::query(sql).bind(keys).bind(ADDRESSES_MAX).execute(tx).await?;
    Ok(())
}

async fn count_addresses(tx: &mut PgConnection, keys: &[Uuid]) -> Result<(), StoreError> {
    let sql = "update key_activity a set address_count = c.count
               from (
                 select key_id, (select count(*) from key_addresses where key_id = k.key_id) as count
                 from unnest($1::uuid[]) as k (key_id)
               ) c
               where a.key_id = c.key_id and a.address_count <> c.count";
    sqlx::query(sql).bind(keys).execute(tx).await?;
    Ok(())
}
