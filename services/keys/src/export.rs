//! Everything of a workspace as lines of JSON: itself, its members, its keys, its audit trail. Never a hash or a
//! copy of a secret.

use domain::WorkspaceId;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use proto::resource::{key_name, member_name, workspace_name};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    audit::{Audit, CHUNK_LINES, lines, to_json},
    caller::Caller,
    error::Error,
    store::{Store, trail::Filter, workspaces::Workspace},
};

/// Notes that the workspace is exported, and gives the lines as chunks.
///
/// # Errors
/// Not found; Postgres. Errors on the way end the stream.
pub async fn export(
    store: Store,
    workspace_id: WorkspaceId,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
    let name = workspace_name(workspace_id);
    let mut tx = store.begin().await?;
    let Some(workspace) = tx.hold_workspace(workspace_id).await? else {
        return Err(Error::NotFound { what: "workspace", name });
    };
    tx.audit(workspace_id, "export_workspace", &name, caller, now).await?;
    tx.commit().await?;
    let first = lines(std::iter::once(of_workspace(&workspace)));
    let trail = trail(store.clone(), workspace_id, now);
    Ok(stream::iter([Ok(first)])
        .chain(members(store.clone(), workspace_id))
        .chain(keys(store, workspace_id))
        .chain(trail))
}

fn of_workspace(workspace: &Workspace) -> Value {
    json!({
        "type": "workspace",
        "name": workspace_name(workspace.workspace_id),
        "display_name": workspace.display_name,
        "create_time": rfc3339(workspace.create_time),
        "audit_retention_days": workspace.settings.audit_retention_days,
        "disable_exposed_keys": workspace.settings.disable_exposed_keys,
        "keep_copies": workspace.settings.keep_copies,
        "address_storage": workspace.settings.address_storage.as_str(),
        "request_retention_days": workspace.settings.request_retention_days,
        "suspend_time": workspace.suspend_time.map(rfc3339),
    })
}

fn members(store: Store, workspace_id: WorkspaceId) -> impl Stream<Item = Result<Vec<u8>, Error>> + Send {
    stream::try_unfold((store, Some(None)), move |(store, next)| async move {
        let Some(after) = next else { return Ok(None) };
        let members = store.members_of(workspace_id, after, CHUNK_LINES).await?;
        let last = members.last().map(|member| Some((member.create_time, member.account_id)));
        let chunk = lines(members.into_iter().map(|member| {
            json!({
                "type": "member",
                "name": member_name(workspace_id, member.account_id),
                "email": member.email,
                "role": member.role,
                "create_time": rfc3339(member.create_time),
            })
        }));
        Ok(Some((chunk, (store, last))))
    })
}

fn keys(store: Store, workspace_id: WorkspaceId) -> impl Stream<Item = Result<Vec<u8>, Error>> + Send {
    stream::try_unfold((store, Some(None)), move |(store, next)| async move {
        let Some(after) = next else { return Ok(None) };
        let keys = store.exported_keys(workspace_id, after, CHUNK_LINES).await?;
        let last = keys.last().map(|(position, _)| Some(*position));
        let chunk = lines(keys.into_iter().map(|((_, key_id), mut row)| {
            row["type"] = "key".into();
            row["name"] = key_name(workspace_id, key_id).into();
            row
        }));
        Ok(Some((chunk, (store, last))))
    })
}

fn trail(
    store: Store,
    workspace_id: WorkspaceId,
    now: OffsetDateTime,
) -> impl Stream<Item = Result<Vec<u8>, Error>> + Send {
    Audit::new(store).chunks(workspace_id, Filter::default(), now).map_ok(move |entries| {
        lines(entries.into_iter().map(|entry| {
            let mut json = to_json(workspace_id, entry);
            json["type"] = "audit_entry".into();
            json
        }))
    })
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
