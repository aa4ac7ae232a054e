//! Attempts to sign in, counted before the password is looked at, so that many at once count too.

use time::OffsetDateTime;

use super::{Store, StoreError, Tx};

impl Tx {
    /// The times of an origin's attempts after `since`, oldest first.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn attempts(
        &mut self,
        origin_hash: &[u8],
        since: OffsetDateTime,
    ) -> Result<Vec<OffsetDateTime>, StoreError> {
        let sql = "select attempt_time from sign_in_attempts where origin_hash = $1 and attempt_time > $2
                   order by attempt_time";
        Ok(sqlx::query_scalar(sql).bind(origin_hash).bind(since).fetch_all(&mut *self.inner).await?)
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_attempt(&mut self, origin_hash: &[u8], now: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query("insert into sign_in_attempts (origin_hash, attempt_time) values ($1, $2)")
            .bind(origin_hash)
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

impl Store {
    /// Forgets an origin's attempts.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn forget_attempts(&self, origin_hash: &[u8]) -> Result<(), StoreError> {
        sqlx::query("delete from sign_in_attempts where origin_hash = $1")
            .bind(origin_hash)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets all attempts before `until`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_attempts(&self, until: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query("delete from sign_in_attempts where attempt_time < $1")
            .bind(until)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
