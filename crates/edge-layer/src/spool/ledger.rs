//! What the segments hold and what is still needed of them. Pure: knows places in files, touches none.

use std::collections::{BTreeMap, HashMap};

use super::{
    calls::Calls,
    intervals::Intervals,
    record::{CallId, Closed, StreamId},
};

/// Where an `Opened` record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Of the record's first byte.
    pub(crate) offset: u64,
    /// Header included.
    pub(crate) length: usize,
}

/// The account of all segments.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    segments: BTreeMap<u64, Content>,
    /// Calls that are running, each with its newest `Opened` record.
    open: Calls<Place>,
    /// Bytes of those records.
    open_bytes: u64,
    streams: BTreeMap<StreamId, Stream>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Content {
    bytes: u64,
    /// Running calls whose record is here.
    open: usize,
    /// Sequences that cannot be sent again without this segment.
    needs: BTreeMap<StreamId, Intervals>,
}

#[derive(Debug, Default)]
struct Stream {
    last_seq: u64,
    /// ClickHouse has them.
    committed: Intervals,
    /// Those, and what the stream has acknowledged.
    published: Intervals,
    /// Some record says that they are lost.
    lost: Intervals,
}

/// What may be done with the oldest segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Oldest {
    /// Something in it is still needed, or there is but one, or most of the spool is calls that run.
    Keep,
    /// Remove it, once these running calls are written again elsewhere.
    Free(u64, Vec<(CallId, Place)>),
}

impl Ledger {
    /// A new segment, the newest.
    pub(crate) fn begin(&mut self, segment: u64) {
        self.segments.insert(segment, Content::default());
    }

    /// The segment has so many readable bytes.
    pub(crate) fn resize(&mut self, segment: u64, bytes: u64) {
        let content = self.segments.entry(segment).or_default();
        self.bytes = self.bytes - content.bytes + bytes;
        content.bytes = bytes;
    }

    /// A call has its record at `place`; an earlier one of the same call no longer counts.
    pub(crate) fn opened(&mut self, call: CallId, place: Place) {
        self.forget(call);
        self.open_bytes += place.length as u64;
        self.open.insert(call, place);
        self.segments.entry(place.segment).or_default().open += 1;
    }

    /// The call is no longer running.
    pub(crate) fn forget(&mut self, call: CallId) -> Option<Place> {
        let place = self.open.remove(&call)?;
        self.open_bytes -= place.length as u64;
        if let Some(content) = self.segments.get_mut(&place.segment) {
            content.open -= 1;
        }
        Some(place)
    }

    /// A call ended; its `Closed` record is in `segment`. False if no `Opened` record is known.
    pub(crate) fn closed(&mut self, segment: u64, closed: &Closed) -> bool {
        self.need(segment, closed.stream, closed.seq, closed.seq);
        let place = self.forget(closed.call);
        if let Some(place) = place.filter(|place| place.segment != segment) {
            self.need(place.segment, closed.stream, closed.seq, closed.seq);
        }
        place.is_some()
    }

    /// A record in `segment` names lost events; says how many of them were not known to be lost.
    pub(crate) fn lost(&mut self, segment: u64, stream: StreamId, first_seq: u64, last_seq: u64) -> u64 {
        self.need(segment, stream, first_seq, last_seq);
        let known = &mut self.streams.entry(stream).or_default().lost;
        let fresh = known.missing(&Intervals::from_iter([(first_seq, last_seq)]));
        known.insert(first_seq, last_seq);
        fresh.runs().map(|(first, last)| last - first + 1).sum()
    }

    fn need(&mut self, segment: u64, stream: StreamId, first_seq: u64, last_seq: u64) {
        let content = self.segments.entry(segment).or_default();
        content.needs.entry(stream).or_default().insert(first_seq, last_seq);
        let known = self.streams.entry(stream).or_default();
        known.last_seq = known.last_seq.max(last_seq);
    }

    /// The next number of a stream, taken.
    pub(crate) fn assign(&mut self, stream: StreamId) -> u64 {
        let stream = self.streams.entry(stream).or_default();
        stream.last_seq += 1;
        stream.last_seq
    }

    /// ClickHouse has these; a stream of which nothing is here is not remembered.
    pub(crate) fn commit(&mut self, stream: StreamId, committed: &Intervals) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            for (first, last) in committed.runs() {
                stream.committed.insert(first, last);
                stream.published.insert(first, last);
            }
        }
    }

    /// The stream has acknowledged these.
    pub(crate) fn publish(&mut self, stream: StreamId, first_seq: u64, last_seq: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.published.insert(first_seq, last_seq);
        }
    }

    /// What was acknowledged may be gone; only commits count.
    pub(crate) fn forget_published(&mut self) {
        for stream in self.streams.values_mut() {
            stream.published = stream.committed.clone();
        }
    }

    /// What of each stream need not be sent.
    pub(crate) fn published(&self) -> HashMap<StreamId, Intervals> {
        self.streams.iter().map(|(id, stream)| (*id, stream.published.clone())).collect()
    }

    /// For each stream the last number given and the last of the unbroken run that was published.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (StreamId, u64, u64)> + '_ {
        self.streams.iter().map(|(id, stream)| (*id, stream.last_seq, stream.published.prefix()))
    }

    /// Whether ClickHouse has everything.
    pub(crate) fn is_committed(&self) -> bool {
        self.streams.values().all(|stream| stream.committed.prefix() == stream.last_seq)
    }

    /// What may be done with the oldest segment.
    pub(crate) fn oldest(&self) -> Oldest {
        let Some((number, content)) = self.segments.first_key_value().filter(|_| self.segments.len() > 1)
        else {
            return Oldest::Keep;
        };
        let needless = content.needs.iter().all(|(id, needs)| self.is_covered(*id, needs));
        if needless && (content.open == 0 || self.is_roomy()) {
            Oldest::Free(*number, self.running_in(*number))
        } else {
            Oldest::Keep
        }
    }

    /// The oldest of several segments with all that is needed of it: what is not committed, and what runs. `None` as well
    /// if most of the spool is calls that run.
    #[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
    pub(crate) fn overflow(&self) -> Option<(u64, Vec<(StreamId, Intervals)>, Vec<(CallId, Place)>)> {
        let several = self.segments.len() > 1 && self.is_roomy();
        let (number, content) = self.segments.first_key_value().filter(|_| several)?;
        let lost = content.needs.iter().map(|(id, needs)| {
            (
                *id,
                self.streams
                    .get(id)
                    .map_or_else(Intervals::default, |stream| stream.committed.missing(needs)),
            )
        });
        Some((*number, lost.filter(|(_, seqs)| seqs.first().is_some()).collect(), self.running_in(*number)))
    }

    /// Whether there is more to be freed than what running calls take. Else their records would be written again and
    /// again, and nothing gained.
    fn is_roomy(&self) -> bool {
        self.bytes > 2 * self.open_bytes
    }

    /// Removes a segment, and with it each older start of which nothing is left.
    pub(crate) fn remove(&mut self, segment: u64, boot_epoch: u32) {
        self.bytes -= self.segments.remove(&segment).map_or(0, |content| content.bytes);
        let segments = &self.segments;
        self.streams.retain(|id, _| {
            id.boot_epoch == boot_epoch || segments.values().any(|content| content.needs.contains_key(id))
        });
    }

    /// The calls that are running, in the order in which they came.
    pub(crate) fn running(&self) -> Vec<(CallId, Place)> {
        let mut running: Vec<_> = self.open.iter().map(|(call, place)| (*call, *place)).collect();
        running.sort_unstable_by_key(|(call, _)| *call);
        running
    }

    fn running_in(&self, segment: u64) -> Vec<(CallId, Place)> {
        if self.segments.get(&segment).is_none_or(|content| content.open == 0) {
            return Vec::new();
        }
        self.running().into_iter().filter(|(_, place)| place.segment == segment).collect()
    }

    fn is_covered(&self, id: StreamId, needs: &Intervals) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.committed.covers(needs))
    }

    /// All sequences that some segment is needed for, by stream.
    pub(crate) fn needs(&self) -> BTreeMap<StreamId, Intervals> {
        let mut all = BTreeMap::<StreamId, Intervals>::new();
        for (id, needs) in self.segments.values().flat_map(|content| &content.needs) {
            let sum = all.entry(*id).or_default();
            needs.runs().for_each(|(first, last)| sum.insert(first, last));
        }
        all
    }

    /// The segments in order, each with its readable bytes.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.segments.iter().map(|(number, content)| (*number, content.bytes))
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
