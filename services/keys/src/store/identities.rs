//! Who people are at the provider, and which ways back from there were used.

use domain::AccountId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

impl Store {
    /// The account of a person at the provider, with its e-mail address.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn identity(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<(AccountId, String)>, StoreError> {
        let sql = "select account_id, email from identities join accounts using (account_id)
                   where issuer = $1 and subject = $2";
        let row: Option<(Uuid, String)> =
            sqlx::query_as(sql).bind(issuer).bind(subject).fetch_optional(&self.pool).await?;
        Ok(row.map(|(id, email)| (AccountId::from_uuid(id), email)))
    }

    /// Notes that a flow was used; false if it was before.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn use_flow(&self, flow_hash: &[u8], now: OffsetDateTime) -> Result<bool, StoreError> {
        let sql = "insert into used_flows (flow_hash, use_time) values ($1, $2) on conflict do nothing";
        let used = sqlx::query(sql).bind(flow_hash).bind(now).execute(&self.pool).await?;
        Ok(used.rows_affected() == 1)
    }

    /// Forgets flows that were used before `until`.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn sweep_flows(&self, until: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query("delete from used_flows where use_time < $1").bind(until).execute(&self.pool).await?;
        Ok(())
    }
}

impl Tx {
    /// Links a person at the provider to an account: whether that is new; `None` if the person has another account,
    /// or the account another person there.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_identity(
        &mut self,
        (issuer, subject): (&str, &str),
        account_id: AccountId,
        now: OffsetDateTime,
    ) -> Result<Option<bool>, StoreError> {
        let sql = "insert into identities (issuer, subject, account_id, create_time) values ($1, $2, $3, $4)
                   on conflict do nothing";
        let added = sqlx::query(sql)
            .bind(issuer)
            .bind(subject)
            .bind(account_id.as_uuid())
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        if added.rows_affected() == 1 {
            return Ok(Some(true));
        }
        // Two sign-ins at once link the same.
        let sql =
            "select exists (select from identities where issuer = $1 and subject = $2 and account_id = $3)";
        let same: bool = sqlx::query_scalar(sql)
            .bind(issuer)
            .bind(subject)
            .bind(account_id.as_uuid())
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(same.then_some(false))
    }
}
