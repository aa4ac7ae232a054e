//! The spool: every call's event on the disk before its answer leaves, until ClickHouse has it. Two records a
//! call, numbered when it ends; what several calls have to write at once goes in one write. Segments go oldest first, by
//! commits alone. It waits for no network.
//!
//! What was written survives the end of the process however it comes (the page cache is the kernel's); a power
//! cut can take the last seconds.

mod calls;
mod folder;
pub(crate) mod intervals;
mod ledger;
#[cfg(test)]
mod model;
mod reader;
pub(crate) mod record;
mod recovery;
mod reserve;
pub(crate) mod segment;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use domain::EdgeId;
use time::OffsetDateTime;
use tokio::sync::Notify;

use self::{
    intervals::Intervals,
    record::{CallId, StreamId},
    reserve::Reserve,
    store::Store,
};
pub(crate) use self::{
    reader::{Item, Reader},
    record::Draft,
};

/// How long the end of a call may wait for another call, to be written with it. A crash meanwhile flags the call as
/// interrupted; it is on record all the same.
const ENDINGS_WAIT: Duration = Duration::from_millis(2);

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two edges on one folder would number events alike.
    #[error("another process uses the spool folder {path}; give each edge a folder of its own")]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// A file is not what an edge wrote.
    #[error(
        "{path}/{file} is damaged; move the folder away to start with a new one, its events are not sent then"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// The file in it.
        file: &'static str,
    },
    /// The folder cannot be read or written.
    #[error("cannot use the spool folder {path}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How much a spool may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all segments; above it the oldest one is dropped and its events are lost by number.
    pub(crate) bytes_max: u64,
    /// Bytes of one segment.
    pub(crate) segment_bytes_max: u64,
}

/// A running call, to be given back when it ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    call: CallId,
    shard: u16,
}

/// What is written together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn(u64);

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// When the call began; its latency is measured under the spool's lock, so that no call can end before a
    /// moment and be numbered after it.
    pub(crate) started: Instant,
    /// Final status.
    pub(crate) status_code: u16,
    /// Body bytes received.
    pub(crate) request_bytes: u64,
    /// Body bytes sent.
    pub(crate) response_bytes: u64,
    /// The edge cut the call short.
    pub(crate) interrupted: bool,
}

/// Up to when everything is published: every call that ended before `until` has a number at or below the
/// position of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clearance {
    /// The moment.
    pub(crate) until: OffsetDateTime,
    /// The last published number of each stream.
    pub(crate) positions: Vec<(StreamId, u64)>,
}

/// Figures for metrics and readiness.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stats {
    /// Bytes on the disk.
    pub(crate) bytes: u64,
    /// Segments on the disk.
    pub(crate) segments: u64,
    /// Events lost by this process: dropped or never written.
    pub(crate) lost_events: u64,
    /// Writes that failed.
    pub(crate) write_errors: u64,
    /// Why the last write failed, or there is no room ahead; `None` if all is well.
    pub(crate) failing: Option<String>,
}

/// The spool of one edge. Its methods block for as long as a small write to the page cache takes.
#[derive(Debug)]
pub(crate) struct Spool {
    edge_id: EdgeId,
    boot_epoch: u32,
    path: PathBuf,
    next_ordinal: AtomicU64,
    store: Mutex<Store>,
    reserve: Arc<Reserve>,
    /// Told at each end of a call.
    arrived: Notify,
    /// Told when something begins to wait for being written.
    waits: Notify,
}

impl Spool {
    /// Takes the folder, makes it if it is missing, and finishes what an earlier start left open.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(path: &Path, limits: Limits) -> Result<Self, OpenError> {
        let folder = folder::Folder::open(path)?;
        let (edge_id, boot_epoch) = (folder.edge_id, folder.boot_epoch);
        let store = recovery::recover(folder, limits)
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let reserve = store.reserve.clone();
        reserve.top_up();
        Ok(Self {
            edge_id,
            boot_epoch,
            path: path.to_owned(),
            next_ordinal: AtomicU64::new(0),
            store: Mutex::new(store),
            reserve,
            arrived: Notify::new(),
            waits: Notify::new(),
        })
    }

    /// The edge's id.
    pub(crate) fn edge_id(&self) -> EdgeId {
        self.edge_id
    }

    /// The number of this start.
    pub(crate) fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }

    /// Takes a call that is about to be answered. It is on the disk once [`Self::write_down`] has returned for this turn;
    /// a write that fails is tried again when the call ends.
    pub(crate) fn opened(&self, shard: u16, event: Draft) -> (Ticket, Turn) {
        let ordinal = self.next_ordinal.fetch_add(1, Relaxed);
        let call = CallId { boot_epoch: self.boot_epoch, ordinal };
        let record = event.seal(call, shard);
        let (turn, is_first) = self.store().opened(call, &record);
        if is_first {
            self.waits.notify_one();
        }
        (Ticket { call, shard }, turn)
    }

    /// Returns once everything of a turn is written: by this, unless somebody else came first.
    pub(crate) fn write_down(&self, turn: Turn) {
        self.store().write_down(turn);
    }

    /// Numbers a call's event, since it has ended, and records how: with the next turn that is written.
    pub(crate) fn closed(&self, ticket: &Ticket, ending: &Ending) {
        if self.store().closed(ticket, ending) {
            self.waits.notify_one();
        }
        self.arrived.notify_one();
    }

    /// Writes down what no call's turn has taken along, soon after it came.
    pub(crate) async fn flush_for_ever(&self) {
        loop {
            self.waits.notified().await;
            tokio::time::sleep(ENDINGS_WAIT).await;
            self.flush();
        }
    }

    /// Keeps room on the disk for the calls to come.
    pub(crate) async fn keep_reserve_for_ever(&self) {
        self.reserve.keep_for_ever().await;
    }

    /// Writes down everything.
    pub(crate) fn flush(&self) {
        self.store().flush();
    }

    /// ClickHouse has these events for good: frees what is no longer needed.
    pub(crate) fn commit(&self, stream: StreamId, committed: &Intervals) {
        let needless = self.store().commit(stream, committed);
        needless.iter().for_each(|number| segment::remove(&self.path, *number));
        if !needless.is_empty() {
            self.reserve.freed();
        }
    }

    /// The stream has acknowledged these events, or that they are lost.
    pub(crate) fn publish(&self, stream: StreamId, first_seq: u64, last_seq: u64) {
        self.store().ledger.publish(stream, first_seq, last_seq);
    }

    /// What was acknowledged may be gone: everything that is not committed counts as unpublished again.
    pub(crate) fn forget_published(&self) {
        self.store().ledger.forget_published();
    }

    /// The newest true statement on what is published; `None` until there is one.
    pub(crate) fn clearance(&self) -> Option<Clearance> {
        self.store().clearance()
    }

    /// Whether all that ended is published.
    pub(crate) fn is_published(&self) -> bool {
        self.store().ledger.positions().all(|(_, last, published)| last == published)
    }

    /// Whether ClickHouse has all that ended.
    pub(crate) fn is_committed(&self) -> bool {
        self.store().ledger.is_committed()
    }

    /// Returns once a call has ended since the last time.
    pub(crate) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// The bytes on the disk above which the oldest events are lost.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.store().bytes_max()
    }

    /// Figures for metrics and readiness.
    pub(crate) fn stats(&self) -> Stats {
        let stats = self.store().stats();
        Stats { failing: stats.failing.or_else(|| self.reserve.short()), ..stats }
    }

    /// The readable segments, each with its length, and what of them need not be sent.
    fn view(&self) -> (Vec<(u64, u64)>, HashMap<StreamId, Intervals>) {
        let mut store = self.store();
        store.flush();
        (store.ledger.segments().collect(), store.ledger.published())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A panic under the lock leaves at worst a record that nobody refers to.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
