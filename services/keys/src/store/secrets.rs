//! Secrets of keys: hashes for verification, sealed copies for the clipboard.

use domain::{KeyId, SecretHash, SecretId};
use time::OffsetDateTime;

use super::{StoreError, Tx};

/// A secret as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSecret {
    /// Its id.
    pub secret_id: SecretId,
    /// The key that it is of.
    pub key_id: KeyId,
    /// The key's version that made it.
    pub key_version: i64,
    /// What verifies it.
    pub hash: SecretHash,
    /// First characters, for lists.
    pub start: String,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// The copy, if the workspace keeps any.
    pub sealed: Option<Vec<u8>>,
}

impl Tx {
    /// Adds a secret to a key; its copy only while the workspace keeps copies, and that can not end meanwhile.
    ///
    /// # Errors
    /// If Postgres does not answer, or a secret has this hash already.
    pub async fn add_secret(&mut self, secret: &NewSecret) -> Result<(), StoreError> {
        let sql = "with copying as (
                     select from workspace_data_keys where $7::bytea is not null
                       and workspace_id = (select workspace_id from keys where key_id = $2) for key share
                   )
                   insert into secrets (secret_id, key_id, key_version, secret_hash, start, create_time, sealed)
                   values ($1, $2, $3, $4, $5, $6, (select $7 from copying))";
        sqlx::query(sql)
            .bind(secret.secret_id.as_uuid())
            .bind(secret.key_id.as_uuid())
            .bind(secret.key_version)
            .bind(&secret.hash.as_bytes()[..])
            .bind(&secret.start)
            .bind(secret.create_time)
            .bind(&secret.sealed)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The copy of a key's newest secret, with the key's version that made it; `None` if there is none.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn copy(&mut self, key_id: KeyId) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
        let sql = "select key_version, sealed from secrets where key_id = $1
                   order by key_version desc limit 1";
        let row: Option<(i64, Option<Vec<u8>>)> =
            sqlx::query_as(sql).bind(key_id.as_uuid()).fetch_optional(&mut *self.inner).await?;
        Ok(row.and_then(|(version, sealed)| Some((version, sealed?))))
    }

    /// Destroys the copies of a key's secrets.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn destroy_copies(&mut self, key_id: KeyId) -> Result<(), StoreError> {
        sqlx::query("update secrets set sealed = null where key_id = $1")
            .bind(key_id.as_uuid())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
