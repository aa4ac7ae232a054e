//! Secrets of keys: hashes for verification, sealed copies for the clipboard.

use std::collections::BTreeMap;

use domain::{KeyId, SecretHash, SecretId};
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::key::{Key, KeySecret};

/// A join that adds the secrets of each key `k` as arrays, newest first: those that work and those that retire
/// after the argument. In one statement with the key, so that both are of one moment.
macro_rules! join_secrets {
    ($from:literal) => {
        concat!(
            "cross join lateral (
               select array_agg(s.secret_id order by s.key_version desc) as secret_ids,
                      array_agg(s.secret_hash order by s.key_version desc) as secret_hashes,
                      array_agg(s.start order by s.key_version desc) as secret_starts,
                      array_agg(s.key_version order by s.key_version desc) as secret_versions,
                      array_agg(s.create_time order by s.key_version desc) as secret_create_times,
                      array_agg(s.retire_time order by s.key_version desc) as secret_retire_times,
                      array_agg(s.expose_time order by s.key_version desc) as secret_expose_times,
                      array_agg(u.last_used_time order by s.key_version desc) as secret_last_used_times
               from secrets s left join secret_activity u using (secret_id)
               where s.key_id = k.key_id and (s.retire_time is null or s.retire_time > ",
            $from,
            ")) s"
        )
    };
}
pub(super) use join_secrets;

/// When secrets were last used, those that were.
type LastUses = BTreeMap<SecretId, OffsetDateTime>;

/// What [`join_secrets`] added to a row.
pub(super) fn of_key(row: &PgRow) -> Result<(Vec<KeySecret>, LastUses), StoreError> {
    type Times = Option<Vec<Option<OffsetDateTime>>>;
    let ids: Vec<Uuid> = row.try_get::<Option<_>, _>("secret_ids")?.unwrap_or_default();
    let hashes: Vec<Vec<u8>> = row.try_get::<Option<_>, _>("secret_hashes")?.unwrap_or_default();
    let starts: Vec<String> = row.try_get::<Option<_>, _>("secret_starts")?.unwrap_or_default();
    let versions: Vec<i64> = row.try_get::<Option<_>, _>("secret_versions")?.unwrap_or_default();
    let create_times: Vec<OffsetDateTime> =
        row.try_get::<Option<_>, _>("secret_create_times")?.unwrap_or_default();
    let retire_times = row.try_get::<Times, _>("secret_retire_times")?.unwrap_or_default();
    let expose_times = row.try_get::<Times, _>("secret_expose_times")?.unwrap_or_default();
    let last_used_times = row.try_get::<Times, _>("secret_last_used_times")?.unwrap_or_default();
    let mut secrets = Vec::with_capacity(ids.len());
    let mut used = BTreeMap::new();
    for (i, (id, start)) in ids.into_iter().zip(starts).enumerate() {
        let secret_id = SecretId::from_uuid(id);
        secrets.push(KeySecret {
            secret_id,
            hash: SecretHash::from_slice(&hashes[i]).ok_or(StoreError::Damaged("secret"))?,
            start,
            key_version: versions[i],
            create_time: create_times[i],
            retire_time: retire_times[i],
            expose_time: expose_times[i],
        });
        used.extend(last_used_times[i].map(|at| (secret_id, at)));
    }
    Ok((secrets, used))
}

impl Tx {
    /// Adds a secret to a key; its copy only while the workspace keeps copies, and that can not end meanwhile.
    ///
    /// # Errors
    /// If Postgres does not answer, or a secret has this hash already.
    pub async fn add_secret(
        &mut self,
        key_id: KeyId,
        secret: &KeySecret,
        sealed: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let sql = "with copying as (
                     select from workspace_data_keys where $7::bytea is not null
                       and workspace_id = (select workspace_id from keys where key_id = $2) for key share
                   )
                   insert into secrets (secret_id, key_id, key_version, secret_hash, start, create_time, sealed)
                   values ($1, $2, $3, $4, $5, $6, (select $7 from copying))";
        sqlx::query(sql)
            .bind(secret.secret_id.as_uuid())
            .bind(key_id.as_uuid())
            .bind(secret.key_version)
            .bind(&secret.hash.as_bytes()[..])
            .bind(&secret.start)
            .bind(secret.create_time)
            .bind(sealed)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Writes when the key's known secrets retire and were exposed, and destroys the copies of those that do not
    /// work any more: the key's newest change ended them. A deleted key has no copies left.
    pub(crate) async fn project_secrets(&mut self, key: &Key) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = key.secrets.iter().map(|secret| secret.secret_id.as_uuid()).collect();
        let retire_times: Vec<_> = key.secrets.iter().map(|secret| secret.retire_time).collect();
        let expose_times: Vec<_> = key.secrets.iter().map(|secret| secret.expose_time).collect();
        let sql = "update secrets s
                   set retire_time = c.retire_time, expose_time = c.expose_time,
                       sealed = case when c.retire_time <= $5 then null else s.sealed end
                   from unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[])
                     as c (secret_id, retire_time, expose_time)
                   where s.key_id = $1 and s.secret_id = c.secret_id
                     and (s.retire_time, s.expose_time) is distinct from (c.retire_time, c.expose_time)";
        sqlx::query(sql)
            .bind(key.key_id.as_uuid())
            .bind(ids)
            .bind(retire_times)
            .bind(expose_times)
            .bind(key.update_time)
            .execute(&mut *self.inner)
            .await?;
        if key.delete_time.is_some() {
            sqlx::query("update secrets set sealed = null where key_id = $1 and sealed is not null")
                .bind(key.key_id.as_uuid())
                .execute(&mut *self.inner)
                .await?;
        }
        Ok(())
    }

    /// The copy of the secret that a key's version made; `None` if there is none.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn copy(&mut self, key_id: KeyId, key_version: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select sealed from secrets where key_id = $1 and key_version = $2";
        let sealed: Option<Option<Vec<u8>>> = sqlx::query_scalar(sql)
            .bind(key_id.as_uuid())
            .bind(key_version)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(sealed.flatten())
    }
}

impl Store {
    /// Destroys the copies of secrets that retired before `now`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_copies(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        let sql = "update secrets set sealed = null where sealed is not null and retire_time <= $1";
        sqlx::query(sql).bind(now).execute(&self.pool).await?;
        Ok(())
    }
}
