//! Keys of persons, under which their personal fields are sealed, and what is left of a person when they are
//! destroyed.

use std::collections::HashMap;

use domain::{AccountId, WorkspaceId};
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, Tx};
use crate::{
    ledger::{KeptPersonKey, Ledger, PersonKey},
    seal::Wrapped,
};

impl Tx {
    /// A key of a person, made if there is none that opens; `None` for an erased person.
    pub(super) async fn person_key(
        &mut self,
        ledger: &Ledger,
        account_id: AccountId,
    ) -> Result<Option<PersonKey>, StoreError> {
        let sql = "select * from person_keys where account_id = $1 order by create_time desc, person_key_id";
        let rows = sqlx::query(sql).bind(account_id.as_uuid()).fetch_all(&mut *self.inner).await?;
        let kept = rows.iter().map(kept).collect::<Result<Vec<_>, _>>()?;
        if let Some(key) = ledger.usable(&kept).await? {
            return Ok(Some(key));
        }
        let (key, new) = ledger.new_person_key(account_id).await?;
        // Waits for an erasure that is just going on, so that it leaves no key behind.
        let sql = "insert into person_keys (person_key_id, account_id, kek_id, wrapped_key, create_time)
                   select $2, account_id, $3, $4, now() from accounts
                   where account_id = $1 and erase_time is null for key share";
        let added = sqlx::query(sql)
            .bind(account_id.as_uuid())
            .bind(new.person_key_id)
            .bind(&new.wrapped.kek_id)
            .bind(&new.wrapped.bytes)
            .execute(&mut *self.inner)
            .await?;
        Ok((added.rows_affected() == 1).then_some(key))
    }

    /// The workspaces that an account is in, with whether it is the only person there; held against changes of
    /// the account until the end of the transaction.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn hold_memberships(
        &mut self,
        account_id: AccountId,
    ) -> Result<Vec<(WorkspaceId, bool)>, StoreError> {
        sqlx::query("select from accounts where account_id = $1 for update")
            .bind(account_id.as_uuid())
            .execute(&mut *self.inner)
            .await?;
        let sql = "select workspace_id, not exists (
                     select from memberships o where o.workspace_id = m.workspace_id and o.account_id <> $1)
                   from memberships m where account_id = $1 order by workspace_id";
        let rows: Vec<(Uuid, bool)> =
            sqlx::query_as(sql).bind(account_id.as_uuid()).fetch_all(&mut *self.inner).await?;
        Ok(rows.into_iter().map(|(id, alone)| (WorkspaceId::from_uuid(id), alone)).collect())
    }

    /// Destroys an account's keys, sessions, memberships, invitations and its link to the provider, and makes it
    /// nobody's. Its row stays, since records name its id.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn erase_account(
        &mut self,
        account_id: AccountId,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        for sql in [
            "delete from invitations where email = (select email from accounts where account_id = $1)",
            "delete from person_keys where account_id = $1",
            "delete from sessions where account_id = $1",
            "delete from memberships where account_id = $1",
            "delete from identities where account_id = $1",
        ] {
            sqlx::query(sql).bind(account_id.as_uuid()).execute(&mut *self.inner).await?;
        }
        let sql = "update accounts set email = $2, password_hash = '', erase_time = $3 where account_id = $1";
        sqlx::query(sql)
            .bind(account_id.as_uuid())
            .bind(format!("erased {account_id}").to_lowercase())
            .bind(now)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

impl Store {
    /// Keys of persons by their ids; those that were destroyed are not among them.
    pub(super) async fn person_keys(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, KeptPersonKey>, StoreError> {
        let rows = sqlx::query("select * from person_keys where person_key_id = any($1)")
            .bind(ids)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| kept(row).map(|kept| (kept.person_key_id, kept))).collect()
    }
}

fn kept(row: &PgRow) -> Result<KeptPersonKey, StoreError> {
    Ok(KeptPersonKey {
        person_key_id: row.try_get("person_key_id")?,
        account_id: AccountId::from_uuid(row.try_get("account_id")?),
        wrapped: Wrapped { kek_id: row.try_get("kek_id")?, bytes: row.try_get("wrapped_key")? },
    })
}
