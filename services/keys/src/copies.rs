//! Whether a workspace keeps sealed copies of its secrets, so that people can copy them again.

use domain::WorkspaceId;
use proto::resource::workspace_name;
use serde_json::json;
use time::OffsetDateTime;

use crate::{caller::Caller, error::Error, seal::Kek, store::Store};

/// Ends copying: destroys the workspace's copies and its data key. Keys go on as before; their secrets can not be
/// shown again.
///
/// # Errors
/// Postgres.
pub async fn stop(
    store: &Store,
    workspace_id: WorkspaceId,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let mut tx = store.begin().await?;
    tx.stop_copies(workspace_id).await?;
    let change = (Some(json!({"keep_copies": true})), Some(json!({"keep_copies": false})));
    let name = workspace_name(workspace_id);
    tx.audit_change(workspace_id, "stop_copies", &name, change, caller, now);
    tx.commit().await?;
    tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "copies of secrets destroyed");
    Ok(())
}

/// Starts copying under a new data key; secrets made before have no copies.
///
/// # Errors
/// Postgres; the keeper of the key-encryption key.
pub async fn start(
    store: &Store,
    kek: &Kek,
    workspace_id: WorkspaceId,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let (_, data_key) = kek.new_data_key(workspace_id).await?;
    let mut tx = store.begin().await?;
    tx.start_copies(workspace_id, &data_key).await?;
    let change = (Some(json!({"keep_copies": false})), Some(json!({"keep_copies": true})));
    let name = workspace_name(workspace_id);
    tx.audit_change(workspace_id, "start_copies", &name, change, caller, now);
    tx.commit().await?;
    tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "copies of secrets are kept");
    Ok(())
}
