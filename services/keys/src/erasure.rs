//! How a workspace ends. The transaction that deletes it already lets edges refuse its keys; what is left is done
//! here afterwards and again after a crash: its keys are deleted one by one, and the bucket `erasures` is told.

use std::{convert::Infallible, time::Duration};

use access::{Claims, Role};
use domain::WorkspaceId;
use prost::Message as _;
use proto::{events as pb, nats::ERASURES_BUCKET, resource::workspace_name, timestamp::to_proto};
use time::{OffsetDateTime, macros::datetime};

use crate::{
    caller::Caller,
    error::Error,
    fields,
    lifecycle::{Asked, Keys},
    nats::Streams,
    store::{
        Store, StoreError,
        erasures::{Erasure, Orphan},
    },
    told,
};

/// Nothing of a deleted workspace is ever wanted again, whenever a call with one of its keys comes. ClickHouse's
/// times end in 2299.
const FOR_EVER: OffsetDateTime = datetime!(2200-01-01 00:00 UTC);
/// Between two looks at what is left to do.
const EVERY: Duration = Duration::from_secs(1);
/// Keys deleted between two looks.
const KEYS_AT_ONCE: usize = 256;

/// Deletes a workspace for good.
///
/// # Errors
/// Not found; another name of display than the workspace's; Postgres.
pub async fn erase(
    store: &Store,
    workspace_id: WorkspaceId,
    display_name: &str,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let name = workspace_name(workspace_id);
    let mut tx = store.begin().await?;
    let Some(held) = tx.hold_workspace(workspace_id).await? else {
        return Err(Error::NotFound { what: "workspace", name });
    };
    if held.display_name != display_name {
        return Err(Error::invalid("display_name", "must be the workspace's own; nothing was deleted"));
    }
    tx.feed_workspace(workspace_id).await?;
    tx.stop_copies(workspace_id).await?;
    tx.audit(workspace_id, "delete_workspace", &name, caller, now).await?;
    tx.end_workspace(Erasure { workspace_id, up_to: FOR_EVER }, &caller.actor, now).await?;
    tx.commit().await?;
    tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "workspace deleted");
    Ok(())
}

/// Deletes the keys of deleted workspaces for as long as it is polled.
pub async fn delete_keys(store: &Store, keys: &Keys) -> Infallible {
    let mut said = false;
    loop {
        match delete_some(store, keys).await {
            Ok(true) => said = false,
            Ok(false) => tokio::time::sleep(EVERY).await,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "keys of a deleted workspace wait for their deletion; edges refuse them");
                }
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

/// Whether there were any.
async fn delete_some(store: &Store, keys: &Keys) -> Result<bool, Error> {
    let orphans = store.orphans(KEYS_AT_ONCE).await?;
    for orphan in &orphans {
        let caller = Caller { actor: orphan.actor.clone(), address: None };
        let now = fields::to_micros(OffsetDateTime::now_utc());
        let subject = orphan.actor.parse().map_err(|_| StoreError::Damaged("erasure"))?;
        // In the name of the owner who deleted the workspace.
        let claims = Claims {
            subject,
            workspace_id: orphan.workspace_id,
            role: Role::Owner,
            scopes: Vec::new(),
            authenticated: None,
            expires: now,
        };
        let Orphan { workspace_id, key_id, .. } = *orphan;
        keys.delete(Asked { workspace_id, key_id, etag: "", claims: &claims, caller: &caller, now }).await?;
    }
    Ok(!orphans.is_empty())
}

/// Tells the bucket of erasures: of those that it was not told, or of all.
///
/// # Errors
/// Postgres or NATS.
pub async fn tell(store: &Store, streams: &Streams, all: bool) -> anyhow::Result<()> {
    let erasures = store.erasures(all).await?;
    if erasures.is_empty() {
        return Ok(());
    }
    let bucket = streams.bucket(ERASURES_BUCKET, "workspaces that are gone").await?;
    for erasure in erasures {
        let key = erasure.workspace_id.to_string();
        let value = message(erasure).encode_to_vec();
        told::put(&bucket, &key, value.clone(), |there| there[..] == value[..]).await?;
        store.relayed_erasure(erasure.workspace_id).await?;
    }
    Ok(())
}

fn message(erasure: Erasure) -> pb::Erasure {
    pb::Erasure {
        workspace_id: erasure.workspace_id.as_bytes().to_vec(),
        up_to: Some(to_proto(erasure.up_to)),
    }
}
