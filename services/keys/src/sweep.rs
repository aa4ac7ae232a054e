//! Forgets what has ended: sessions, attempts to sign in, invitations, idempotency keys, copies of retired secrets,
//! addresses.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    activity::ADDRESSES_COUNT_FOR,
    lifecycle,
    sessions::IDLE_MAX,
    store::{Store, StoreError},
    throttle,
};

const EVERY: Duration = Duration::from_secs(600);

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
    store.sweep_creations(now - lifecycle::REPEATABLE_FOR).await?;
    store.sweep_copies(now).await?;
    store.sweep_addresses(now - ADDRESSES_COUNT_FOR).await
}
