//! A plan played in time of its own, a millisecond a step: events come, wait for an insert of their ingest process, and
//! are rows once every server of ClickHouse has its piece. Inserts and merges share the servers' cores evenly. The rules
//! of batches are ingest's own (PROTOCOL.md); what an insert costs was measured; the rest is a model.

use std::collections::VecDeque;

use crate::{
    costs::{INSERT_US, MERGE_US, ROW_US},
    sizes::{CLICKHOUSE_CORES, Plan},
};

/// Until merges of the first inserts are under way, nothing is noted.
const WARM_UP_MS: usize = 10_000;
const END_MS: usize = 70_000;
/// When an ingest dies, and how long its shards then wait for another.
pub(crate) const KILLED_AT_MS: usize = 20_000;
const LEASE_MS: usize = 8_000;
/// What edges gather, and the way through NATS with its copies.
const GATHER_MS: usize = 50;
const WAY_MS: usize = 5;
/// Between two inserts that a process begins, and how many it has under way.
const BATCH_MS: usize = 300;
const INSERTS_MAX: usize = 2;
/// Rows of all batches of a process: half of them may be on their way.
const ROWS_MAX: f64 = 589_824.0 / 2.0 / 2.0;
/// Threads of a server that merge.
const MERGES_MAX: f64 = CLICKHOUSE_CORES;

/// Events that came within a millisecond.
#[derive(Clone, Copy)]
struct Come {
    at_ms: usize,
    events: f64,
}

/// An insert, and the core time that is left of its piece on each server.
struct Insert {
    events: Vec<Come>,
    left_ms: Vec<f64>,
    rows: f64,
}

#[derive(Default)]
struct Ingest {
    waiting: VecDeque<Come>,
    inserts: Vec<Insert>,
    began_ms: Option<usize>,
    /// Until when its shards are nobody's.
    nobodys_until_ms: usize,
    is_dead: bool,
}

/// What is played.
pub(crate) struct Queue {
    plan: Plan,
    ingests: Vec<Ingest>,
    /// Core time of merges that wait, by server.
    merges_ms: Vec<f64>,
    played: Played,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Played {
    /// How late events were, and how many.
    late: Vec<(usize, f64)>,
    /// The mean, on all servers together.
    pub(crate) rows_an_insert: f64,
    inserts: f64,
    /// Part of ClickHouse's cores that was used.
    pub(crate) busy: f64,
    /// How long the servers would merge on what is left in the end. Growing parts make real ones slow inserts down.
    pub(crate) merges_behind_s: f64,
    came: f64,
    waiting: f64,
    /// The last moment at which events became rows that were later than [`Played::USUAL_MS`].
    last_late_ms: Option<usize>,
}

impl Queue {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a plan has a few of each")]
    pub(crate) fn of(plan: &Plan) -> Self {
        let ingests = (0..plan.ingests as usize).map(|_| Ingest::default()).collect();
        let merges_ms = vec![0.0; plan.clickhouses as usize];
        Self { plan: *plan, ingests, merges_ms, played: Played::default() }
    }

    /// Plays it; one ingest dies at a time if that is given.
    pub(crate) fn play(mut self, killed_at_ms: Option<usize>) -> Played {
        for now in 0..END_MS {
            if killed_at_ms == Some(now) {
                self.kill(now);
            }
            self.come(now);
            self.begin(now);
            self.work(now);
        }
        let waiting = |ingest: &Ingest| {
            let on_their_way = ingest.inserts.iter().flat_map(|insert| &insert.events);
            ingest.waiting.iter().chain(on_their_way).map(|come| come.events).sum::<f64>()
        };
        self.played.waiting = self.ingests.iter().map(waiting).sum();
        let merges_ms = self.merges_ms.iter().copied().fold(0.0, f64::max);
        self.played.merges_behind_s = merges_ms / 1e3 / CLICKHOUSE_CORES;
        self.played.rows_an_insert /= self.played.inserts.max(1.0);
        let time = END_MS as f64 * CLICKHOUSE_CORES * self.plan.clickhouses;
        self.played.busy /= time;
        self.played.late.sort_unstable_by_key(|(late, _)| *late);
        self.played
    }

    /// What it had read or not written is read again by whoever takes its shards: here by one process, all of it.
    fn kill(&mut self, now: usize) {
        let Some((dead, others)) = self.ingests.split_first_mut() else { return };
        dead.is_dead = true;
        dead.nobodys_until_ms = now + LEASE_MS;
        let lost = dead.inserts.drain(..).flat_map(|insert| insert.events);
        let mut again: Vec<_> = lost.chain(dead.waiting.drain(..)).collect();
        again.sort_unstable_by_key(|come| come.at_ms);
        dead.waiting = again.into();
        assert!(!others.is_empty(), "a plan has two at least");
    }

    fn come(&mut self, now: usize) {
        let each = self.plan.rate / 1e3 / self.plan.ingests;
        for ingest in &mut self.ingests {
            // Before it was published it was in no stream.
            if now >= GATHER_MS + WAY_MS {
                ingest.waiting.push_back(Come { at_ms: now - GATHER_MS - WAY_MS, events: each });
                self.played.came += each;
            }
        }
        // After the lease, the others share what was the dead one's.
        let Some((dead, others)) = self.ingests.split_first_mut() else { return };
        if dead.is_dead && now >= dead.nobodys_until_ms {
            let share = others.len() as f64;
            for come in dead.waiting.drain(..) {
                for other in &mut *others {
                    other.waiting.push_back(Come { events: come.events / share, ..come });
                }
            }
        }
    }

    fn begin(&mut self, now: usize) {
        let servers = self.merges_ms.len();
        for ingest in self.ingests.iter_mut().filter(|ingest| !ingest.is_dead) {
            let is_due = ingest.began_ms.is_none_or(|began| now >= began + BATCH_MS)
                || ingest.waiting.iter().map(|come| come.events).sum::<f64>() >= ROWS_MAX;
            if !is_due || ingest.inserts.len() >= INSERTS_MAX || ingest.waiting.is_empty() {
                continue;
            }
            let (mut rows, mut events) = (0.0, Vec::new());
            while let Some(come) = ingest.waiting.pop_front_if(|come| rows + come.events <= ROWS_MAX) {
                rows += come.events;
                events.push(come);
            }
            let piece_ms = (INSERT_US + ROW_US * rows / servers as f64) / 1e3;
            ingest.inserts.push(Insert { events, left_ms: vec![piece_ms; servers], rows });
            ingest.began_ms = Some(now);
        }
    }

    /// One millisecond of every server.
    fn work(&mut self, now: usize) {
        for server in 0..self.merges_ms.len() {
            let pieces = || self.ingests.iter().flat_map(|ingest| &ingest.inserts);
            let inserting = pieces().filter(|insert| insert.left_ms[server] > 0.0).count() as f64;
            let merging = self.merges_ms[server].min(MERGES_MAX);
            let share = (CLICKHOUSE_CORES / (inserting + merging).max(1e-9)).min(1.0);
            for insert in self.ingests.iter_mut().flat_map(|ingest| &mut ingest.inserts) {
                insert.left_ms[server] -= share;
            }
            self.merges_ms[server] -= merging * share;
            self.played.busy += (inserting + merging) * share;
        }
        let servers = self.merges_ms.len() as f64;
        for ingest in &mut self.ingests {
            let done = ingest.inserts.extract_if(.., |insert| insert.left_ms.iter().all(|left| *left <= 0.0));
            for insert in done {
                let rows = insert.rows / servers;
                let merges = MERGE_US * self.plan.merges_a_row(rows) * rows / 1e3;
                self.merges_ms.iter_mut().for_each(|left| *left += merges);
                self.played.done(&insert, now);
            }
        }
    }
}

impl Played {
    /// Later than that is unusual.
    const USUAL_MS: usize = 2_000;

    fn done(&mut self, insert: &Insert, now: usize) {
        if now < WARM_UP_MS {
            return;
        }
        self.inserts += 1.0;
        self.rows_an_insert += insert.rows;
        for come in &insert.events {
            let late = now - come.at_ms;
            self.late.push((late, come.events));
            if late > Self::USUAL_MS {
                self.last_late_ms = Some(now);
            }
        }
    }

    /// How late so many percent of events were at most.
    pub(crate) fn late_ms(&self, percent: u32) -> f64 {
        let all: f64 = self.late.iter().map(|(_, events)| events).sum();
        let mut left = all * f64::from(percent) / 100.0;
        let reached = self.late.iter().find(|(_, events)| {
            left -= events;
            left <= all * 1e-9
        });
        reached.map_or(f64::INFINITY, |(late, _)| *late as f64)
    }

    /// How long after the death of an ingest rows were late; 0 if none were, the rest of the time if they still are.
    pub(crate) fn caught_up_after_ms(&self) -> f64 {
        self.last_late_ms.map_or(0.0, |last| last.saturating_sub(KILLED_AT_MS) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_row_or_waits() {
        for killed in [None, Some(KILLED_AT_MS)] {
            let plan = Plan::of(100_000.0);
            let played = Queue::of(&plan).play(killed);
            // Those of before are rows too, and not noted; they are what is left.
            let noted: f64 = played.late.iter().map(|(_, events)| events).sum();
            let before = played.came - noted - played.waiting;
            let warm_up = plan.rate * WARM_UP_MS as f64 / 1e3;
            assert!(before > 0.9 * warm_up && before < 1.01 * warm_up, "{before} of {warm_up}");
        }
    }

    #[test]
    fn a_plan_keeps_up_and_one_for_a_quarter_does_not() {
        let plan = Plan::of(1_000_000.0);
        let played = Queue::of(&plan).play(None);
        assert!(played.late_ms(99) < 1_000.0, "{}", played.late_ms(99));
        assert!(played.busy > 0.2 && played.busy < 0.7, "{}", played.busy);
        assert!(played.merges_behind_s < 1.0, "{}", played.merges_behind_s);
        let too_small = Queue::of(&Plan { rate: 4.0 * plan.rate, ..plan }).play(None);
        assert!(too_small.merges_behind_s > 10.0, "{}", too_small.merges_behind_s);
        assert!(too_small.busy > 0.95, "{}", too_small.busy);
    }

    #[test]
    fn what_a_dead_ingest_leaves_is_late_by_its_lease_and_then_caught_up() {
        let played = Queue::of(&Plan::of(300_000.0)).play(Some(KILLED_AT_MS));
        let worst = played.late_ms(100);
        assert!(worst >= LEASE_MS as f64 && worst < 3.0 * LEASE_MS as f64, "{worst}");
        assert!(played.caught_up_after_ms() >= LEASE_MS as f64 && played.caught_up_after_ms() < 40_000.0);
    }
}
