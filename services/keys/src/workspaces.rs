//! What is done with workspaces: create, show, list.

use std::sync::Arc;

use access::{Claims, Subject};
use domain::{AccountId, WorkspaceId};
use proto::resource::workspace_name;
use time::OffsetDateTime;

use crate::{
    caller::Caller,
    error::Error,
    seal::Kek,
    store::{Store, StoreError, Tx, workspaces::Workspace},
};

/// All workspaces. Clones share everything.
#[derive(Clone)]
pub struct Workspaces {
    store: Store,
    kek: Arc<Kek>,
}

/// Where a list goes on: after the workspace of this name of display with this id.
pub type ListPosition = (String, WorkspaceId);

impl Workspaces {
    /// The workspaces in `store`.
    #[must_use]
    pub const fn new(store: Store, kek: Arc<Kek>) -> Self {
        Self { store, kek }
    }

    /// Makes a workspace with the caller as its administrator.
    ///
    /// # Errors
    /// A service can not; Postgres.
    pub async fn create(
        &self,
        display_name: String,
        claims: &Claims,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Workspace, Error> {
        let Subject::Account(account_id) = claims.subject else { return Err(Error::PeopleOnly) };
        let mut tx = self.store.begin().await?;
        let workspace = make(&mut tx, &self.kek, display_name, account_id, caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace.workspace_id, actor = caller.actor, "workspace created");
        Ok(workspace)
    }

    /// A workspace that the caller is in.
    ///
    /// # Errors
    /// Not found, also where the caller is not in it; Postgres.
    pub async fn get(&self, workspace_id: WorkspaceId, claims: &Claims) -> Result<Workspace, Error> {
        let inside = match claims.subject {
            Subject::Account(account_id) => self.store.is_member(account_id, workspace_id).await?,
            Subject::Service(_) => claims.owns(workspace_id),
        };
        let found = if inside { self.store.workspace(workspace_id).await? } else { None };
        found.ok_or_else(|| Error::NotFound { what: "workspace", name: workspace_name(workspace_id) })
    }

    /// A page of the workspaces that the caller is in, by name of display, and where the next one starts.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(
        &self,
        claims: &Claims,
        after: Option<ListPosition>,
        size: usize,
    ) -> Result<(Vec<Workspace>, Option<ListPosition>), Error> {
        let mut found = match claims.subject {
            Subject::Account(account_id) => self.store.workspaces_of(account_id, after, size + 1).await?,
            // A service is in one: there is no second page.
            Subject::Service(_) => self.store.workspace(claims.workspace_id).await?.into_iter().collect(),
        };
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(|last| (last.display_name.clone(), last.workspace_id));
        Ok((found, last))
    }
}

/// Makes a workspace with its data key and first administrator.
///
/// # Errors
/// Postgres.
pub async fn make(
    tx: &mut Tx,
    kek: &Kek,
    display_name: String,
    account_id: AccountId,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Workspace, StoreError> {
    let workspace = Workspace { workspace_id: WorkspaceId::generate(), display_name, create_time: now };
    let (_, data_key) = kek.new_data_key(workspace.workspace_id).await?;
    tx.add_workspace(&workspace, &data_key).await?;
    tx.add_administrator(account_id, workspace.workspace_id, now).await?;
    let name = workspace_name(workspace.workspace_id);
    tx.audit(workspace.workspace_id, "create_workspace", &name, caller, now).await?;
    Ok(workspace)
}
