//! The key feed over gRPC, for edges without NATS. One follower reads each change from Postgres and every watch hears of
//! it; each watch is a chain of signed batches of its own. Never waits for NATS.

use std::{convert::Infallible, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message as _;
use proto::{
    events::{FeedBatch, HashedFeedEntry},
    keys::WatchKeysResponse,
    status,
    timestamp::to_proto,
};
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::message::{hashed, signed_batch};
use crate::{
    signing::{Signing, SigningCell},
    store::{Store, StoreError},
};

/// How many entries are read together.
const CHUNK: usize = 1_000;
/// At least so often every watch hears up to when the feed is known.
const BEAT: Duration = Duration::from_millis(500);
/// A watch that hears nothing for so long ends: the edge may ask another keys service.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Before the follower tries again after a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// Pieces that a watch may lag behind; beyond that it reads from Postgres again.
const PIECES_MAX: usize = 64;
/// Batches that wait for an edge to take them.
const BATCHES_MAX: usize = 4;
/// Longest wait for an edge to take one.
const TAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most watches at once.
const WATCHES_MAX: usize = 1_000;
/// Most watches that read everything at once.
const SNAPSHOTS_MAX: usize = 4;
/// When to try again if there are more.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Entries of a batch together have no more bytes, unless it is one; gRPC takes 4 MiB.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// What starts from nothing is read in parts of so many secrets.
const PART_SECRETS: i64 = 1_000;
/// Most bits of a hash that name a part.
const PART_BITS_MAX: u8 = 16;

/// Serves watches. Clones share everything.
#[derive(Clone)]
pub struct Watches {
    store: Store,
    signing: Arc<SigningCell>,
    pieces: broadcast::Sender<Arc<Piece>>,
    watches: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// What the follower read at once.
struct Piece {
    from: i64,
    up_to: i64,
    entries: Vec<HashedFeedEntry>,
    is_current: bool,
    as_of: Instant,
}

/// What an edge asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Everything up to this feed version is known.
    pub after: u64,
    /// Chosen by the edge.
    pub watch: Vec<u8>,
}

impl Watches {
    /// Serves nothing until [`Self::follow`] runs; ends all watches at `shutdown`.
    #[must_use]
    pub fn new(store: Store, signing: Arc<SigningCell>, shutdown: CancellationToken) -> Self {
        Self {
            store,
            signing,
            pieces: broadcast::Sender::new(PIECES_MAX),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            shutdown,
        }
    }

    /// Reads what changes, for all watches. For ever.
    pub async fn follow(&self) -> Infallible {
        let mut said = false;
        loop {
            let Err(error) = self.follow_on(&mut said).await;
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(%error, "watches of the key feed wait for Postgres");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_on(&self, said: &mut bool) -> Result<Infallible, StoreError> {
        let mut changes = self.store.listen_to_outbox().await?;
        let mut from = self.store.feed_version().await?;
        loop {
            if self.pieces.receiver_count() == 0 {
                // Nobody watches: whoever comes reads from Postgres first.
                timeout(BEAT, changes.changed()).await.unwrap_or(Ok(()))?;
                from = self.store.feed_version().await?;
                continue;
            }
            let as_of = Instant::now();
            let numbered = self.store.number(CHUNK).await?;
            let newer = self.store.feed_after(from, CHUNK).await?;
            let is_current = numbered < CHUNK && newer.entries.len() < CHUNK;
            let entries = newer.entries.iter().map(hashed).collect();
            // They may have gone meanwhile.
            let _ =
                self.pieces.send(Arc::new(Piece { from, up_to: newer.up_to, entries, is_current, as_of }));
            from = newer.up_to;
            *said = false;
            if is_current && let Ok(heard) = timeout(BEAT, changes.changed()).await {
                heard?;
            }
        }
    }

    /// Starts a watch: batches for ever, or until one cannot be had.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if there are too many; `UNAVAILABLE` before the service has prepared itself.
    pub fn watch(&self, asked: Asked) -> Result<mpsc::Receiver<Result<WatchKeysResponse, Status>>, Status> {
        if self.signing.get().is_none() {
            return Err(status::unavailable("the keys service", RETRY_AFTER));
        }
        let Ok(permit) = Arc::clone(&self.watches).try_acquire_owned() else { return Err(too_many()) };
        let (batches, taken) = mpsc::channel(BATCHES_MAX);
        let watches = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let ended = tokio::select! {
                () = batches.closed() => return,
                () = watches.shutdown.cancelled() => status::unavailable("this keys service", RETRY_AFTER),
                Err(status) = watches.send(asked, &batches) => status,
            };
            tracing::debug!(reason = ended.message(), "a watch of the key feed ends");
            let _ = timeout(TAKE_TIMEOUT, batches.send(Err(ended))).await;
        });
        Ok(taken)
    }

    async fn send(&self, asked: Asked, batches: &Batches) -> Result<Infallible, Status> {
        let signing =
            self.signing.get().ok_or_else(|| status::unavailable("the keys service", RETRY_AFTER))?;
        let mut chain = Chain {
            signing,
            batches,
            began: Instant::now(),
            watch: asked.watch,
            previous: Vec::new(),
            version: asked.after,
        };
        if asked.after == 0 {
            self.send_everything(&mut chain).await?;
        }
        // Not before: what was read meanwhile is old by now.
        let mut pieces = self.pieces.subscribe();
        loop {
            let read_at = self.catch_up(&mut chain).await?;
            loop {
                let piece = match timeout(SILENCE_MAX, pieces.recv()).await {
                    Ok(Ok(piece)) => piece,
                    Ok(Err(broadcast::error::RecvError::Lagged(_))) => break,
                    Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => return Err(away()),
                };
                if piece.up_to.unsigned_abs() < chain.version && piece.as_of >= read_at {
                    return Err(behind());
                }
                if piece.from.unsigned_abs() > chain.version {
                    break;
                }
                chain.piece(&piece).await?;
            }
        }
    }

    /// Everything that is in the feed now, in parts; what changes meanwhile comes after it.
    async fn send_everything(&self, chain: &mut Chain<'_>) -> Result<(), Status> {
        let Ok(_permit) = self.snapshots.try_acquire() else { return Err(too_many()) };
        // Before the entries: they may be newer than what the last batch says, never older.
        let version = self.store.feed_version().await.map_err(|_| away())?;
        let secrets = self.store.feed_secrets().await.map_err(|_| away())?;
        let bits = part_bits(secrets);
        for prefix in 0..1_u32 << bits {
            let entries = self.store.feed_part(prefix, bits).await.map_err(|_| away())?;
            chain.entries(entries.iter().map(hashed).collect(), None, None).await?;
        }
        chain.moves_to(version.unsigned_abs()).await
    }

    /// What is newer than what the edge has. Says when that had been read.
    async fn catch_up(&self, chain: &mut Chain<'_>) -> Result<Instant, Status> {
        loop {
            let after = i64::try_from(chain.version).unwrap_or(i64::MAX);
            let newer = self.store.feed_after(after, CHUNK).await.map_err(|_| away())?;
            let read_at = Instant::now();
            if newer.highest < after {
                return Err(behind());
            }
            let is_all = newer.entries.len() < CHUNK;
            let entries = newer.entries.iter().map(hashed).collect();
            chain.entries(entries, Some(newer.up_to.unsigned_abs()), None).await?;
            if is_all {
                return Ok(read_at);
            }
        }
    }
}

type Batches = mpsc::Sender<Result<WatchKeysResponse, Status>>;

/// The batches of one watch.
struct Chain<'a> {
    signing: &'a Signing,
    batches: &'a Batches,
    began: Instant,
    watch: Vec<u8>,
    previous: Vec<u8>,
    version: u64,
}

impl Chain<'_> {
    /// What of a piece is new to this watch, and that it is current.
    async fn piece(&mut self, piece: &Piece) -> Result<(), Status> {
        let is_new = |hashed: &&HashedFeedEntry| {
            hashed.entry.as_ref().is_some_and(|entry| entry.feed_version > self.version)
        };
        let entries = piece.entries.iter().filter(is_new).cloned().collect();
        let up_to = piece.up_to.unsigned_abs();
        let is_current = piece.is_current && up_to >= self.version && piece.as_of >= self.began;
        self.entries(entries, Some(up_to.max(self.version)), is_current.then_some(piece.as_of)).await
    }

    /// Sends entries in batches that are not too large; the last one goes up to a version, unless all are parts of a
    /// whole, and may say since when that is all. Nothing new is no batch.
    async fn entries(
        &mut self,
        entries: Vec<HashedFeedEntry>,
        up_to: Option<u64>,
        as_of: Option<Instant>,
    ) -> Result<(), Status> {
        let mut batch = self.next();
        batch.is_partial = up_to.is_none();
        let (mut bytes, mut last) = (0, self.version);
        for entry in entries {
            let size = entry.encoded_len();
            let place = entry.entry.as_ref().map_or(0, |entry| entry.feed_version);
            if bytes + size > BATCH_BYTES_MAX && !batch.entries.is_empty() {
                if up_to.is_some() {
                    batch.feed_version = last;
                }
                self.send(batch).await?;
                batch = self.next();
                batch.is_partial = up_to.is_none();
                bytes = 0;
            }
            bytes += size;
            last = place;
            batch.entries.push(entry);
        }
        batch.feed_version = up_to.unwrap_or(batch.from_version);
        if let Some(as_of) = as_of {
            batch.is_current = true;
            let elapsed = as_of.saturating_duration_since(self.began);
            batch.elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            batch.sent_at = Some(to_proto(OffsetDateTime::now_utc() - as_of.elapsed()));
        }
        if batch.is_current || changes(&batch) { self.send(batch).await } else { Ok(()) }
    }

    /// All up to a version has been sent.
    async fn moves_to(&mut self, version: u64) -> Result<(), Status> {
        self.send(FeedBatch { feed_version: version, ..self.next() }).await
    }

    fn next(&self) -> FeedBatch {
        FeedBatch {
            watch: self.watch.clone(),
            previous: self.previous.clone(),
            from_version: self.version,
            feed_version: self.version,
            ..FeedBatch::default()
        }
    }

    async fn send(&mut self, batch: FeedBatch) -> Result<(), Status> {
        self.version = batch.feed_version;
        let encoded = batch.encode_to_vec();
        if changes(&batch) {
            self.previous = digest(&SHA256, &encoded).as_ref().to_vec();
        }
        let signed_batch = signed_batch(encoded, self.signing);
        let sent = timeout(TAKE_TIMEOUT, self.batches.send(Ok(WatchKeysResponse { signed_batch }))).await;
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(away()) }
    }
}

/// Whether a batch is a link of the chain, and no mere sign of life.
fn changes(batch: &FeedBatch) -> bool {
    !batch.entries.is_empty() || batch.feed_version != batch.from_version
}

/// How many bits of a hash name a part, so that each has about [`PART_SECRETS`].
fn part_bits(secrets: i64) -> u8 {
    let is_enough = |bits: &u8| secrets >> *bits <= PART_SECRETS;
    (0..PART_BITS_MAX).find(is_enough).unwrap_or(PART_BITS_MAX)
}

fn away() -> Status {
    status::unavailable("Postgres", RETRY_AFTER)
}

fn behind() -> Status {
    status::error(
        Code::FailedPrecondition,
        "FEED_BEHIND",
        "the edge knows a newer feed version than Postgres, which was restored from a copy; it waits until NATS has \
         told the keys service, or, if NATS has forgotten too, remove the folder `feed` in its spool and restart it",
    )
}

fn too_many() -> Status {
    status::error(
        Code::ResourceExhausted,
        "TOO_MANY_WATCHES",
        "too many edges watch, or start from nothing at once; try again in a second",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 0)]
    #[case(1_000, 0)]
    #[case(1_001, 1)]
    #[case(2_002, 2)]
    #[case(1_000_000, 10)]
    #[case(i64::MAX, 16)]
    fn parts_are_neither_many_nor_large(#[case] secrets: i64, #[case] bits: u8) {
        assert_eq!(part_bits(secrets), bits);
    }
}
