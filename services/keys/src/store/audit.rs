//! Who did what, where it is no change of a key.

use domain::WorkspaceId;
use serde_json::Value;
use time::OffsetDateTime;

use super::{StoreError, Tx, ledger::Pending};
use crate::{caller::Caller, ledger::Fact};

/// The changed fields, as JSON objects. They are in the clear and stay for good: ids, roles and settings, never
/// what names a person, and no numbers but integers.
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
    /// None now: it is written at the commit.
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

    /// Adds an entry with what something was and what it is.
    ///
    /// # Errors
    /// None now: it is written at the commit.
    #[expect(clippy::unused_async, reason = "reads as every other write")]
    pub async fn audit_change(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        resource: &str,
        change: Change,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let Change { before, after } = change;
        let fact = Fact::Audit { action: action.to_owned(), resource: resource.to_owned(), before, after };
        self.pending.push(Pending { workspace_id, fact, caller: caller.clone(), time: now });
        Ok(())
    }

    /// When an actor did something in a workspace since `since`, oldest first.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn audited(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        actor: &str,
        since: OffsetDateTime,
    ) -> Result<Vec<OffsetDateTime>, StoreError> {
        let sql = "select entry_time from audit_entries
                   where workspace_id = $1 and action = $2 and actor = $3 and entry_time > $4
                   order by entry_time";
        Ok(sqlx::query_scalar(sql)
            .bind(workspace_id.as_uuid())
            .bind(action)
            .bind(actor)
            .bind(since)
            .fetch_all(&mut *self.inner)
            .await?)
    }
}
