//! What was read from a shard's stream and is not written yet: bounded, without what is closed already, ready to
//! be one insert. Pure: time is an argument.

use std::{collections::BTreeSet, time::Instant};

use bytes::Bytes;
use time::OffsetDateTime;
use trace::Traceparent;

use crate::{
    activity::Activity,
    decode,
    erasures::Erased,
    event::{self, Event},
    gaps::{self, Gap},
    letter,
    pace::Pace,
    record::Closed,
    rows::{Caller, Number, Rows},
    spans::Sources,
    time_rule,
};

/// Most rows that the workers of a process hold together; with [`TEXT_BYTES`] for each it bounds their memory.
const ROWS_HELD_MAX: usize = 9 << 16;
/// How many times as many rows as the bulk shard another one may hold.
const BULK_SHARE: usize = 4;
/// Most rows of an insert, but for the last message's. Larger ones cost the server hardly less for each row.
const ROWS_MAX: usize = 200_000;
/// What the texts of a row may take, all rows of a batch together.
const TEXT_BYTES: usize = 64;
/// Most bytes of messages that are kept for the dead letters, but for the last one's.
const LETTER_BYTES_MAX: usize = 4 << 20;

/// A message as it came from the stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its position.
    pub sequence: u64,
    /// When the broker took it.
    pub published_at: OffsetDateTime,
    /// The edge's span of sending it, if it said one.
    pub sent_in: Option<Traceparent>,
    /// Its bytes.
    pub payload: Bytes,
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
    /// Of the rows, those with fields that this version does not know.
    pub with_unknown_fields: u64,
}

/// What one insert and one change of the record are made from.
#[derive(Debug, Default)]
pub struct Batch {
    /// For ClickHouse.
    pub rows: Rows,
    /// For the dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The use of keys, also by calls that were closed before, so that a crash between the insert and the
    /// announcement hides none.
    pub activity: Activity,
    /// Edges and boots with newly closed sequences.
    pub touched: BTreeSet<(String, u32)>,
    /// The last message in it.
    pub last_sequence: u64,
    /// When the broker took that one.
    pub published_at: Option<OffsetDateTime>,
    /// Where its events go.
    pub fates: Fates,
    /// Newly closed sequences that become no rows.
    pub gaps: Vec<Gap>,
    /// Messages in it.
    pub messages: usize,
    /// The spans that it comes from.
    pub sources: Sources,
    letter_bytes: usize,
    first_at: Option<Instant>,
}

/// Fills batches of one shard.
#[derive(Debug)]
pub struct Buffer {
    shard: u16,
    closed: Closed,
    erased: Erased,
    batch: Batch,
    /// Empty, with the memory that an earlier batch took.
    spare: Rows,
    rows_max: usize,
    pace: Pace,
}

/// Most rows of a batch where a process works on so many shards and the bulk shard: each fills one batch while it writes
/// another.
#[must_use]
pub fn rows_max(shards: u16) -> usize {
    let shares = usize::from(shards) * BULK_SHARE + 1;
    (ROWS_HELD_MAX / 2 * BULK_SHARE / shares).min(ROWS_MAX)
}

impl Buffer {
    /// An empty one that drops what `closed` has.
    #[must_use]
    pub fn new(shard: u16, closed: Closed, rows_max: usize) -> Self {
        let (erased, batch, spare) = (Erased::default(), Batch::default(), Rows::default());
        Self { shard, closed, erased, batch, spare, rows_max, pace: Pace::default() }
    }

    /// One of the bulk shard.
    #[must_use]
    pub fn of_bulk(self) -> Self {
        Self { pace: Pace::of_bulk(), rows_max: self.rows_max / BULK_SHARE, ..self }
    }

    /// From now on drops what is erased, also of what it holds already. Dropped sequences are closed like others:
    /// their edges need not keep them.
    pub fn obey(&mut self, erased: Erased) {
        self.erased = erased;
        let Batch { rows, activity, fates, gaps, .. } = &mut self.batch;
        let dropped = rows.forget(&self.erased);
        for row in &dropped {
            let Number { edge_id, boot_epoch, edge_seq } = rows.number(*row);
            gaps.push(Gap::erased(edge_id, boot_epoch, edge_seq));
            fates.clock_skewed -= u64::from(rows.clock_skewed[*row]);
            fates.with_unknown_fields -= u64::from(!rows.unknown_fields.of(*row).is_empty());
        }
        let dropped = dropped.len() as u64;
        fates.rows -= dropped;
        fates.erased += dropped;
        activity.forget(&self.erased);
    }

    /// Takes a message in.
    pub fn push(&mut self, message: Message, now: Instant) {
        self.batch.first_at.get_or_insert(now);
        self.batch.last_sequence = message.sequence;
        self.batch.published_at = Some(message.published_at);
        self.batch.messages += 1;
        self.batch.sources.sent_in(message.sent_in);
        match decode::decode(message.payload.clone(), self.shard) {
            Ok(decoded) => self.take(&message, decoded),
            Err(reason) => {
                self.batch.fates.dead_lettered += 1;
                let Message { sequence, published_at, payload, .. } = message;
                self.batch.letter_bytes += payload.len();
                let letter = DeadLetter { sequence, event: None, reason, published_at, payload };
                self.batch.dead_letters.push(letter);
            }
        }
    }

    /// When the batch is to be written; `None` while it is empty.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let first_at = self.batch.first_at?;
        Some(self.pace.due(first_at, self.is_full()))
    }

    /// Whether nothing more should be pushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Batch { rows, letter_bytes, .. } = &self.batch;
        rows.len() >= self.rows_max
            || rows.is_full(self.rows_max * TEXT_BYTES)
            || *letter_bytes >= LETTER_BYTES_MAX
    }

    /// Where the events of the batch go, as far as it is filled.
    #[must_use]
    pub const fn fates(&self) -> Fates {
        self.batch.fates
    }

    /// The batch, and what is closed once it is written.
    #[must_use]
    pub fn drain(&mut self, now: Instant) -> (Batch, Closed) {
        self.pace.starts(now);
        self.drop_erased_letters();
        self.batch.gaps = gaps::settled(std::mem::take(&mut self.batch.gaps), &self.erased);
        let next = Batch { rows: std::mem::take(&mut self.spare), ..Batch::default() };
        (std::mem::replace(&mut self.batch, next), self.closed.clone())
    }

    /// Takes back the rows of a batch that was written, for their memory: to get it anew costs more than to fill it.
    fn reuse(&mut self, mut rows: Rows) {
        rows.clear();
        self.spare = rows;
    }

    /// The batch that was drained at `started` is written; the broker took its last message so long ago as `late` says.
    pub fn written(&mut self, rows: Rows, started: Instant, now: Instant, late: time::Duration) {
        self.reuse(rows);
        self.pace.ended(started, now, late);
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
        let decode::Decoded { edge_id, boot_epoch, first_seq, events, lost } = decoded;
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
        let broker_ns = event::nanos(message.published_at);
        for (bytes, (index, edge_seq)) in events.into_iter().zip((0..).zip(first_seq..)) {
            let number = Number { edge_id: &edge_id, boot_epoch, edge_seq };
            let is_closed = before.contains(edge_seq);
            self.batch.fates.duplicate += u64::from(is_closed);
            match event::read(&bytes, |event| self.take_event(event, broker_ns, number, is_closed)) {
                Err(reason) if !is_closed => {
                    let Batch { fates, gaps, letter_bytes, .. } = &mut self.batch;
                    fates.dead_lettered += 1;
                    let payload = letter::alone(&message.payload, index, edge_seq);
                    *letter_bytes += payload.len();
                    let (subject, at) = (letter::subject_of(&payload), message.published_at);
                    gaps.push(Gap::dead_letter(&edge_id, boot_epoch, edge_seq, subject, at));
                    self.batch.dead_letters.push(DeadLetter {
                        sequence: message.sequence,
                        event: Some(index),
                        reason: format!("event {index} with sequence {edge_seq}: {reason}"),
                        published_at: message.published_at,
                        payload,
                    });
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn take_event(&mut self, event: &Event<'_>, broker_ns: i64, number: Number<'_>, is_closed: bool) {
        let Batch { rows, activity, fates, gaps, sources, .. } = &mut self.batch;
        let (occurred_at_ns, clock_skewed) = time_rule::bucketed(event.occurred_at_ns, broker_ns);
        let event = Event { occurred_at_ns, ..*event };
        if self.erased.covers(event.workspace_id, occurred_at_ns) {
            if !is_closed {
                let Number { edge_id, boot_epoch, edge_seq } = number;
                fates.erased += 1;
                gaps.push(Gap::erased(edge_id, boot_epoch, edge_seq));
            }
            return;
        }
        let Event { workspace_id, key_id, secret_id, .. } = event;
        let caller = Caller { workspace_id, key_id, secret_id };
        let caller_number = rows.caller(caller);
        activity.note(caller_number, caller, &event);
        if !is_closed {
            fates.rows += 1;
            sources.call(&event);
            fates.clock_skewed += u64::from(clock_skewed);
            fates.with_unknown_fields += u64::from(!event.unknown_fields.is_empty());
            rows.push(caller_number, &event, clock_skewed, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::events as pb;

    use super::*;
    use crate::{
        example,
        gaps::Reason,
        native::{Block, Common},
    };

    fn message(sequence: u64, batch: &pb::RequestEventBatch) -> Message {
        let payload = batch.encode_to_vec().into();
        Message { sequence, published_at: OffsetDateTime::now_utc(), sent_in: None, payload }
    }

    fn sequences(batch: &Batch) -> Vec<u64> {
        batch.rows.numbers().map(|number| number.edge_seq).collect()
    }

    #[test]
    fn duplicates_are_dropped_within_and_across_batches() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
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
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
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
        let gaps: Vec<_> = batch.gaps.iter().map(|gap| (gap.interval, gap.reason)).collect();
        assert_eq!(gaps, [((3, 12), Reason::Lost), ((2, 2), Reason::DeadLetter)]);
        bad.events.remove(0);
        let alone = pb::RequestEventBatch { first_seq: 2, lost: Vec::new(), ..bad };
        assert_eq!(pb::RequestEventBatch::decode(batch.dead_letters[0].payload.clone()), Ok(alone));
    }

    #[test]
    fn what_is_erased_becomes_no_row_and_is_closed() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
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
        let gaps: Vec<_> = batch.gaps.iter().map(|gap| (gap.interval, gap.reason)).collect();
        assert_eq!(gaps, [1, 3, 5].map(|seq| ((seq, seq), Reason::Erased)));
        let kept = example::event("edge_a", 2).workspace_id;
        assert!(batch.activity.messages().all(|used| used.workspace_id == kept.as_bytes()));
        assert!(closed.of("edge_a", 1).unwrap().holds((1, 6)));
    }

    #[test]
    fn rows_that_are_used_again_leave_no_trace() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
        let mut erased = Erased::default();
        erased.insert(example::event("edge_a", 1).workspace_id, OffsetDateTime::now_utc());
        buffer.push(message(1, &example::batch("edge_a", 1, 40)), now);
        buffer.obey(erased);
        let (used, _) = buffer.drain(now);
        buffer.obey(Erased::default());
        buffer.reuse(used.rows);
        let _ = buffer.drain(now);
        let mut fresh = Buffer::new(example::SHARD, Closed::default(), 50_000);
        let next = message(2, &example::batch("edge_b", 7, 9));
        let common = Common { shard: example::SHARD, writer_epoch: 1, ingested_at_ms: 7 };
        let blocks = [&mut buffer, &mut fresh].map(|buffer| {
            buffer.push(next.clone(), now);
            Block::new(buffer.drain(now).0.rows.into(), common).collect::<Vec<_>>()
        });
        assert!(blocks[0] == blocks[1]);
    }

    #[test]
    fn a_wrong_clock_is_flagged_and_nothing_else() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
        let mut batch = example::batch("edge_a", 1, 2);
        batch.events[0].occurred_at.as_mut().unwrap().seconds -= 36 * 86_400;
        let sent = message(1, &batch);
        buffer.push(sent.clone(), now);
        let (batch, _) = buffer.drain(now);
        assert_eq!(batch.rows.clock_skewed, [true, false]);
        assert_eq!(
            i128::from(batch.rows.occurred_at_ms[0]),
            sent.published_at.unix_timestamp_nanos() / 1_000_000
        );
        assert_eq!((batch.fates.rows, batch.fates.clock_skewed), (2, 1));
    }

    #[test]
    fn gaps_beyond_the_limit_are_deferred_not_closed() {
        let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
        for i in 0..1_025 {
            buffer.push(message(i + 1, &example::batch("edge_a", 2 * i + 1, 1)), now);
        }
        let (batch, closed) = buffer.drain(now);
        assert_eq!((batch.fates.rows, batch.fates.deferred, batch.last_sequence), (1_024, 1, 1_025));
        assert!(!closed.contains("edge_a", 1, 2_049));
    }

    #[test]
    fn a_full_batch_is_due_at_once() {
        let mut buffer = Buffer::new(example::SHARD, Closed::default(), 50_000);
        let start = Instant::now();
        assert_eq!(buffer.due(), None);
        buffer.push(message(1, &example::batch("edge_a", 1, 1)), start);
        assert_eq!(buffer.due(), Some(start));
        let _ = buffer.drain(start);
        for i in 0..50 {
            assert!(!buffer.is_full() && buffer.due().is_none_or(|due| due > start));
            buffer.push(message(2 + i, &example::batch("edge_a", 3 + 1_000 * i, 1_000)), start);
        }
        assert!(buffer.is_full());
        assert_eq!(buffer.due(), Some(start));
    }

    proptest! {
        #[test]
        fn every_sequence_becomes_one_row(sent in prop::collection::vec((1u64..60, 1u64..9), 1..60)) {
            let (mut buffer, now) = (Buffer::new(example::SHARD, Closed::default(), 50_000), Instant::now());
            let mut rows: Vec<u64> = Vec::new();
            for (sequence, (first, count)) in sent.iter().enumerate() {
                buffer.push(message(sequence as u64 + 1, &example::batch("edge_a", *first, *count)), now);
                if sequence % 7 == 0 {
                    let (batch, _) = buffer.drain(now);
                    rows.extend(sequences(&batch));
                    buffer.reuse(batch.rows);
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
