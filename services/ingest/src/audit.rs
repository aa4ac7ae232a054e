//! Holds what is closed against what ClickHouse has, and repairs what differs: a row that is missing is made anew
//! from the stream, or noted as a gap if nothing is left of it; a row that is there twice is made one. Finding only
//! looks, beside the work; repairing needs the shard and looks again, so that it can be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use time::OffsetDateTime;

use crate::{
    bus::Bus,
    decode,
    erasures::Erased,
    event,
    gaps::Gap,
    intervals::{Interval, Intervals},
    lease::Lease,
    letter,
    native::Common,
    record::{Closed, Record},
    restore::{self, Identity, Published},
    store::Store,
    time_rule,
    trouble::Trouble,
    world::World,
};

pub mod report;

/// How far an audit looks back. Nothing that was ingested since can have expired: rows live for 37 days at least, and
/// count under a time of at most 35 days before.
pub const LOOKS_BACK: time::Duration = time::Duration::hours(30);
/// How often a point to look back to is kept.
pub const BASELINE_EVERY: time::Duration = time::Duration::hours(6);
/// Most rows that one audit repairs; the next one does the rest.
const REPAIRS_MAX: usize = 10_000;
/// Longest wait for a message that the stream says it has.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What was closed at some moment.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// When.
    pub taken_at: OffsetDateTime,
    /// Every row of the shard that is later was closed later.
    pub closed_through_ms: i64,
    /// The closed sequences.
    pub closed: Closed,
}

/// How many rows of one boot of an edge there are, and the sum of their sequences modulo 2^64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Sum.
    pub sum: u64,
}

impl Tally {
    /// What it is if each sequence is one row.
    #[must_use]
    pub fn expected(sequences: &Intervals) -> Self {
        sequences.iter().fold(Self::default(), |tally, (first, last)| {
            let (first, last) = (u128::from(first), u128::from(last));
            let rows = last - first + 1;
            // One of the two factors is even.
            let (a, b) = (first + last, rows);
            let sum = if a % 2 == 0 { (a / 2).wrapping_mul(b) } else { a.wrapping_mul(b / 2) };
            Self { rows: tally.rows + rows as u64, sum: tally.sum.wrapping_add(sum as u64) }
        })
    }
}

/// What differs.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Closed sequences that have neither a row nor a gap.
    pub missing: BTreeSet<Identity>,
    /// Sequences with more rows than one.
    pub doubled: BTreeSet<Identity>,
    /// The missing ones that the stream still holds, each alone.
    pub published: Vec<Published>,
}

impl Findings {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.doubled.is_empty()
    }

    /// So much of them as is repaired at once.
    fn is_full(&self) -> bool {
        self.missing.len() + self.doubled.len() >= REPAIRS_MAX
    }

    fn add_missing(&mut self, edge_id: &str, boot_epoch: u32, sequences: &Intervals) {
        for seq in sequences.iter().flat_map(|(first, last)| first..=last) {
            if self.is_full() {
                return;
            }
            self.missing.insert((edge_id.to_owned(), boot_epoch, seq));
        }
    }
}

/// What became of findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Missing rows that are there again.
    pub restored: u64,
    /// Missing rows of which nothing is left, noted as gaps.
    pub gone: u64,
    /// Doubled rows that are one now.
    pub single: u64,
    /// Doubled rows that stay, since they are of days that are in the archive.
    pub archived: u64,
}

/// What became of sequences with more rows than one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Singled {
    /// They are one now.
    pub single: u64,
    /// They were left alone, since they are of days that are in the archive: it has counted each of them.
    pub archived: u64,
}

/// Sequences as a person reads them.
pub struct Said<'a>(pub &'a BTreeSet<Identity>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (edge_id, boot_epoch, (first, last))) in runs(self.0).into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{edge_id} boot {boot_epoch} sequence {first}")?;
            if last > first {
                write!(f, " to {last}")?;
            }
        }
        Ok(())
    }
}

/// The identities as intervals of neighbours.
#[must_use]
pub fn runs(identities: &BTreeSet<Identity>) -> Vec<(&str, u32, Interval)> {
    let mut runs: Vec<(&str, u32, Interval)> = Vec::new();
    for (edge_id, boot_epoch, seq) in identities {
        match runs.last_mut() {
            Some((edge, boot, (_, last))) if edge == edge_id && boot == boot_epoch && *last + 1 == *seq => {
                *last = *seq;
            }
            _ => runs.push((edge_id, *boot_epoch, (*seq, *seq))),
        }
    }
    runs
}

/// Looks for what was closed since a day ago, as `record` says, and has no row or two. The record must be older than
/// the question.
///
/// # Errors
/// If a server cannot say.
pub async fn find(
    store: &Store,
    bus: &Bus,
    shard: u16,
    record: &Record,
    now: OffsetDateTime,
) -> Result<Findings, Trouble> {
    let baseline = store.baseline(shard, now - LOOKS_BACK).await?;
    store.keep_baseline(shard, record, now).await?;
    let mut findings = Findings::default();
    let Some(baseline) = baseline else { return Ok(findings) };
    let tallies: BTreeMap<(String, u32), Tally> =
        store.tallies(shard, baseline.closed_through_ms, record.closed_through_ms).await?;
    for (edge_id, boot_epoch, closed) in record.closed.iter() {
        let before = baseline.closed.of(edge_id, boot_epoch).cloned().unwrap_or_default();
        let expected = closed.without(&before);
        let tally = tallies.get(&(edge_id.to_owned(), boot_epoch)).copied().unwrap_or_default();
        if tally == Tally::expected(&expected) || findings.is_full() {
            continue;
        }
        let doubled = store.doubled(shard, edge_id, boot_epoch).await?;
        findings.doubled.extend(doubled.into_iter().map(|seq| (edge_id.to_owned(), boot_epoch, seq)));
        // Rows before gaps: what is erased is noted before it is deleted.
        let rows = store.sequences(shard, edge_id, boot_epoch, baseline.closed_through_ms).await?;
        let gaps = store.gaps(shard, edge_id, boot_epoch).await?;
        findings.add_missing(edge_id, boot_epoch, &expected.without(&rows).without(&gaps));
    }
    // A row that was restored may be older than the baseline.
    let there = store.present(shard, &findings.missing).await?;
    there.iter().for_each(|identity| {
        findings.missing.remove(identity);
    });
    if !findings.missing.is_empty() {
        findings.published = published(bus, shard, record.cursor.sequence, &findings.missing).await?;
    }
    Ok(findings)
}

/// What the stream holds of `wanted` at or below `cursor`, each event alone.
async fn published(
    bus: &Bus,
    shard: u16,
    cursor: u64,
    wanted: &BTreeSet<Identity>,
) -> Result<Vec<Published>, Trouble> {
    let mut found = Vec::new();
    read(bus, shard, cursor, |message| {
        let Ok(decoded) = decode::decode(message.payload.clone(), shard) else { return };
        for (index, seq) in (decoded.first_seq..).take(decoded.events.len()).enumerate() {
            if wanted.contains(&(decoded.edge_id.clone(), decoded.boot_epoch, seq)) {
                let payload = letter::alone(&message.payload, index, seq);
                found.push(Published { at: message.published_at, payload });
            }
        }
    })
    .await?;
    Ok(found)
}

/// Reads the stream of `shard` from its first message up to `cursor`.
///
/// # Errors
/// If NATS is away.
pub async fn read(
    bus: &Bus,
    shard: u16,
    cursor: u64,
    mut each: impl FnMut(crate::batch::Message),
) -> Result<(), Trouble> {
    let (first, last) = bus.held(shard).await.map_err(Trouble::nats)?;
    let last = last.min(cursor);
    if first == 0 || first > last {
        return Ok(());
    }
    let mut reader = bus.read(shard, 0).await.map_err(Trouble::nats)?;
    loop {
        let message = tokio::time::timeout(MESSAGE_TIMEOUT, reader.next()).await;
        let message = message.map_err(|_| Trouble::Nats("the stream does not go on".into()))?;
        let message = message.map_err(Trouble::nats)?;
        if message.sequence > last {
            return Ok(());
        }
        let is_last = message.sequence == last;
        each(message);
        if is_last {
            return Ok(());
        }
    }
}

/// Repairs what was found, if it still is so. Repeating it changes nothing.
///
/// # Errors
/// Some may be repaired then; the next audit finds the rest.
pub async fn repair<W: World>(
    world: &W,
    lease: &mut Lease<W>,
    shard: u16,
    erased: &Erased,
    findings: &Findings,
    mut next_insert: impl FnMut() -> u64,
) -> Result<Repaired, Trouble> {
    let mut repaired = Repaired::default();
    if !findings.doubled.is_empty() {
        let doubled = make_single(world, lease, shard, &findings.doubled, next_insert()).await?;
        (repaired.single, repaired.archived) = (doubled.single, doubled.archived);
    }
    if findings.missing.is_empty() {
        return Ok(repaired);
    }
    // What the archive may have counted would come into it a second time, as a late row.
    let archived = lease.hold(world.archived(shard)).await??;
    let is_open = |message: &&Published| archived.is_none_or(|archived| began(message) >= archived.end());
    let open: Vec<Published> = findings.published.iter().filter(is_open).cloned().collect();
    let outcomes = restore::restore(world, lease, shard, erased, &open, next_insert).await?;
    repaired.restored = outcomes.iter().map(|outcome| outcome.counted).sum();
    let there = lease.hold(world.present(shard, &findings.missing)).await??;
    let mut left = findings.missing.clone();
    there.iter().for_each(|identity| {
        left.remove(identity);
    });
    let gaps = gaps_of(&left, shard, erased, &open, world.now());
    if !gaps.is_empty() {
        repaired.gone = left.len() as u64;
        lease.hold(world.note_gaps(shard, &gaps)).await??;
    }
    Ok(repaired)
}

/// The time that its only event is counted under, as far as it can be read.
fn began(message: &Published) -> OffsetDateTime {
    let (at, broker) = (letter::subject_of(&message.payload).1.unwrap_or(message.at), message.at);
    let (at_ns, _) = time_rule::bucketed(event::nanos(at), event::nanos(broker));
    OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds(at_ns)
}

/// Why what is left has no row, as far as the stream tells.
fn gaps_of(
    left: &BTreeSet<Identity>,
    shard: u16,
    erased: &Erased,
    published: &[Published],
    now: OffsetDateTime,
) -> Vec<Gap> {
    let mut left = left.clone();
    let mut gaps = Vec::new();
    for message in published {
        let Ok(decoded) = decode::decode(message.payload.clone(), shard) else { continue };
        let (edge_id, boot_epoch, seq) = (decoded.edge_id, decoded.boot_epoch, decoded.first_seq);
        if !left.remove(&(edge_id.clone(), boot_epoch, seq)) {
            continue;
        }
        let subject = letter::subject_of(&message.payload);
        let began_ns = event::nanos(began(message));
        let is_erased = subject.0.is_some_and(|workspace_id| erased.covers(workspace_id, began_ns));
        gaps.push(if is_erased {
            Gap::erased(&edge_id, boot_epoch, seq)
        } else {
            Gap::dead_letter(&edge_id, boot_epoch, seq, subject, message.at)
        });
    }
    gaps.extend(
        runs(&left).into_iter().map(|(edge_id, boot, interval)| Gap::missing(edge_id, boot, interval, now)),
    );
    gaps
}

/// Writes each doubled row once more, then deletes the others: a crash in between leaves more copies, never none.
async fn make_single<W: World>(
    world: &W,
    lease: &mut Lease<W>,
    shard: u16,
    doubled: &BTreeSet<Identity>,
    insert: u64,
) -> Result<Singled, Trouble> {
    let record = lease.record().clone();
    let common = Common::next(shard, &record, world.now());
    let singled = lease.hold(world.make_single(doubled, common, insert)).await??;
    lease.write(Record { closed_through_ms: common.ingested_at_ms, ..record }).await?;
    Ok(singled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_are_said_as_runs() {
        let of = |seq| ("edge_a".to_owned(), 1, seq);
        let said = Said(&[of(3), of(4), of(9)].into()).to_string();
        assert_eq!(said, "edge_a boot 1 sequence 3 to 4; edge_a boot 1 sequence 9");
    }

    proptest! {
        #[test]
        fn a_tally_is_the_sum(runs in prop::collection::vec((0u64..500, 0u64..9), 0..9), offset: u32) {
            let base = u64::MAX - u64::from(offset) - 1_000;
            let set: Intervals = runs.iter().map(|(first, more)| (base + first, base + first + more)).collect();
            let all = || set.iter().flat_map(|(first, last)| first..=last);
            let sum = all().fold(0u64, u64::wrapping_add);
            prop_assert_eq!(Tally::expected(&set), Tally { rows: all().count() as u64, sum });
        }
    }
}
