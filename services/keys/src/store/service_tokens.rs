//! Tokens of internal services.

use domain::{ServiceTokenId, WorkspaceId};
use sqlx::Row as _;
use time::OffsetDateTime;

use super::{Store, StoreError, Tx};

/// A service token, but for the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceToken {
    /// Its id.
    pub service_token_id: ServiceTokenId,
    /// The only workspace that it is for.
    pub workspace_id: WorkspaceId,
    /// Narrows what it may do; empty is all.
    pub scopes: Vec<String>,
    /// When it ends; `None` is never.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoke_time: Option<OffsetDateTime>,
}

impl ServiceToken {
    /// Whether it is good at `now`.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        self.revoke_time.is_none() && self.expire_time.is_none_or(|end| now < end)
    }

    fn of(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            service_token_id: ServiceTokenId::from_uuid(row.try_get("service_token_id")?),
            workspace_id: WorkspaceId::from_uuid(row.try_get("workspace_id")?),
            scopes: row.try_get("scopes")?,
            expire_time: row.try_get("expire_time")?,
            revoke_time: row.try_get("revoke_time")?,
        })
    }
}

const BY_HASH: &str = "select * from service_tokens where token_hash = $1";

impl Store {
    /// The service token with this hash, good or not.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn service_token(&self, token_hash: &[u8]) -> Result<Option<ServiceToken>, StoreError> {
        let row = sqlx::query(BY_HASH).bind(token_hash).fetch_optional(&self.pool).await?;
        Ok(row.as_ref().map(ServiceToken::of).transpose()?)
    }
}

impl Tx {
    /// The service token with this hash, good or not.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn service_token(&mut self, token_hash: &[u8]) -> Result<Option<ServiceToken>, StoreError> {
        let row = sqlx::query(BY_HASH).bind(token_hash).fetch_optional(&mut *self.inner).await?;
        Ok(row.as_ref().map(ServiceToken::of).transpose()?)
    }

    /// Adds a service token under its hash.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_service_token(
        &mut self,
        token: &ServiceToken,
        token_hash: &[u8],
        display_name: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let sql = "insert into service_tokens
                     (service_token_id, token_hash, workspace_id, display_name, scopes, create_time, expire_time)
                   values ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(token.service_token_id.as_uuid())
            .bind(token_hash)
            .bind(token.workspace_id.as_uuid())
            .bind(display_name)
            .bind(&token.scopes)
            .bind(now)
            .bind(token.expire_time)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
