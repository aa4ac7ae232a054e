//! Forgets what has ended: sessions, attempts to sign in and flows to the provider, invitations, idempotency keys, copies of retired secrets,
//! addresses, audit entries older than their workspace keeps them.

use std::time::Duration;

use proto::resource::workspace_name;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    activity::ADDRESSES_COUNT_FOR,
    caller::Caller,
    ledger::PRUNE_ACTION,
    lifecycle, oidc,
    sessions::IDLE_MAX,
    store::{Store, StoreError, audit::Change},
    throttle,
};

const EVERY: Duration = Duration::from_secs(600);
/// What clocks may differ by.
const OVERLAP: time::Duration = time::Duration::minutes(5);

/// Sweeps now and then until `shutdown`.
pub async fn run(store: Store, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Err(error) = sweep(&store, OffsetDateTime::now_utc()).await {
            tracing::warn!(%error, "what has ended was not swept away; trying again later");
        }
    }
}

/// Sweeps once.
///
/// # Errors
/// Postgres.
pub async fn sweep(store: &Store, now: OffsetDateTime) -> Result<(), StoreError> {
    store.sweep_sessions(now, now - IDLE_MAX).await?;
    store.sweep_invitations(now).await?;
    store.sweep_attempts(now - throttle::WINDOW).await?;
    store.sweep_flows(now - oidc::OPEN_FOR - OVERLAP).await?;
    store.sweep_creations(now - lifecycle::REPEATABLE_FOR).await?;
    store.sweep_copies(now).await?;
    store.sweep_addresses(now - ADDRESSES_COUNT_FOR).await?;
    prune(store, now).await
}

/// Cuts audit trails to what their workspaces keep, and records that in them.
async fn prune(store: &Store, now: OffsetDateTime) -> Result<(), StoreError> {
    let caller = Caller { actor: "keys".into(), address: None };
    for trail in store.overlong_trails(now).await? {
        let mut tx = store.begin().await?;
        // Another replica may have done it just before.
        if let Some(pruned) = tx.prune_trail(trail).await? {
            let change = Change::made(json!(pruned));
            let resource = workspace_name(trail.workspace_id);
            tx.audit_change(trail.workspace_id, PRUNE_ACTION, &resource, change, &caller, now).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}
