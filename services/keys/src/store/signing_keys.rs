//! Keys that access tokens are signed with.

use sqlx::Row as _;
use time::OffsetDateTime;

use super::{Store, StoreError, Tx};
use crate::seal::Wrapped;

/// A signing key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name in tokens.
    pub kid: String,
    /// Ed25519, 32 bytes.
    pub public_key: Vec<u8>,
    /// PKCS#8, under the key-encryption key.
    pub private_key: Wrapped,
}

impl Store {
    /// All of them, newest first.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let rows = sqlx::query("select * from signing_keys order by create_time desc, kid")
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok::<_, sqlx::Error>(SigningKey {
                kid: row.try_get("kid")?,
                public_key: row.try_get("public_key")?,
                private_key: Wrapped {
                    kek_id: row.try_get("kek_id")?,
                    bytes: row.try_get("sealed_private_key")?,
                },
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }
}

impl Tx {
    /// Whether there is any.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn has_signing_key(&mut self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar("select exists (select from signing_keys)").fetch_one(&mut *self.inner).await?)
    }

    /// Adds one.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_signing_key(&mut self, key: &SigningKey, now: OffsetDateTime) -> Result<(), StoreError> {
        let sql = "insert into signing_keys (kid, public_key, kek_id, sealed_private_key, create_time)
                   values ($1, $2, $3, $4, $5)";
        sqlx::query(sql)
            .bind(&key.kid)
            .bind(&key.public_key)
            .bind(&key.private_key.kek_id)
            .bind(&key.private_key.bytes)
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
