//! What is done with workspaces: create, show, list, change, suspend, resume. How they end is in `erasure`.

use std::sync::Arc;

use access::{Claims, Role, Subject};
use domain::{AccountId, AddressStorage, WorkspaceId};
use proto::resource::workspace_name;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    caller::Caller,
    error::Error,
    page,
    seal::Kek,
    store::{
        Store, StoreError, Tx,
        audit::Change,
        workspaces::{Settings, Workspace},
    },
};

/// All workspaces. Clones share everything.
#[derive(Clone)]
pub struct Workspaces {
    store: Store,
    kek: Arc<Kek>,
}

/// New values of fields; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What people call it.
    pub display_name: Option<String>,
    /// How many days the audit trail is kept.
    pub audit_retention_days: Option<i32>,
    /// Whether a key is disabled when a leak of it is reported.
    pub disable_exposed_keys: Option<bool>,
    /// Whether sealed copies of secrets are kept.
    pub keep_copies: Option<bool>,
    /// What edges keep of callers' addresses.
    pub address_storage: Option<AddressStorage>,
    /// How many days single calls are kept.
    pub request_retention_days: Option<i32>,
}

/// Where a list goes on: after the workspace of this name of display with this id.
pub type ListPosition = (String, WorkspaceId);

impl Workspaces {
    /// The workspaces in `store`.
    #[must_use]
    pub const fn new(store: Store, kek: Arc<Kek>) -> Self {
        Self { store, kek }
    }

    /// Makes a workspace with the caller as its owner.
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
            Subject::Account(account_id) => self.store.role_in(account_id, workspace_id).await?.is_some(),
            Subject::Service(_) => claims.owns(workspace_id),
        };
        let found = if inside { self.store.workspace(workspace_id).await? } else { None };
        found.ok_or_else(|| not_found(workspace_id))
    }

    /// Changes a workspace. What is the same already is no change.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn update(
        &self,
        workspace_id: WorkspaceId,
        changes: Changes,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Workspace, Error> {
        let mut tx = self.store.begin().await?;
        let was = tx.hold_workspace(workspace_id).await?.ok_or_else(|| not_found(workspace_id))?;
        let settings = Settings {
            audit_retention_days: changes.audit_retention_days.unwrap_or(was.settings.audit_retention_days),
            disable_exposed_keys: changes.disable_exposed_keys.unwrap_or(was.settings.disable_exposed_keys),
            keep_copies: changes.keep_copies.unwrap_or(was.settings.keep_copies),
            address_storage: changes.address_storage.unwrap_or(was.settings.address_storage),
            request_retention_days: changes
                .request_retention_days
                .unwrap_or(was.settings.request_retention_days),
        };
        let display_name = changes.display_name.unwrap_or_else(|| was.display_name.clone());
        let is = Workspace { display_name, settings, ..was.clone() };
        if is == was {
            return Ok(was);
        }
        tx.write_workspace(&is).await?;
        match (was.settings.keep_copies, settings.keep_copies) {
            (true, false) => tx.stop_copies(workspace_id).await?,
            // Secrets made before have no copies.
            (false, true) => {
                let (_, data_key) = self.kek.new_data_key(workspace_id).await?;
                tx.start_copies(workspace_id, &data_key).await?;
            }
            _ => {}
        }
        if was.settings.address_storage != settings.address_storage {
            tx.feed_workspace_whole(workspace_id).await?;
        }
        if was.settings.request_retention_days != settings.request_retention_days {
            tx.choose_request_retention(workspace_id, settings.request_retention_days, now).await?;
        }
        let name = workspace_name(workspace_id);
        tx.audit_change(workspace_id, "update_workspace", &name, difference(&was, &is), caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "workspace updated");
        Ok(is)
    }

    /// Lets edges refuse all keys of a workspace, or accept them again. One that is so already stays as it is.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn suspend(
        &self,
        workspace_id: WorkspaceId,
        suspended: bool,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Workspace, Error> {
        let mut tx = self.store.begin().await?;
        let was = tx.hold_workspace(workspace_id).await?.ok_or_else(|| not_found(workspace_id))?;
        if was.suspend_time.is_some() == suspended {
            return Ok(was);
        }
        let is = Workspace { suspend_time: suspended.then_some(now), ..was };
        tx.write_workspace(&is).await?;
        tx.feed_workspace(workspace_id).await?;
        let action = if suspended { "suspend_workspace" } else { "resume_workspace" };
        tx.audit(workspace_id, action, &workspace_name(workspace_id), caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, actor = caller.actor, suspended, "workspace suspended or resumed");
        Ok(is)
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
        let found = match claims.subject {
            Subject::Account(account_id) => self.store.workspaces_of(account_id, after, size + 1).await?,
            // A service is in one: there is no second page.
            Subject::Service(_) => self.store.workspace(claims.workspace_id).await?.into_iter().collect(),
        };
        Ok(page::cut(found, size, |last| (last.display_name.clone(), last.workspace_id)))
    }
}

/// The fields of a workspace that changed.
fn difference(was: &Workspace, is: &Workspace) -> Change {
    let fields = |workspace: &Workspace| {
        let Settings {
            audit_retention_days,
            disable_exposed_keys,
            keep_copies,
            address_storage,
            request_retention_days,
        } = workspace.settings;
        [
            ("display_name", json!(workspace.display_name)),
            ("audit_retention_days", json!(audit_retention_days)),
            ("disable_exposed_keys", json!(disable_exposed_keys)),
            ("keep_copies", json!(keep_copies)),
            ("address_storage", json!(address_storage.as_str())),
            ("request_retention_days", json!(request_retention_days)),
        ]
    };
    let (mut before, mut after) = (Map::new(), Map::new());
    for ((name, old), (_, new)) in fields(was).into_iter().zip(fields(is)) {
        if old != new {
            before.insert(name.to_owned(), old);
            after.insert(name.to_owned(), new);
        }
    }
    Change::of(Value::Object(before), Value::Object(after))
}

fn not_found(workspace_id: WorkspaceId) -> Error {
    Error::NotFound { what: "workspace", name: workspace_name(workspace_id) }
}

/// Makes a workspace with its data key and first owner.
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
    let workspace = Workspace {
        workspace_id: WorkspaceId::generate(),
        display_name,
        create_time: now,
        settings: Settings::default(),
        suspend_time: None,
    };
    let (_, data_key) = kek.new_data_key(workspace.workspace_id).await?;
    tx.add_workspace(&workspace, &data_key).await?;
    tx.add_member(workspace.workspace_id, account_id, Role::Owner, now).await?;
    let name = workspace_name(workspace.workspace_id);
    tx.audit(workspace.workspace_id, "create_workspace", &name, caller, now).await?;
    Ok(workspace)
}
