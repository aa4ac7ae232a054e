//! Sessions of people.

use domain::AccountId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::sessions::{Proved, Session};

impl Store {
    /// Adds a session under its token's hash.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_session(
        &self,
        token_hash: &[u8],
        account_id: AccountId,
        proved: Proved,
        (now, expire_time): (OffsetDateTime, OffsetDateTime),
    ) -> Result<(), StoreError> {
        let sql =
            "insert into sessions (token_hash, account_id, create_time, authenticate_time, last_used_time,
                                         expire_time, by_provider)
                   values ($1, $2, $3, $5, $3, $4, $6)";
        sqlx::query(sql)
            .bind(token_hash)
            .bind(account_id.as_uuid())
            .bind(now)
            .bind(expire_time)
            .bind(proved.at)
            .bind(proved.by_provider)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A session, whether it has ended or not.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn session(&self, token_hash: &[u8]) -> Result<Option<Session>, StoreError> {
        let sql = "select account_id, email, last_used_time, expire_time, authenticate_time, by_provider
                   from sessions join accounts using (account_id) where token_hash = $1";
        let row: Option<(Uuid, String, OffsetDateTime, OffsetDateTime, OffsetDateTime, bool)> =
            sqlx::query_as(sql).bind(token_hash).fetch_optional(&self.pool).await?;
        Ok(row.map(|(account_id, email, last_used_time, expire_time, authenticate_time, by_provider)| {
            Session {
                account_id: AccountId::from_uuid(account_id),
                email,
                last_used_time,
                expire_time,
                authenticate_time,
                by_provider,
            }
        }))
    }

    /// Notes that a session's person has just proved who they are.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn authenticate_session(
        &self,
        token_hash: &[u8],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query("update sessions set authenticate_time = $2, last_used_time = $2 where token_hash = $1")
            .bind(token_hash)
            .bind(now)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn use_session(&self, token_hash: &[u8], now: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query(
            "update sessions set last_used_time = greatest(last_used_time, $2) where token_hash = $1",
        )
        .bind(token_hash)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes a session, if it is there.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn remove_session(&self, token_hash: &[u8]) -> Result<(), StoreError> {
        sqlx::query("delete from sessions where token_hash = $1")
            .bind(token_hash)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes the sessions that ended before `now`, by age or by being idle since before `idle_since`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_sessions(
        &self,
        now: OffsetDateTime,
        idle_since: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query("delete from sessions where expire_time <= $1 or last_used_time <= $2")
            .bind(now)
            .bind(idle_since)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
