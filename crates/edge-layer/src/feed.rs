//! How current the key table is, by which source, and what keeps it so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    feed_keys::FeedKeys,
    feed_log::FeedLog,
    fill::{self, Place},
    key_table::KeyTable,
    link::Link,
    verdict::Feed,
};

/// A source that was not heard for so long is not the one in use.
const SOURCE_SILENT_AFTER: Duration = Duration::from_secs(3);
/// Before any time.
const NEVER: i64 = i64::MIN;

/// Where the keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The buckets of NATS.
    Nats,
    /// The keys service, over gRPC.
    Keys,
}

impl Source {
    /// As metrics and pages name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Keys => "keys",
        }
    }
}

/// What becomes of calls once nothing was heard of the keys for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFeedLost {
    /// Every one is refused.
    Refuse,
    /// They are decided by the keys that are known, however old that is.
    ServeStale,
}

/// How current the key table is.
#[derive(Debug)]
pub(crate) struct FeedState {
    began: Instant,
    lost_after: Duration,
    when_lost: WhenFeedLost,
    /// Milliseconds after `began` at which the table was last known to be current.
    current_at: AtomicI64,
    /// The same for each [`Source`].
    heard_at: [AtomicI64; 2],
    /// A source has been read as a whole since the start.
    is_complete: AtomicBool,
    version: watch::Sender<u64>,
    told: watch::Sender<u64>,
}

impl FeedState {
    /// Nothing heard yet; a table that was not current for `lost_after` is too old.
    #[must_use]
    pub(crate) fn new(lost_after: Duration, when_lost: WhenFeedLost) -> Self {
        Self {
            began: Instant::now(),
            lost_after,
            when_lost,
            current_at: AtomicI64::new(NEVER),
            heard_at: [AtomicI64::new(NEVER), AtomicI64::new(NEVER)],
            is_complete: AtomicBool::new(false),
            version: watch::Sender::new(0),
            told: watch::Sender::new(0),
        }
    }

    /// What the edge may rely on now.
    #[must_use]
    pub(crate) fn feed(&self) -> Feed {
        match self.age() {
            None => Feed::NotReady,
            Some(age) if age < self.lost_after => Feed::Live,
            Some(_) if self.serves_stale() => Feed::Stale,
            Some(_) => Feed::Lost,
        }
    }

    /// Time since the table was last known to be current; `None` before there is one.
    #[must_use]
    pub(crate) fn age(&self) -> Option<Duration> {
        self.since(&self.current_at)
    }

    /// Who was heard lately: NATS before keys, since it tells all edges at once.
    #[must_use]
    pub(crate) fn source(&self) -> Option<Source> {
        let is_heard = |source: &Source| {
            self.since(&self.heard_at[*source as usize]).is_some_and(|age| age < SOURCE_SILENT_AFTER)
        };
        [Source::Nats, Source::Keys].into_iter().find(is_heard)
    }

    /// When a source was last heard; differs from before if it was heard since.
    pub(crate) fn heard(&self, source: Source) -> i64 {
        self.heard_at[source as usize].load(Relaxed)
    }

    /// After how long without a live feed the table is too old.
    #[must_use]
    pub(crate) const fn lost_after(&self) -> Duration {
        self.lost_after
    }

    /// A table that is too old is used all the same.
    #[must_use]
    pub(crate) fn serves_stale(&self) -> bool {
        self.when_lost == WhenFeedLost::ServeStale
    }

    /// Whether a source has been read as a whole since the start, beside what was on the disk.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Relaxed)
    }

    /// The feed version up to which everything is in the table; 0 before there is one.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// The version that others may be told of: the disk has noted it, so that a start never serves less.
    pub(crate) fn told(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// The table has everything up to a version.
    pub(crate) fn has_applied(&self, version: u64) {
        self.version.send_if_modified(|known| {
            let is_newer = version > *known;
            *known = version.max(*known);
            is_newer
        });
    }

    /// A source said that the table is all that there was at a moment.
    pub(crate) fn is_current_at(&self, at: Instant, source: Source) {
        let millis = millis(at.saturating_duration_since(self.began));
        self.heard_at[source as usize].fetch_max(millis, Relaxed);
        self.current_at.fetch_max(millis, Relaxed);
        self.is_complete.store(true, Relaxed);
    }

    /// The table is what the disk had, which was current so long ago.
    pub(crate) fn was_current(&self, age: Duration) {
        let at = millis(self.began.elapsed()).saturating_sub(millis(age));
        self.current_at.fetch_max(at, Relaxed);
    }

    fn since(&self, at: &AtomicI64) -> Option<Duration> {
        let at = Some(at.load(Relaxed)).filter(|at| *at != NEVER)?;
        let age = millis(self.began.elapsed()).saturating_sub(at);
        Some(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    /// Lets others be told of each version once the disk has noted it. For ever.
    pub(crate) async fn note(&self, log: Option<Arc<FeedLog>>) {
        let mut version = self.version.subscribe();
        let mut said = false;
        loop {
            let newest = *version.borrow_and_update();
            if let Some(log) = log.clone().filter(|_| newest > 0) {
                let noted = tokio::task::spawn_blocking(move || log.mark(newest)).await;
                let failed = noted.map_err(std::io::Error::other).and_then(|noted| noted).err();
                // It refuses what was deleted all the same; only a start from this disk may not.
                if let Some(error) = failed.filter(|_| !std::mem::replace(&mut said, true)) {
                    tracing::warn!(%error, "the newest feed version cannot be noted on the disk");
                }
            }
            self.told.send_replace(newest);
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Fills `table` with what `keys` signed and keeps `state`, on one connection to NATS after the other. Nothing that is
/// older than `floor` is used.
pub(crate) async fn run(
    link: Link,
    keys: FeedKeys,
    table: Arc<KeyTable>,
    state: Arc<FeedState>,
    floor: u64,
    stop: CancellationToken,
) {
    let target = Arc::new(fill::Target { keys, table, state, floor, place: Place::default() });
    let work = |jetstream| fill::run(jetstream, target.clone());
    link.on_each_connection("follow the key feed", &stop, work).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(when_lost: WhenFeedLost) -> FeedState {
        FeedState::new(Duration::from_secs(30), when_lost)
    }

    #[tokio::test(start_paused = true)]
    async fn either_source_keeps_the_feed_alive() {
        let state = state(WhenFeedLost::Refuse);
        assert_eq!((state.feed(), state.source(), state.is_complete()), (Feed::NotReady, None, false));
        state.is_current_at(Instant::now(), Source::Nats);
        assert_eq!(
            (state.feed(), state.source(), state.is_complete()),
            (Feed::Live, Some(Source::Nats), true)
        );
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!((state.feed(), state.source()), (Feed::Live, None));
        state.is_current_at(Instant::now(), Source::Keys);
        assert_eq!(state.source(), Some(Source::Keys));
        tokio::time::advance(Duration::from_secs(2)).await;
        state.is_current_at(Instant::now(), Source::Nats);
        assert_eq!(state.source(), Some(Source::Nats), "heard both, NATS is the one in use");
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!((state.feed(), state.source()), (Feed::Lost, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_disk_had_ages_on() {
        for (when_lost, then) in [(WhenFeedLost::Refuse, Feed::Lost), (WhenFeedLost::ServeStale, Feed::Stale)]
        {
            let state = state(when_lost);
            state.was_current(Duration::from_secs(20));
            assert_eq!((state.feed(), state.age()), (Feed::Live, Some(Duration::from_secs(20))));
            assert!(!state.is_complete() && state.source().is_none());
            tokio::time::advance(Duration::from_secs(10)).await;
            assert_eq!(state.feed(), then);
        }
    }

    #[tokio::test]
    async fn a_version_is_told_once_it_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(FeedLog::open(folder.path()).unwrap());
        let state = Arc::new(state(WhenFeedLost::Refuse));
        let noting = tokio::spawn({
            let (state, log) = (state.clone(), log.clone());
            async move { state.note(Some(log)).await }
        });
        let mut told = state.told();
        state.has_applied(7);
        told.wait_for(|told| *told == 7).await.unwrap();
        assert_eq!(FeedLog::open(folder.path()).unwrap().marked(), 7);
        state.has_applied(6);
        assert_eq!(state.version(), 7, "it only goes up");
        noting.abort();
    }
}
