//! NATS and ClickHouse as far as ingest depends on them: what they keep, and what they may do wrong.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ingest::{
    archive::{Archived, Pass},
    intervals::Intervals,
    record::Record,
    store::Found,
};
use time::OffsetDateTime;

/// An event: edge, boot, sequence.
pub(crate) type Identity = (u64, u32, u64);

/// What an edge is called.
pub(crate) fn edge_id(number: u64) -> String {
    format!("edge_{number}")
}

/// Which edge is called that.
pub(crate) fn edge_number(id: &str) -> u64 {
    id.strip_prefix("edge_").and_then(|number| number.parse().ok()).expect("edges are numbered")
}

/// A NATS server's disk.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// Changes when the stream is made anew.
    pub(crate) incarnation: u64,
    /// The stream: message `i` has the sequence `first + i`.
    pub(crate) first: u64,
    pub(crate) messages: Vec<(OffsetDateTime, Bytes)>,
    /// The shard's record, with its revision.
    pub(crate) record: Option<(u64, Record)>,
    /// The last one that was given to any value.
    pub(crate) revision: u64,
    /// What edges were told, with its revision.
    pub(crate) commits: BTreeMap<(String, u32), (u64, Intervals)>,
}

impl Disk {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { incarnation, first: 1, ..Self::default() }
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.first + self.messages.len() as u64 - 1
    }

    /// The messages after `sequence`, at most `limit`.
    pub(crate) fn after(&self, sequence: u64, limit: usize) -> Vec<(u64, OffsetDateTime, Bytes)> {
        let from = (sequence + 1).max(self.first);
        let skip = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        let rest = self.messages.iter().skip(skip).take(limit);
        rest.enumerate().map(|(i, (at, payload))| (from + i as u64, *at, payload.clone())).collect()
    }

    pub(crate) fn purge(&mut self, sequence: u64) {
        let count = (sequence + 1).saturating_sub(self.first).min(self.messages.len() as u64);
        self.messages.drain(..usize::try_from(count).unwrap());
        self.first += count;
    }
}

/// ClickHouse: what is answered is on its disk.
#[derive(Default)]
pub(crate) struct ClickHouse {
    /// The rows that an event has.
    pub(crate) rows: BTreeMap<Identity, Vec<Stored>>,
    /// Closed sequences that are noted to have no row.
    pub(crate) gaps: BTreeSet<Identity>,
    /// What each pass has put into the archive, noted or not, by its epoch and number.
    pub(crate) archive: BTreeMap<(u32, u32), Vec<Identity>>,
    /// The passes that count.
    pub(crate) passes: Vec<Pass>,
    pub(crate) fence: u32,
    /// Running inserts by number, with the epoch of each.
    pub(crate) running: BTreeMap<u64, u32>,
    /// Of those, the ones to end.
    pub(crate) killed: BTreeSet<u64>,
    /// How often it crashed.
    pub(crate) crashes: u64,
}

/// A row, as far as it matters when it came.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) occurred_at: OffsetDateTime,
    pub(crate) ingested_at_ms: i64,
}

impl ClickHouse {
    /// The rows that a pass is to put into the archive.
    pub(crate) fn of_pass(&self, pass: Pass) -> Vec<Identity> {
        let is_old = |row: &Stored, archived: Archived| row.occurred_at < archived.end();
        let belongs = |row: &Stored| {
            let known = pass.from.is_some_and(|from| {
                is_old(row, from) && (row.ingested_at_ms <= from.through_ms || !pass.has_late)
            });
            is_old(row, pass.to) && row.ingested_at_ms <= pass.to.through_ms && !known
        };
        let all = self.rows.iter().flat_map(|(identity, rows)| rows.iter().map(move |row| (*identity, row)));
        all.filter(|(_, row)| belongs(row)).map(|(identity, _)| identity).collect()
    }

    /// How far it is archived.
    pub(crate) fn archived(&self) -> Option<Archived> {
        let end = self.passes.iter().map(|pass| pass.to.closed_day).max()?;
        let through_ms = self.passes.iter().map(|pass| pass.to.through_ms).max()?;
        Some(Archived { closed_day: end, through_ms })
    }

    /// What is wrong with the archive: it is to have each row once that is as old as it says.
    pub(crate) fn wrong(&self) -> Option<String> {
        let archived = self.archived()?;
        let noted = self.passes.iter().flat_map(|pass| &self.archive[&(pass.writer_epoch, pass.number)]);
        let mut there: Vec<Identity> = noted.copied().collect();
        there.sort_unstable();
        let is_in =
            |row: &Stored| row.occurred_at < archived.end() && row.ingested_at_ms <= archived.through_ms;
        let all = self.rows.iter().flat_map(|(identity, rows)| rows.iter().map(move |row| (*identity, row)));
        let wanted: Vec<Identity> = all.filter(|(_, row)| is_in(row)).map(|(identity, _)| identity).collect();
        (there != wanted)
            .then(|| format!("the archive has {} calls, there are {} rows", there.len(), wanted.len()))
    }

    /// The runs of sequences in rows after `after_ms`.
    pub(crate) fn found_after(&self, after_ms: i64) -> Vec<Found> {
        let mut found = Vec::<(u64, Found)>::new();
        for (&(edge, boot_epoch, sequence), times) in &self.rows {
            let times = times.iter().map(|row| row.ingested_at_ms);
            let Some(newest_ms) = times.filter(|at| *at > after_ms).max() else { continue };
            match found.last_mut() {
                Some((of, run)) if (*of, run.boot_epoch, run.last + 1) == (edge, boot_epoch, sequence) => {
                    run.last = sequence;
                    run.newest_ms = run.newest_ms.max(newest_ms);
                }
                _ => {
                    let edge_id = edge_id(edge);
                    found.push((
                        edge,
                        Found { edge_id, boot_epoch, first: sequence, last: sequence, newest_ms },
                    ));
                }
            }
        }
        found.into_iter().map(|(_, run)| run).collect()
    }

    pub(crate) fn crash(&mut self) {
        self.crashes += 1;
        self.running.clear();
        self.killed.clear();
    }
}
