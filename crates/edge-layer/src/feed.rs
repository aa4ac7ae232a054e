//! How current the key table is, and what keeps it so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    feed_keys::FeedKeys,
    fill::{self, Place},
    key_table::KeyTable,
    link::Link,
    verdict::Feed,
};

/// How current the key table is.
#[derive(Debug)]
pub(crate) struct FeedState {
    began: Instant,
    lost_after: Duration,
    /// Milliseconds after `began` at which the table was last known to be current, plus one; 0 before the first
    /// snapshot.
    current_at: AtomicU64,
    version: AtomicU64,
    applied: Notify,
}

impl FeedState {
    /// Nothing heard yet; a table that was not current for `lost_after` is of no use.
    #[must_use]
    pub(crate) fn new(lost_after: Duration) -> Self {
        Self {
            began: Instant::now(),
            lost_after,
            current_at: AtomicU64::new(0),
            version: AtomicU64::new(0),
            applied: Notify::new(),
        }
    }

    /// What the edge may rely on now.
    #[must_use]
    pub(crate) fn feed(&self) -> Feed {
        match self.age() {
            None => Feed::NotReady,
            Some(age) if age >= self.lost_after => Feed::Lost,
            Some(_) => Feed::Live,
        }
    }

    /// Time since the table was last known to be current; `None` before the first snapshot.
    #[must_use]
    pub(crate) fn age(&self) -> Option<Duration> {
        let at = self.current_at.load(Relaxed).checked_sub(1)?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    /// After how long without a live feed the table is of no use.
    #[must_use]
    pub(crate) const fn lost_after(&self) -> Duration {
        self.lost_after
    }

    /// The feed version up to which everything is in the table; 0 before the first snapshot.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Waits until the version has grown since the last time.
    pub(crate) async fn applied(&self) {
        self.applied.notified().await;
    }

    pub(crate) fn has_applied(&self, version: u64) {
        if self.version.fetch_max(version, Relaxed) < version {
            self.applied.notify_one();
        }
    }

    pub(crate) fn is_current_at(&self, at: Instant) {
        let millis = u64::try_from((at - self.began).as_millis()).unwrap_or(u64::MAX - 1);
        self.current_at.fetch_max(millis + 1, Relaxed);
    }
}

/// Fills `table` with what `keys` signed and keeps `state`, on one connection after the other.
pub(crate) async fn run(
    link: Link,
    keys: FeedKeys,
    table: Arc<KeyTable>,
    state: Arc<FeedState>,
    stop: CancellationToken,
) {
    let target = Arc::new(fill::Target { keys, table, state, place: Place::default() });
    let work = |jetstream| fill::run(jetstream, target.clone());
    link.on_each_connection("follow the key feed", &stop, work).await;
}
