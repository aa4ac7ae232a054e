//! What stands under the spool's lock: the newest segment, the account of all, and the order of writes. A write
//! that fails costs its event, by number, and never more.

use std::{collections::BTreeMap, io, mem, ops::Range, sync::Arc};

use time::OffsetDateTime;

use super::{
    Clearance, Ending, Limits, Stats, Ticket, Turn,
    calls::Calls,
    folder::Folder,
    intervals::Intervals,
    ledger::{Ledger, Oldest, Place},
    record::{CallId, Closed, Record, StreamId},
    reserve::Reserve,
    segment::{self, Segment},
};

/// What waits is written when it is so many bytes, whatever turn it is.
const WAITING_BYTES_MAX: usize = 16 * 1024;

/// Records to be written together, in their order.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    records: Vec<Waits>,
}

/// A record that waits.
#[derive(Debug)]
struct Waits {
    at: Range<usize>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A call is about to be answered.
    Opened(CallId),
    /// It has ended, and has its number.
    Closed(Closed),
}

impl Waiting {
    /// Adds the record that `encode` appends; true if it is the first.
    fn push(&mut self, what: What, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let from = self.bytes.len();
        encode(&mut self.bytes);
        self.records.push(Waits { at: from..self.bytes.len(), what });
        self.records.len() == 1
    }
}

/// The spool without its lock.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) ledger: Ledger,
    pub(crate) reserve: Arc<Reserve>,
    folder: Folder,
    limits: Limits,
    /// `None` after a write that could not be undone; the next one begins a new segment.
    current: Option<Segment>,
    next_segment: u64,
    /// Lost, and not yet written down.
    unrecorded: BTreeMap<StreamId, Intervals>,
    /// A statement that is true once all its numbers are published, and the last one that came true.
    pending: Option<Clearance>,
    cleared: Option<Clearance>,
    stats: Stats,
    waiting: Waiting,
    /// Counts the writes of what waits.
    turn: u64,
    /// `Opened` records of running calls that could not be written.
    unwritten: Calls<Vec<u8>>,
}

impl Store {
    /// A store whose next segment is `next_segment`.
    pub(crate) fn new(folder: Folder, limits: Limits, ledger: Ledger, next_segment: u64) -> Self {
        Self {
            ledger,
            reserve: Arc::new(Reserve::new(&folder.path, limits)),
            folder,
            limits,
            current: None,
            next_segment,
            unrecorded: BTreeMap::new(),
            pending: None,
            cleared: None,
            stats: Stats::default(),
            waiting: Waiting::default(),
            turn: 0,
            unwritten: Calls::default(),
        }
    }

    /// Takes a call's `Opened` record; says in which turn it is written, and whether it is the first that waits.
    pub(crate) fn opened(&mut self, call: CallId, record: &[u8]) -> (Turn, bool) {
        let turn = Turn(self.turn);
        let is_first = self.waiting.push(What::Opened(call), |out| out.extend_from_slice(record));
        self.flush_much();
        (turn, is_first)
    }

    /// Writes what waits, unless the turn is over.
    pub(crate) fn write_down(&mut self, turn: Turn) {
        if turn.0 == self.turn {
            self.flush();
        }
    }

    /// Numbers the end of a call, to be written with the next turn. True if it is the first that waits for that.
    pub(crate) fn closed(&mut self, ticket: &Ticket, ending: &Ending) -> bool {
        let latency = ending.started.elapsed().as_micros();
        let stream = StreamId { boot_epoch: self.folder.boot_epoch, shard: ticket.shard };
        let closed = Closed {
            call: ticket.call,
            stream,
            seq: self.ledger.assign(stream),
            status_code: ending.status_code,
            latency_us: u32::try_from(latency).unwrap_or(u32::MAX),
            request_bytes: ending.request_bytes,
            response_bytes: ending.response_bytes,
            interrupted: ending.interrupted,
        };
        if !self.is_opened(closed.call) {
            self.lost(&closed);
            return false;
        }
        let is_first = self.waiting.push(What::Closed(closed), |out| Record::Closed(closed).encode(out));
        self.flush_much();
        is_first
    }

    /// Whether the `Opened` record of a call that ends is written or waits for that; one that failed is tried again.
    fn is_opened(&mut self, call: CallId) -> bool {
        let Some(record) = self.unwritten.remove(&call) else { return true };
        self.write_opened(call, &record).is_ok()
    }

    fn flush_much(&mut self) {
        if self.waiting.bytes.len() >= WAITING_BYTES_MAX {
            self.flush();
        }
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) {
        self.turn += 1;
        if self.waiting.records.is_empty() {
            return;
        }
        let Waiting { mut bytes, mut records } = mem::take(&mut self.waiting);
        match self.append(&bytes) {
            Ok((segment, offset)) => records.drain(..).for_each(|Waits { at, what }| match what {
                What::Opened(call) => {
                    let place = Place { segment, offset: offset + at.start as u64, length: at.len() };
                    self.ledger.opened(call, place);
                }
                What::Closed(closed) => _ = self.ledger.closed(segment, &closed),
            }),
            Err(_) => records.drain(..).for_each(|Waits { at, what }| self.write_alone(&bytes[at], &what)),
        }
        if !self.unrecorded.is_empty() && self.stats.failing.is_none() {
            self.record_losses();
        }
        // Their memory serves again.
        bytes.clear();
        self.waiting = Waiting { bytes, records };
    }

    /// A record that failed together with others may still fit alone.
    fn write_alone(&mut self, record: &[u8], what: &What) {
        match what {
            What::Opened(call) => {
                if self.write_opened(*call, record).is_err() {
                    self.unwritten.insert(*call, record.to_vec());
                }
            }
            What::Closed(closed) => {
                let written = if self.is_opened(closed.call) { self.append(record).ok() } else { None };
                match written {
                    Some((segment, _)) => _ = self.ledger.closed(segment, closed),
                    None => self.lost(closed),
                }
            }
        }
    }

    fn write_opened(&mut self, call: CallId, record: &[u8]) -> io::Result<()> {
        let (segment, offset) = self.append(record)?;
        self.ledger.opened(call, Place { segment, offset, length: record.len() });
        Ok(())
    }

    fn lost(&mut self, closed: &Closed) {
        self.ledger.forget(closed.call);
        self.unrecorded.entry(closed.stream).or_default().insert(closed.seq, closed.seq);
    }

    /// As a crash does; says how many endings are forgotten.
    #[cfg(test)]
    pub(crate) fn forget_waiting(&mut self) -> usize {
        let waiting = mem::take(&mut self.waiting).records;
        waiting.iter().filter(|waits| matches!(waits.what, What::Closed(_))).count()
    }

    /// Ends a call that an earlier start left open.
    pub(crate) fn interrupt(&mut self, call: CallId, shard: u16) -> io::Result<()> {
        let stream = StreamId { boot_epoch: self.folder.boot_epoch, shard };
        let seq = self.ledger.assign(stream);
        let closed = Closed {
            call,
            stream,
            seq,
            status_code: 0,
            latency_us: 0,
            request_bytes: 0,
            response_bytes: 0,
            interrupted: true,
        };
        let mut record = Vec::new();
        Record::Closed(closed).encode(&mut record);
        let (segment, _) = self.append(&record)?;
        self.ledger.closed(segment, &closed);
        Ok(())
    }

    /// ClickHouse has these events. Returns the segments that are not needed any more, oldest first; to be removed
    /// without the lock, since a large file takes its time.
    pub(crate) fn commit(&mut self, stream: StreamId, committed: &Intervals) -> Vec<u64> {
        self.ledger.commit(stream, committed);
        let mut needless = Vec::new();
        while let Oldest::Free(number, running) = self.ledger.oldest() {
            if running.into_iter().any(|(call, place)| self.carry(call, place).is_err()) {
                break;
            }
            self.ledger.remove(number, self.folder.boot_epoch);
            needless.push(number);
        }
        needless
    }

    pub(crate) fn clearance(&mut self) -> Option<Clearance> {
        let now = OffsetDateTime::now_utc();
        let published: BTreeMap<_, _> =
            self.ledger.positions().map(|(stream, _, published)| (stream, published)).collect();
        let is_true = |statement: &Clearance| {
            // A stream that is gone had everything committed.
            statement
                .positions
                .iter()
                .all(|(stream, seq)| published.get(stream).is_none_or(|up_to| up_to >= seq))
        };
        let newest = Clearance {
            until: now,
            positions: self.ledger.positions().map(|(stream, last, _)| (stream, last)).collect(),
        };
        if is_true(&newest) {
            self.cleared = Some(newest);
            self.pending = None;
        } else if self.pending.as_ref().is_some_and(is_true) {
            self.cleared = self.pending.replace(newest);
        } else if self.pending.is_none() {
            self.pending = Some(newest);
        }
        self.cleared.clone()
    }

    pub(crate) const fn bytes_max(&self) -> u64 {
        self.limits.bytes_max
    }

    pub(crate) fn stats(&self) -> Stats {
        let unrecorded =
            self.unrecorded.values().flat_map(Intervals::runs).map(|(first, last)| last - first + 1);
        Stats {
            bytes: self.ledger.bytes(),
            segments: self.ledger.segments().count() as u64,
            lost_events: self.stats.lost_events + unrecorded.sum::<u64>(),
            ..self.stats.clone()
        }
    }

    /// Writes down events that will never come.
    pub(crate) fn lose(&mut self, stream: StreamId, lost: &Intervals) -> io::Result<()> {
        for (first_seq, last_seq) in lost.runs() {
            let mut record = Vec::new();
            Record::Lost { stream, first_seq, last_seq }.encode(&mut record);
            let (segment, _) = self.write(&record)?;
            self.stats.lost_events += self.ledger.lost(segment, stream, first_seq, last_seq);
        }
        Ok(())
    }

    fn record_losses(&mut self) {
        for (stream, lost) in mem::take(&mut self.unrecorded) {
            if self.lose(stream, &lost).is_err() {
                self.unrecorded.insert(stream, lost);
            }
        }
    }

    /// Writes records where there is room for them; makes room by dropping the oldest events.
    fn append(&mut self, records: &[u8]) -> io::Result<(u64, u64)> {
        while self.ledger.bytes() >= self.limits.bytes_max && self.drop_oldest()? {}
        self.write(records)
    }

    fn drop_oldest(&mut self) -> io::Result<bool> {
        let Some((number, lost, running)) = self.ledger.overflow() else {
            return Ok(false);
        };
        let before = self.stats.lost_events;
        for (stream, seqs) in &lost {
            self.lose(*stream, seqs)?;
        }
        for (call, place) in running {
            if self.carry(call, place).is_err() {
                self.ledger.forget(call);
            }
        }
        self.ledger.remove(number, self.folder.boot_epoch);
        segment::remove(&self.folder.path, number);
        let events = self.stats.lost_events - before;
        if events > 0 {
            tracing::error!(
                spool.segment = number,
                spool.lost_events = events,
                "the spool is full: the oldest unsent events are lost; bring NATS and ingest back or allow more bytes"
            );
        }
        Ok(true)
    }

    /// Writes a running call's record again, into the newest segment, so that its own can go.
    fn carry(&mut self, call: CallId, place: Place) -> io::Result<()> {
        let bytes = segment::read(&self.folder.path, place.segment, place.offset, place.length)?;
        let (segment, offset) = self.write(&bytes)?;
        self.ledger.opened(call, Place { segment, offset, length: bytes.len() });
        Ok(())
    }

    /// Writes whole records with one write; says where they begin.
    fn write(&mut self, bytes: &[u8]) -> io::Result<(u64, u64)> {
        let written = self.try_write(bytes);
        match &written {
            Ok(_) if self.stats.failing.take().is_some() => tracing::info!("the spool can be written again"),
            Ok(_) => {}
            Err(error) => {
                self.stats.write_errors += 1;
                self.current.take_if(|current| current.is_broken);
                let failing = format!("cannot be written, events are lost: {error}");
                if self.stats.failing.replace(failing).is_none() {
                    tracing::error!(%error, "the spool cannot be written: calls are answered, their events are lost");
                }
            }
        }
        written
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<(u64, u64)> {
        let full = |current: &Segment| {
            current.bytes > 0 && current.bytes + bytes.len() as u64 > self.limits.segment_bytes_max
        };
        let current = match self.current.take().filter(|current| !full(current)) {
            Some(current) => self.current.insert(current),
            None => {
                let number = self.next_segment;
                self.next_segment += 1;
                let fresh = Segment::create(&self.folder.path, number, &self.reserve)?;
                self.ledger.begin(number);
                self.current.insert(fresh)
            }
        };
        let offset = current.append(bytes)?;
        self.ledger.resize(current.number, current.bytes);
        Ok((current.number, offset))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.flush();
    }
}
