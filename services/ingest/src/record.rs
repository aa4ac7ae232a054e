//! The record of one shard: who owns it, how far its stream was read, which sequences are closed. One value in
//! the bucket `ingest_shards`, changed by compare-and-set only. Pure; see PROTOCOL.md for the invariants.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::intervals::{Interval, Intervals};

/// Most intervals of one boot of an edge; a message that would make more is not taken.
pub const INTERVALS_MAX: usize = 1_024;
/// Most intervals of a shard, so that its record stays below NATS' 1 MiB for a message.
pub const SHARD_INTERVALS_MAX: usize = 16_384;

/// What is known of a shard for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Grows with each takeover; writers of lower epochs are refused by ClickHouse.
    pub epoch: u32,
    /// The process that took the epoch; empty after it let go in good order.
    pub owner: String,
    /// Every message of the stream at or below it is closed.
    pub cursor: Cursor,
    /// Every row of the shard whose `ingested_at` is at or below it is closed. Milliseconds since 1970.
    pub closed_through_ms: i64,
    /// The sequences that are in ClickHouse, in the dead letters or lost by their edge.
    pub closed: Closed,
}

/// A position in a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// When the stream was created: a stream that was made anew counts from 1 again.
    pub incarnation: String,
    /// The sequence of the last message that was read; 0 before the first.
    pub sequence: u64,
}

impl Cursor {
    /// Where to go on reading, given the stream as it is: behind this position, or from the start if it is
    /// another stream or one that has forgotten its end.
    #[must_use]
    pub fn resume(&self, incarnation: &str, last_sequence: u64) -> Self {
        let same = self.incarnation == incarnation && self.sequence <= last_sequence;
        Self { incarnation: incarnation.to_owned(), sequence: if same { self.sequence } else { 0 } }
    }
}

/// Closed sequences by edge and boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Closed(BTreeMap<String, BTreeMap<u32, Intervals>>);

/// Why sequences were not closed: too many gaps. They stay in the edge's spool and come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyIntervals;

impl Closed {
    /// What is closed of one boot of an edge.
    #[must_use]
    pub fn of(&self, edge_id: &str, boot_epoch: u32) -> Option<&Intervals> {
        self.0.get(edge_id)?.get(&boot_epoch)
    }

    /// Whether one sequence is closed.
    #[must_use]
    pub fn contains(&self, edge_id: &str, boot_epoch: u32, sequence: u64) -> bool {
        self.of(edge_id, boot_epoch).is_some_and(|intervals| intervals.contains(sequence))
    }

    /// Closes all of `intervals`, or none.
    ///
    /// # Errors
    /// If the set would take more intervals than [`INTERVALS_MAX`] or [`SHARD_INTERVALS_MAX`].
    pub fn insert(
        &mut self,
        edge_id: &str,
        boot_epoch: u32,
        intervals: impl IntoIterator<Item = Interval>,
    ) -> Result<(), TooManyIntervals> {
        let before = self.of(edge_id, boot_epoch);
        let mut after = before.cloned().unwrap_or_default();
        let count_before = after.len();
        intervals.into_iter().for_each(|interval| after.insert(interval));
        if after.len() > count_before
            && (after.len() > INTERVALS_MAX || self.len() - count_before + after.len() > SHARD_INTERVALS_MAX)
        {
            return Err(TooManyIntervals);
        }
        self.replace(edge_id, boot_epoch, after);
        Ok(())
    }

    /// Closes what ClickHouse was found to hold, whatever number of intervals that takes: a row that is there
    /// must never come again.
    pub fn insert_found(&mut self, edge_id: &str, boot_epoch: u32, interval: Interval) {
        let mut after = self.of(edge_id, boot_epoch).cloned().unwrap_or_default();
        after.insert(interval);
        self.replace(edge_id, boot_epoch, after);
    }

    /// Every edge and boot with its closed sequences.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, &Intervals)> {
        self.0.iter().flat_map(|(edge_id, boots)| {
            boots.iter().map(|(boot_epoch, intervals)| (edge_id.as_str(), *boot_epoch, intervals))
        })
    }

    fn len(&self) -> usize {
        self.iter().map(|(_, _, intervals)| intervals.len()).sum()
    }

    fn replace(&mut self, edge_id: &str, boot_epoch: u32, intervals: Intervals) {
        if !intervals.is_empty() {
            self.0.entry(edge_id.to_owned()).or_default().insert(boot_epoch, intervals);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::on("a", 7, 9, 7)]
    #[case::at_the_end("a", 9, 9, 9)]
    #[case::made_anew("b", 7, 9, 0)]
    #[case::forgot_its_end("a", 7, 6, 0)]
    #[case::never_read("", 0, 9, 0)]
    fn resumes(#[case] incarnation: &str, #[case] sequence: u64, #[case] last: u64, #[case] expected: u64) {
        let cursor = Cursor { incarnation: incarnation.to_owned(), sequence };
        assert_eq!(cursor.resume("a", last), Cursor { incarnation: "a".to_owned(), sequence: expected });
    }

    #[test]
    fn too_many_gaps_change_nothing_and_filling_one_is_always_allowed() {
        let mut closed = Closed::default();
        let odd = |count: u64| (0..count).map(|i| (2 * i + 1, 2 * i + 1));
        assert_eq!(closed.insert("edge_a", 1, odd(INTERVALS_MAX as u64 + 1)), Err(TooManyIntervals));
        assert_eq!(closed, Closed::default());
        closed.insert("edge_a", 1, odd(INTERVALS_MAX as u64)).unwrap();
        assert_eq!(closed.insert("edge_a", 1, [(5_000, 5_000)]), Err(TooManyIntervals));
        closed.insert("edge_a", 1, [(2, 2)]).unwrap();
        closed.insert("edge_a", 1, [(5_000, 5_000)]).unwrap();
        assert!(closed.contains("edge_a", 1, 5_000) && !closed.contains("edge_a", 2, 5_000));
    }

    #[test]
    fn a_full_shard_still_takes_what_makes_no_new_interval() {
        let mut closed = Closed::default();
        for boot_epoch in 0..u32::try_from(SHARD_INTERVALS_MAX).unwrap() {
            closed.insert("edge_a", boot_epoch, [(1, 9)]).unwrap();
        }
        assert_eq!(closed.insert("edge_b", 1, [(1, 1)]), Err(TooManyIntervals));
        closed.insert("edge_a", 7, [(10, 20)]).unwrap();
        closed.insert_found("edge_b", 1, (1, 1));
        assert!(closed.contains("edge_b", 1, 1) && closed.contains("edge_a", 7, 20));
    }

    #[test]
    fn a_full_record_fits_into_a_message() {
        let mut record = Record::default();
        let edge_id = format!("edge_{}", "v".repeat(26));
        for boot_epoch in 0..u32::try_from(SHARD_INTERVALS_MAX / INTERVALS_MAX).unwrap() {
            let far = |i: u64| (1_000_000_000_000 + 2 * i, 1_000_000_000_000 + 2 * i);
            record.closed.insert(&edge_id, boot_epoch, (0..INTERVALS_MAX as u64).map(far)).unwrap();
        }
        let json = serde_json::to_vec(&record).unwrap();
        assert!(json.len() < 1_000_000, "{}", json.len());
        assert_eq!(serde_json::from_slice::<Record>(&json).unwrap(), record);
    }
}
