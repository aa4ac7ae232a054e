//! Tokens of internal services.

use domain::{ServiceTokenId, WorkspaceId};
use sqlx::Row as _;
use time::{Date, OffsetDateTime};

use super::{Store, StoreError, Tx};

/// A service token, but for the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceToken {
    /// Its id.
    pub service_token_id: ServiceTokenId,
    /// The only workspace that it is for.
    pub workspace_id: WorkspaceId,
    /// Which service it is for.
    pub display_name: String,
    /// Narrows what it may do; empty is all.
    pub scopes: Vec<String>,
    /// First characters of the token.
    pub start: String,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it ends; `None` is never.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoke_time: Option<OffsetDateTime>,
    /// The day in UTC on which it was last traded.
    pub last_used_day: Option<Date>,
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
            display_name: row.try_get("display_name")?,
            scopes: row.try_get("scopes")?,
            start: row.try_get("start")?,
            create_time: row.try_get("create_time")?,
            expire_time: row.try_get("expire_time")?,
            revoke_time: row.try_get("revoke_time")?,
            last_used_day: row.try_get("last_used_day")?,
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

    /// At most `limit` service tokens of a workspace, newest first, those after `after` (time and id).
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn service_tokens_of(
        &self,
        workspace_id: WorkspaceId,
        after: Option<(OffsetDateTime, ServiceTokenId)>,
        limit: usize,
    ) -> Result<Vec<ServiceToken>, StoreError> {
        let (time, id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id.as_uuid())));
        let sql = "select * from service_tokens
                   where workspace_id = $1
                     and ($2::timestamptz is null or (create_time, service_token_id) < ($2, $3))
                   order by create_time desc, service_token_id desc limit $4";
        let rows = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(time)
            .bind(id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(ServiceToken::of).collect::<Result<_, _>>()?)
    }

    /// Notes the day on which a service token was traded; writes at most once a day.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn use_service_token(&self, id: ServiceTokenId, day: Date) -> Result<(), StoreError> {
        let sql = "update service_tokens set last_used_day = $2
                   where service_token_id = $1 and (last_used_day is null or last_used_day < $2)";
        sqlx::query(sql).bind(id.as_uuid()).bind(day).execute(&self.pool).await?;
        Ok(())
    }
}

impl Tx {
    /// A service token of a workspace, held against changes until the end of the transaction.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn hold_service_token(
        &mut self,
        workspace_id: WorkspaceId,
        id: ServiceTokenId,
    ) -> Result<Option<ServiceToken>, StoreError> {
        let sql = "select * from service_tokens where workspace_id = $1 and service_token_id = $2 for update";
        let row = sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(id.as_uuid())
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.as_ref().map(ServiceToken::of).transpose()?)
    }

    /// Revokes a service token.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn revoke_service_token(
        &mut self,
        id: ServiceTokenId,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query("update service_tokens set revoke_time = $2 where service_token_id = $1")
            .bind(id.as_uuid())
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

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
    ) -> Result<(), StoreError> {
        let sql = "insert into service_tokens
                     (service_token_id, token_hash, workspace_id, display_name, scopes, start, create_time,
                      expire_time)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)";
        sqlx::query(sql)
            .bind(token.service_token_id.as_uuid())
            .bind(token_hash)
            .bind(token.workspace_id.as_uuid())
            .bind(&token.display_name)
            .bind(&token.scopes)
            .bind(&token.start)
            .bind(token.create_time)
            .bind(token.expire_time)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
