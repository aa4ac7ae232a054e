//! Accounts of people.

use domain::AccountId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};

impl Store {
    /// The account of a lower-case e-mail address, with its password's hash, if it has one.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn account(&self, email: &str) -> Result<Option<(AccountId, Option<String>)>, StoreError> {
        let row: Option<(Uuid, Option<String>)> =
            sqlx::query_as("select account_id, password_hash from accounts where email = $1")
                .bind(email)
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(|(id, hash)| (AccountId::from_uuid(id), hash)))
    }
}

impl Tx {
    /// The id of an account; held against an erasure until the end of the transaction.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn account_id(&mut self, email: &str) -> Result<Option<AccountId>, StoreError> {
        let id = sqlx::query_scalar("select account_id from accounts where email = $1 for update")
            .bind(email)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(id.map(AccountId::from_uuid))
    }

    /// Adds an account, without a password for whoever signs in at the provider; false if the address has one already.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn add_account(
        &mut self,
        account_id: AccountId,
        email: &str,
        password_hash: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let sql =
            "insert into accounts (account_id, email, password_hash, create_time) values ($1, $2, $3, $4)
                   on conflict (email) do nothing";
        let added = sqlx::query(sql)
            .bind(account_id.as_uuid())
            .bind(email)
            .bind(password_hash)
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(added.rows_affected() == 1)
    }
}
