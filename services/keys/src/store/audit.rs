//! Who did what, where it is no change of a key.

use domain::WorkspaceId;
use serde_json::Value;
use time::OffsetDateTime;

use super::{StoreError, Tx, ledger::Pending};
use crate::{caller::Caller, ledger::Fact};

impl Tx {
    /// Adds an entry about something that changed nothing that can be compared.
    ///
    /// # Errors
    /// None now: it is written at the commit.
    #[expect(clippy::unused_async, reason = "reads as every other write")]
    pub async fn audit(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        resource: &str,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.audit_change(workspace_id, action, resource, (None, None), caller, now);
        Ok(())
    }

    /// Adds an entry with what something was and what it is. Both are in the clear and stay for good: ids, roles
    /// and settings, never what names a person, and no numbers but integers.
    pub fn audit_change(
        &mut self,
        workspace_id: WorkspaceId,
        action: &str,
        resource: &str,
        (before, after): (Option<Value>, Option<Value>),
        caller: &Caller,
        now: OffsetDateTime,
    ) {
        let fact = Fact::Audit { action: action.to_owned(), resource: resource.to_owned(), before, after };
        self.pending.push(Pending { workspace_id, fact, caller: caller.clone(), time: now });
    }
}
