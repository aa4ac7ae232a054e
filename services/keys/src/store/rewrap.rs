//! What is wrapped under key-encryption keys, for wrapping it again under another one.

use domain::{AccountId, WorkspaceId};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::seal::{Place, Wrapped};

/// Name, id and account, as far as the table has them, key-encryption key, wrapped key.
type Row = (String, Option<Uuid>, Option<Uuid>, String, Vec<u8>);

/// Tables with wrapped keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrappedIn {
    /// `workspace_data_keys`
    DataKeys,
    /// `person_keys`
    PersonKeys,
    /// `signing_keys`
    SigningKeys,
}

impl Store {
    /// A page of wrapped keys that are not under `kek_id`, after a key's name, with their names.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn wrapped_otherwise(
        &self,
        table: WrappedIn,
        kek_id: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(String, Place, Wrapped)>, StoreError> {
        let sql = match table {
            WrappedIn::DataKeys => {
                "select workspace_id::text, workspace_id, null::uuid, kek_id, wrapped_key
                 from workspace_data_keys where kek_id <> $1 and workspace_id::text > $2 order by 1 limit $3"
            }
            WrappedIn::PersonKeys => {
                "select person_key_id::text, person_key_id, account_id, kek_id, wrapped_key
                 from person_keys where kek_id <> $1 and person_key_id::text > $2 order by 1 limit $3"
            }
            WrappedIn::SigningKeys => {
                "select kid, null::uuid, null::uuid, kek_id, sealed_private_key
                 from signing_keys where kek_id <> $1 and kid > $2 order by 1 limit $3"
            }
        };
        let rows: Vec<Row> =
            sqlx::query_as(sql).bind(kek_id).bind(after).bind(limit).fetch_all(&self.pool).await?;
        let read = |(name, id, account, kek_id, bytes): Row| {
            let place = match (id, account) {
                (None, _) => Place::SigningKey(name.clone()),
                (Some(id), None) => Place::DataKey(WorkspaceId::from_uuid(id)),
                (Some(id), Some(account)) => Place::PersonKey(id, AccountId::from_uuid(account)),
            };
            (name, place, Wrapped { kek_id, bytes })
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Puts a key that is wrapped again in the place of what it was, unless that changed or went meanwhile.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn replace_wrapped(
        &self,
        table: WrappedIn,
        name: &str,
        was: &Wrapped,
        new: &Wrapped,
    ) -> Result<(), StoreError> {
        let sql = match table {
            WrappedIn::DataKeys => {
                "update workspace_data_keys set kek_id = $3, wrapped_key = $4
                 where workspace_id = $1::uuid and wrapped_key = $2"
            }
            WrappedIn::PersonKeys => {
                "update person_keys set kek_id = $3, wrapped_key = $4
                 where person_key_id = $1::uuid and wrapped_key = $2"
            }
            WrappedIn::SigningKeys => {
                "update signing_keys set kek_id = $3, sealed_private_key = $4
                 where kid = $1 and sealed_private_key = $2"
            }
        };
        sqlx::query(sql)
            .bind(name)
            .bind(&was.bytes)
            .bind(&new.kek_id)
            .bind(&new.bytes)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many data keys are wrapped under each key-encryption key.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn data_keys_by_kek(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "select kek_id, count(*) from workspace_data_keys group by kek_id";
        Ok(sqlx::query_as(sql).fetch_all(&self.pool).await?)
    }
}
