//! Who did what, where it is no change of a key.

use domain::WorkspaceId;
use serde_json::Value;
use time::OffsetDateTime;

use super::{StoreError, Tx};
use crate::caller::Caller;

/// The changed fields, as JSON objects. Holds nothing that names a person beyond ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What they were.
    pub before: Option<Value>,
    /// What they are.
    pub after: Option<Value>,
}

impl Change {
    /// Something that was not there before.
    #[must_use]
    pub const fn made(after: Value) -> Self {
        Self { before: None, after: Some(after) }
    }

    /// Something that is no more.
    #[must_use]
    pub const fn ended(before: Value) -> Self {
        Self { before: Some(before), after: None }
    }

    /// Something that is another.
    #[must_use]
    pub const fn of(before: Value, after: Value) -> Self {
        Self { before: Some(before), after: Some(after) }
    }
}

impl Tx {
    /// Adds an entry without fields.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn audit(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        resource: &str,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.audit_change(workspace_id, action, resource, Change::default(), caller, now).await
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn audit_change(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        resource: &str,
        change: Change,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let sql = "insert into audit_entries
                     (workspace_id, action, resource, actor, from_address, entry_time, before, after)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)";
        sqlx::query(sql)
            .bind(workspace_id.as_uuid())
            .bind(action)
            .bind(resource)
            .bind(&caller.actor)
            .bind(caller.address.map(|address| address.to_string()))
            .bind(now)
            .bind(change.before)
            .bind(change.after)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
