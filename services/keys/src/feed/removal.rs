//! Tombstones leave the feed 400 days after the deletion. Nothing that still holds the key as it was before can
//! be used by then: the snapshot is newer, and heads say so.

use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::{
    FeedError,
    writer::{CHUNK, Writer},
};

/// How long calls with a deleted key are known to be its own.
pub const TOMBSTONES_LIVE: Duration = Duration::days(400);
/// Between two looks for tombstones past their time.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(3600);

/// When tombstones were last looked for.
#[derive(Default)]
pub(super) struct Removal {
    looked: Option<Instant>,
}

impl Writer<'_> {
    /// Takes out what may go, and says from now and then what is to go next. Needs a bucket that is whole.
    pub(super) async fn remove(&mut self, removal: &mut Removal) -> Result<(), FeedError> {
        if removal.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            let until = OffsetDateTime::now_utc() - TOMBSTONES_LIVE;
            // The head that follows has this sequence, so no part of a snapshot from before has it.
            let next = self.bucket.position().sequence + 1;
            let leaving = self.relay.expire(until, next, CHUNK).await?;
            if leaving > 0 {
                self.state = self.relay.state().await?;
                self.write_head().await?;
                tracing::info!(tombstones = leaving, "tombstones past their time leave the key feed");
            }
            // If there may be more, the next round looks again.
            removal.looked = (leaving < i64::try_from(CHUNK).unwrap_or(i64::MAX)).then(Instant::now);
        }
        if self.state.removals == 0 {
            return Ok(());
        }
        let hashes = self.relay.removable(CHUNK).await?;
        if hashes.is_empty() {
            return Ok(());
        }
        self.relay.raise_snapshot_floor().await?;
        for hash in &hashes {
            self.bucket.forget(&hash.to_string()).await?;
        }
        self.relay.removed(&hashes).await?;
        self.state = self.relay.state().await?;
        self.write_head().await
    }
}
