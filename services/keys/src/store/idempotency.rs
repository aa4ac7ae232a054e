//! Creations and rotations that may be asked for again.

use domain::{KeyId, WorkspaceId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

/// One use of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation<'a> {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// Who asks: another caller's key is another key.
    pub actor: &'a str,
    /// Chosen by the caller.
    pub idempotency_key: &'a str,
    /// SHA-256 of what is asked.
    pub request_hash: &'a [u8],
    /// The key to be made or rotated.
    pub key_id: KeyId,
    /// The version of it that makes the secret.
    pub key_version: i64,
}

impl Tx {
    /// Claims the idempotency key; if it was used after `since`, says what for: the request's hash, its key and the
    /// version of it. Waits for another transaction that is just using it.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn claim(
        &mut self,
        creation: &Creation<'_>,
        since: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Option<(Vec<u8>, KeyId, i64)>, StoreError> {
        let sql = "insert into idempotency_keys
                     (workspace_id, actor, idempotency_key, request_hash, key_id, key_version, create_time)
                   values ($1, $2, $3, $4, $5, $6, $7)
                   on conflict (workspace_id, actor, idempotency_key) do update
                   set request_hash = excluded.request_hash, key_id = excluded.key_id,
                       key_version = excluded.key_version, create_time = excluded.create_time
                   where idempotency_keys.create_time <= $8";
        let claimed = sqlx::query(sql)
            .bind(creation.workspace_id.as_uuid())
            .bind(creation.actor)
            .bind(creation.idempotency_key)
            .bind(creation.request_hash)
            .bind(creation.key_id.as_uuid())
            .bind(creation.key_version)
            .bind(now)
            .bind(since)
            .execute(&mut *self.inner)
            .await?;
        if claimed.rows_affected() == 1 {
            return Ok(None);
        }
        let sql = "select request_hash, key_id, key_version from idempotency_keys
                   where workspace_id = $1 and actor = $2 and idempotency_key = $3";
        let (request_hash, key_id, version): (Vec<u8>, Uuid, i64) = sqlx::query_as(sql)
            .bind(creation.workspace_id.as_uuid())
            .bind(creation.actor)
            .bind(creation.idempotency_key)
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(Some((request_hash, KeyId::from_uuid(key_id), version)))
    }
}

impl Store {
    /// Forgets uses before `until`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_creations(&self, until: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query("delete from idempotency_keys where create_time < $1")
            .bind(until)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
