//! What was read from a shard's stream and is not written yet: bounded, without what is closed already, ready to
//! be one insert. Pure: time is an argument.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::RequestEvent;
use time::OffsetDateTime;

use crate::{
    activity::Activity,
    decode,
    erasures::Erased,
    gaps::{self, Gap},
    letter,
    record::Closed,
    time_rule,
};

/// Most rows of an insert, but for the last message's; bounds memory.
const ROWS_MAX: usize = 50_000;
/// Most bytes of messages behind an insert, but for the last message's.
const BYTES_MAX: usize = 16 << 20;
/// Inserts of a shard start at least this far apart unless they are full, so that parts stay few; the first event
/// after a pause waits for nothing.
const PACE: Duration = Duration::from_millis(200);

/// A message as it came from the stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its position.
    pub sequence: u64,
    /// When the broker took it.
    pub published_at: OffsetDateTime,
    /// Its bytes.
    pub payload: Bytes,
}

/// An event on its way into a row; `event.occurred_at` is the time to count it under.
#[derive(Debug, Clone)]
pub struct Row {
    /// The call.
    pub event: RequestEvent,
    /// The edge's own time was out of bounds.
    pub clock_skewed: bool,
    /// The edge that numbered it.
    pub edge_id: Arc<str>,
    /// The edge's start that did.
    pub boot_epoch: u32,
    /// Its number.
    pub edge_seq: u64,
    /// The bytes of the fields that this version does not know, for one that does.
    pub unknown_fields: Bytes,
}

/// Bytes that could not be read, for the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Position of the whole message in its stream.
    pub sequence: u64,
    /// Which event of it; `None` if all of it.
    pub event: Option<usize>,
    /// A sentence.
    pub reason: String,
    /// When the broker took the message.
    pub published_at: OffsetDateTime,
    /// The event alone, see [`letter::alone`], or the whole message.
    pub payload: Bytes,
}

/// Where events ended; each in exactly one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fates {
    /// To become rows.
    pub rows: u64,
    /// Closed before, so dropped.
    pub duplicate: u64,
    /// To the dead letters; a message that cannot be read at all counts as one.
    pub dead_lettered: u64,
    /// Named as lost by their edge.
    pub lost: u64,
    /// Not taken since they would have made too many gaps; their edge sends them again.
    pub deferred: u64,
    /// Dropped since their workspace was erased.
    pub erased: u64,
    /// Of the rows, those counted under the broker's time.
    pub clock_skewed: u64,
}

/// What one insert and one change of the record are made from.
#[derive(Debug, Default)]
pub struct Batch {
    /// For ClickHouse.
    pub rows: Vec<Row>,
    /// For the dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The use of keys, also by calls that were closed before, so that a crash between the insert and the
    /// announcement hides none.
    pub activity: Activity,
    /// Edges and boots with newly closed sequences.
    pub touched: BTreeSet<(String, u32)>,
    /// The last message in it.
    pub last_sequence: u64,
    /// Where its events go.
    pub fates: Fates,
    /// Newly closed sequences that become no rows.
    pub gaps: Vec<Gap>,
    /// Messages in it.
    pub messages: usize,
    bytes: usize,
    first_at: Option<Instant>,
}

/// Fills batches of one shard.
#[derive(Debug)]
pub struct Buffer {
    shard: u16,
    closed: Closed,
    erased: Erased,
    batch: Batch,
    paced_until: Option<Instant>,
}

impl Buffer {
    /// An empty one that drops what `closed` has.
    #[must_use]
    pub fn new(shard: u16, closed: Closed) -> Self {
        Self { shard, closed, erased: Erased::default(), batch: Batch::default(), paced_until: None }
    }

    /// From now on drops what is erased, also of what it holds already. Dropped sequences are closed like others:
    /// their edges need not keep them.
    pub fn obey(&mut self, erased: Erased) {
        self.erased = erased;
        let Batch { rows, activity, fates, gaps, .. } = &mut self.batch;
        let before = rows.len();
        let dropped = rows.iter().filter(|row| self.erased.covers(&row.event));
        gaps.extend(dropped.map(|row| Gap::erased(&row.edge_id, row.boot_epoch, row.edge_seq)));
        rows.retain(|row| !self.erased.covers(&row.event));
        let dropped = (before - rows.len()) as u64;
        fates.rows -= dropped;
        fates.erased += dropped;
        fates.clock_skewed = rows.iter().filter(|row| row.clock_skewed).count() as u64;
        activity.forget(&self.erased);
    }

    /// Takes a message in.
    pub fn push(&mut self, message: Message, now: Instant) {
        self.batch.first_at.get_or_insert(now);
        self.batch.last_sequence = message.sequence;
        self.batch.messages += 1;
        self.batch.bytes += message.payload.len();
        match decode::decode(message.payload.clone(), self.shard) {
            Ok(decoded) => self.take(&message, decoded),
            Err(reason) => {
                self.batch.fates.dead_lettered += 1;
                let Message { sequence, published_at, payload } = message;
                let letter = DeadLetter { sequence, event: None, reason, published_at, payload };
                self.batch.dead_letters.push(letter);
            }
        }
    }

    /// When the batch is to be written; `None` while it is empty.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let first_at = self.batch.first_at?;
        Some(self.paced_until.filter(|_| !self.is_full()).map_or(first_at, |until| until.max(first_at)))
    }

    /// Whether nothing more should be pushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.rows.len() >= ROWS_MAX || self.batch.bytes >= BYTES_MAX
    }

    /// Where the events of the batch go, as far as it is filled.
    #[must_use]
    pub const fn fates(&self) -> Fates {
        self.batch.fates
    }

    /// The batch, and what is closed once it is written.
    #[must_use]
    pub fn drain(&mut self, now: Instant) -> (Batch, Closed) {
        self.paced_until = Some(now + PACE);
        self.drop_erased_letters();
        self.batch.gaps = gaps::settled(std::mem::take(&mut self.batch.gaps), &self.erased);
        (std::mem::take(&mut self.batch), self.closed.clone())
    }

    fn drop_erased_letters(&mut self) {
        let Batch { dead_letters, fates, .. } = &mut self.batch;
        let before = dead_letters.len();
        dead_letters.retain(|of| !letter::is_erased(&of.payload, of.published_at, &self.erased));
        let dropped = (before - dead_letters.len()) as u64;
        fates.dead_lettered -= dropped;
        fates.erased += dropped;
    }

    fn take(&mut self, message: &Message, decoded: decode::Decoded) {
        let decode::Decoded { edge_id, boot_epoch, first_seq, events, mut unknown_fields, lost } = decoded;
        let before = self.closed.of(&edge_id, boot_epoch).cloned().unwrap_or_default();
        let count = events.len() as u64;
        let own = (count > 0).then(|| (first_seq, first_seq + (count - 1)));
        let fates = &mut self.batch.fates;
        if self.closed.insert(&edge_id, boot_epoch, own.into_iter().chain(lost.iter().copied())).is_err() {
            fates.deferred += count;
            return;
        }
        for range in lost.into_iter().filter(|range| !before.holds(*range)) {
            fates.lost += range.1 - range.0 + 1;
            self.batch.gaps.push(Gap::lost(&edge_id, boot_epoch, range, message.published_at));
        }
        self.batch.touched.insert((edge_id.clone(), boot_epoch));
        let edge_id: Arc<str> = edge_id.into();
        for (index, event) in events.into_iter().enumerate() {
            let edge_seq = first_seq + index as u64;
            let is_closed = before.contains(edge_seq);
            fates.duplicate += u64::from(is_closed);
            match event {
                Ok(mut event) => {
                    let (occurred_at, clock_skewed) =
                        time_rule::bucketed(event.occurred_at, message.published_at);
                    event.occurred_at = occurred_at;
                    if self.erased.covers(&event) {
                        if !is_closed {
                            fates.erased += 1;
                            self.batch.gaps.push(Gap::erased(&edge_id, boot_epoch, edge_seq));
                        }
                        continue;
                    }
                    self.batch.activity.note(&event);
                    if !is_closed {
                        fates.rows += 1;
                        fates.clock_skewed += u64::from(clock_skewed);
                        let edge_id = Arc::clone(&edge_id);
                        let unknown_fields = unknown_fields.remove(&index).unwrap_or_default();
                        let row = Row { event, clock_skewed, edge_id, boot_epoch, edge_seq, unknown_fields };
                        self.batch.rows.push(row);
                    }
                }
                Err(_) if is_closed => {}
                Err(reason) => {
                    fates.dead_lettered += 1;
                    let payload = letter::alone(&message.payload, index, edge_seq);
                    let (subject, at) = (letter::subject_of(&payload), message.published_at);
                    self.batch.gaps.push(Gap::dead_letter(&edge_id, boot_epoch, edge_seq, subject, at));
                    self.batch.dead_letters.push(DeadLetter {
                        sequence: message.sequence,
                        event: Some(index),
                        reason: format!("event {index} with sequence {edge_seq}: {reason}"),
                        published_at: message.published_at,
                        payload,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::events as pb;

    use super::*;
    use crate::example;

    fn message(sequence: u64, batch: &pb::RequestEventBatch) -> Message {
        Message { sequence, published_at: OffsetDateTime::now_utc(), payload: batch.encode_to_vec().into() }
    }

    fn sequences(batch: &Batch) -> Vec<u64> {
        batch.rows.iter().map(|row| row.edge_seq).collect()
    }

    #[test]
    fn duplicates_are_dropped_within_and_across_batches() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default()), Instant::now());
        buffer.push(message(1, &example::batch("edge_a", 1, 3)), now);
        buffer.push(message(2, &example::batch("edge_a", 2, 3)), now);
        let (batch, closed) = buffer.drain(now);
        assert_eq!((sequences(&batch), batch.last_sequence, batch.messages), (vec![1, 2, 3, 4], 2, 2));
        assert!(closed.of("edge_a", 1).unwrap().holds((1, 4)));
        buffer.push(message(3, &example::batch("edge_a", 4, 2)), now);
        buffer.push(
            message(4, &pb::RequestEventBatch { boot_epoch: 2, ..example::batch("edge_a", 4, 1) }),
            now,
        );
        let (batch, _) = buffer.drain(now);
        assert_eq!(sequences(&batch), [5, 4]);
        assert_eq!(batch.fates, Fates { rows: 2, duplicate: 1, ..Fates::default() });
        assert_eq!(batch.activity.messages().count(), 2, "a duplicate's key is announced as well");
    }

    #[test]
    fn bad_and_lost_events_are_closed_and_counted_once() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default()), Instant::now());
        let mut bad = example::batch("edge_a", 1, 2);
        bad.events[1].status_code = 99;
        bad.lost = vec![pb::SeqRange { first_seq: 3, last_seq: 12 }];
        buffer.push(message(7, &bad), now);
        buffer.push(message(8, &bad), now);
        buffer.push(Message { payload: Bytes::from_static(b"garbled"), ..message(9, &bad) }, now);
        let (batch, closed) = buffer.drain(now);
        let expected = Fates { rows: 1, duplicate: 2, dead_lettered: 2, lost: 10, ..Fates::default() };
        assert_eq!(batch.fates, expected);
        assert!(closed.of("edge_a", 1).unwrap().holds((1, 12)));
        let letters: Vec<_> =
            batch.dead_letters.iter().map(|letter| (letter.sequence, letter.event)).collect();
        assert_eq!(letters, [(7, Some(1)), (9, None)]);
        assert_eq!(
            batch.dead_letters[0].reason,
            "event 1 with sequence 2: field status_code is missing or out of bounds"
        );
        bad.events.remove(0);
        let alone = pb::RequestEventBatch { first_seq: 2, lost: Vec::new(), ..bad };
        assert_eq!(pb::RequestEventBatch::decode(batch.dead_letters[0].payload.clone()), Ok(alone));
    }

    #[test]
    fn what_is_erased_becomes_no_row_and_is_closed() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default()), Instant::now());
        let mut erased = Erased::default();
        let later = OffsetDateTime::now_utc() + time::Duration::DAY;
        // Of two workspaces, events with odd sequences are in this one. Some are held already, some come after.
        erased.insert(example::event("edge_a", 1).workspace_id, later);
        buffer.push(message(1, &example::batch("edge_a", 1, 4)), now);
        buffer.obey(erased);
        buffer.push(message(2, &example::batch("edge_a", 3, 4)), now);
        let (batch, closed) = buffer.drain(now);
        assert_eq!(sequences(&batch), [2, 4, 6]);
        assert_eq!(batch.fates, Fates { rows: 3, erased: 3, duplicate: 2, ..Fates::default() });
        let kept = example::event("edge_a", 2).workspace_id;
        assert!(batch.activity.messages().all(|used| used.workspace_id == kept.as_bytes()));
        assert!(closed.of("edge_a", 1).unwrap().holds((1, 6)));
    }

    #[test]
    fn a_wrong_clock_is_flagged_and_nothing_else() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default()), Instant::now());
        let mut batch = example::batch("edge_a", 1, 2);
        batch.events[0].occurred_at.as_mut().unwrap().seconds -= 36 * 86_400;
        let sent = message(1, &batch);
        buffer.push(sent.clone(), now);
        let (batch, _) = buffer.drain(now);
        assert_eq!(batch.rows.iter().map(|row| row.clock_skewed).collect::<Vec<_>>(), [true, false]);
        assert_eq!(batch.rows[0].event.occurred_at, sent.published_at);
        assert_eq!((batch.fates.rows, batch.fates.clock_skewed), (2, 1));
    }

    #[test]
    fn gaps_beyond_the_limit_are_deferred_not_closed() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default()), Instant::now());
        for i in 0..1_025 {
            buffer.push(message(i + 1, &example::batch("edge_a", 2 * i + 1, 1)), now);
        }
        let (batch, closed) = buffer.drain(now);
        assert_eq!((batch.fates.rows, batch.fates.deferred, batch.last_sequence), (1_024, 1, 1_025));
        assert!(!closed.contains("edge_a", 1, 2_049));
    }

    #[test]
    fn the_first_after_a_pause_is_due_at_once_and_a_full_one_too() {
        let mut buffer = Buffer::new(example::SHARD, Closed::default());
        let start = Instant::now();
        assert_eq!(buffer.due(), None);
        buffer.push(message(1, &example::batch("edge_a", 1, 1)), start);
        assert_eq!(buffer.due(), Some(start));
        let _ = buffer.drain(start);
        let soon = start + PACE / 4;
        buffer.push(message(2, &example::batch("edge_a", 2, 1)), soon);
        assert_eq!(buffer.due(), Some(start + PACE));
        for i in 0..50 {
            buffer.push(message(3 + i, &example::batch("edge_a", 3 + 1_000 * i, 1_000)), soon);
        }
        assert!(buffer.is_full());
        assert_eq!(buffer.due(), Some(soon));
        let _ = buffer.drain(soon);
        buffer.push(message(99, &example::batch("edge_b", 1, 1)), soon + PACE * 2);
        assert_eq!(buffer.due(), Some(soon + PACE * 2));
    }

    proptest! {
        #[test]
        fn every_sequence_becomes_one_row(sent in prop::collection::vec((1u64..60, 1u64..9), 1..60)) {
            let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default()), Instant::now());
            let mut rows = Vec::new();
            for (sequence, (first, count)) in sent.iter().enumerate() {
                buffer.push(message(sequence as u64 + 1, &example::batch("edge_a", *first, *count)), now);
                if sequence % 7 == 0 {
                    rows.extend(sequences(&buffer.drain(now).0));
                }
            }
            rows.extend(sequences(&buffer.drain(now).0));
            rows.sort_unstable();
            let mut expected: Vec<u64> = sent.iter().flat_map(|(first, count)| *first..first + count).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(rows, expected);
        }
    }
}
