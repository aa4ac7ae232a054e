//! How far a shard is complete: what every edge has said, held against what is closed. Pure; claims nothing that
//! it was not told.

use std::collections::{BTreeMap, VecDeque};

use proto::{events as pb, timestamp};
use time::{Duration, OffsetDateTime};

use crate::record::Closed;

/// An edge that was not heard for longer no longer holds the others back.
const SILENT_AFTER: Duration = Duration::seconds(60);
/// Most heartbeats of an edge that wait to be covered; then the newest replaces the one before.
const WAITING_MAX: usize = 120;

/// What a row of `keymeter.watermarks` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Every call that ended earlier is in ClickHouse, but for the edges below. `None` while nothing is known.
    pub complete_up_to: Option<OffsetDateTime>,
    /// Silent edges and since when their calls may be missing.
    pub unaccounted: Vec<(String, OffsetDateTime)>,
}

/// A heartbeat, as far as one shard is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// By the edge's clock.
    pub sent_at: OffsetDateTime,
    /// Every call that ended earlier has a sequence at or below `positions`.
    pub clear_until: OffsetDateTime,
    /// The last published sequence by boot.
    pub positions: Vec<(u32, u64)>,
}

impl Heartbeat {
    /// What `heartbeat` says of `shard`; `None` if it lacks a time.
    #[must_use]
    pub fn of_shard(heartbeat: &pb::EdgeHeartbeat, shard: u16) -> Option<Self> {
        let of_shard = heartbeat.positions.iter().filter(|position| position.shard == u32::from(shard));
        Some(Self {
            sent_at: timestamp::from_proto(heartbeat.sent_at.as_ref()?)?,
            clear_until: timestamp::from_proto(heartbeat.clear_until.as_ref()?)?,
            positions: of_shard.map(|position| (position.boot_epoch, position.published_seq)).collect(),
        })
    }

    fn is_covered(&self, edge_id: &str, closed: &Closed) -> bool {
        self.positions.iter().all(|&(boot_epoch, sequence)| {
            sequence == 0
                || closed.of(edge_id, boot_epoch).is_some_and(|intervals| intervals.holds((1, sequence)))
        })
    }
}

/// What is known of one shard's edges.
#[derive(Debug)]
pub struct Watermark {
    before: Standing,
    edges: BTreeMap<String, Edge>,
}

#[derive(Debug)]
struct Edge {
    heard_at: OffsetDateTime,
    waiting: VecDeque<Heartbeat>,
    /// The newest `clear_until` that is covered.
    covered: Option<OffsetDateTime>,
    /// Was silent and has not caught up since.
    is_left_out: bool,
}

impl Watermark {
    /// Goes on from what was said last.
    #[must_use]
    pub const fn new(before: Standing) -> Self {
        Self { before, edges: BTreeMap::new() }
    }

    /// Takes in the newest heartbeat of an edge; one that was seen before changes nothing.
    pub fn observe(&mut self, edge_id: &str, heartbeat: Heartbeat, now: OffsetDateTime) {
        let Some(edge) = self.edges.get_mut(edge_id) else {
            // The first one may be as old as the bucket, so its own time counts.
            let heard_at = heartbeat.sent_at.min(now);
            let edge = Edge { heard_at, waiting: [heartbeat].into(), covered: None, is_left_out: false };
            self.edges.insert(edge_id.to_owned(), edge);
            return;
        };
        if edge.waiting.back().is_some_and(|newest| *newest == heartbeat) {
            return;
        }
        edge.heard_at = now;
        // The newest one stays, covered or not, to tell the next one from it.
        if edge.waiting.len() >= WAITING_MAX {
            edge.waiting.pop_back();
        }
        edge.waiting.push_back(heartbeat);
    }

    /// Drops the edges that an operator took out of the bucket.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.edges.retain(|edge_id, _| is_known(edge_id));
    }

    /// What can be said now.
    pub fn standing(&mut self, closed: &Closed, now: OffsetDateTime) -> Standing {
        for (edge_id, edge) in &mut self.edges {
            edge.cover(edge_id, closed);
            edge.is_left_out |= now - edge.heard_at > SILENT_AFTER;
        }
        let mut complete_up_to = self.minimum();
        for edge in self.edges.values_mut().filter(|edge| now - edge.heard_at <= SILENT_AFTER) {
            // Whoever comes back is one of us again once it has delivered what the others have.
            let has_caught_up =
                edge.covered.is_some() && edge.covered >= complete_up_to.or(self.before.complete_up_to);
            edge.is_left_out &= !has_caught_up;
        }
        complete_up_to = self.minimum();
        let standing = Standing {
            // An edge that is heard but has nothing covered yet: what was said before is still true.
            complete_up_to: complete_up_to.or(self.before.complete_up_to),
            unaccounted: self.unaccounted(),
        };
        self.before = standing.clone();
        standing
    }

    /// The least that the edges which count have covered: `None` if there are none, or one has nothing yet.
    fn minimum(&self) -> Option<OffsetDateTime> {
        let counted = self.edges.values().filter(|edge| !edge.is_left_out);
        counted.map(|edge| edge.covered).collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    fn unaccounted(&self) -> Vec<(String, OffsetDateTime)> {
        let said = |edge_id: &str| {
            self.before.unaccounted.iter().find(|(id, _)| id == edge_id).map(|(_, since)| *since)
        };
        let left_out = self.edges.iter().filter(|(_, edge)| edge.is_left_out);
        left_out
            .map(|(edge_id, edge)| {
                let since = edge.covered.or_else(|| said(edge_id)).or(self.before.complete_up_to);
                (edge_id.clone(), since.unwrap_or(OffsetDateTime::UNIX_EPOCH))
            })
            .collect()
    }
}

impl Edge {
    fn cover(&mut self, edge_id: &str, closed: &Closed) {
        while let Some(oldest) = self.waiting.front().filter(|oldest| oldest.is_covered(edge_id, closed)) {
            self.covered = self.covered.max(Some(oldest.clear_until));
            if self.waiting.len() == 1 {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_790_000_000 + seconds).unwrap()
    }

    /// Sent at `seconds`, clear until a second before, published up to `sequence` of boot 1.
    fn beat(seconds: i64, sequence: u64) -> Heartbeat {
        Heartbeat { sent_at: at(seconds), clear_until: at(seconds - 1), positions: vec![(1, sequence)] }
    }

    fn closed(ranges: &[(&str, u64, u64)]) -> Closed {
        let mut closed = Closed::default();
        ranges.iter().for_each(|(edge, first, last)| closed.insert(edge, 1, [(*first, *last)]).unwrap());
        closed
    }

    fn fresh() -> Watermark {
        Watermark::new(Standing { complete_up_to: None, unaccounted: Vec::new() })
    }

    fn accounted(seconds: i64) -> Standing {
        Standing { complete_up_to: Some(at(seconds)), unaccounted: Vec::new() }
    }

    #[test]
    fn nothing_is_claimed_of_nobody() {
        assert_eq!(fresh().standing(&Closed::default(), at(0)).complete_up_to, None);
    }

    #[test]
    fn complete_as_far_as_every_edge_is_covered() {
        let mut watermark = fresh();
        watermark.observe("a", beat(10, 5), at(10));
        watermark.observe("b", beat(10, 0), at(10));
        assert_eq!(watermark.standing(&closed(&[("a", 1, 4)]), at(10)).complete_up_to, None);
        assert_eq!(watermark.standing(&closed(&[("a", 1, 5)]), at(10)), accounted(9));
        watermark.observe("a", beat(11, 9), at(11));
        watermark.observe("b", beat(11, 0), at(11));
        watermark.observe("a", beat(12, 12), at(12));
        assert_eq!(watermark.standing(&closed(&[("a", 1, 8), ("a", 10, 12)]), at(12)), accounted(9));
        assert_eq!(watermark.standing(&closed(&[("a", 1, 10)]), at(12)), accounted(10));
        assert_eq!(watermark.standing(&closed(&[("a", 1, 12)]), at(12)), accounted(10), "b said 10 only");
        watermark.observe("b", beat(13, 0), at(13));
        assert_eq!(watermark.standing(&closed(&[("a", 1, 12)]), at(13)), accounted(11));
    }

    #[test]
    fn a_silent_edge_is_named_until_it_has_caught_up() {
        let mut watermark = fresh();
        let all = closed(&[("a", 1, 99), ("b", 1, 5)]);
        watermark.observe("a", beat(10, 1), at(10));
        watermark.observe("b", beat(10, 5), at(10));
        assert_eq!(watermark.standing(&all, at(10)), accounted(9));
        watermark.observe("a", beat(70, 2), at(70));
        assert_eq!(watermark.standing(&all, at(70)), accounted(9), "60 s are not silence yet");
        watermark.observe("a", beat(71, 3), at(71));
        let named =
            |seconds| Standing { complete_up_to: Some(at(seconds)), unaccounted: vec![("b".into(), at(9))] };
        assert_eq!(watermark.standing(&all, at(71)), named(70));
        // It is back with a spool that is not published yet: others go on without it.
        watermark.observe("a", beat(80, 4), at(80));
        watermark.observe("b", Heartbeat { clear_until: at(9), ..beat(80, 5) }, at(80));
        assert_eq!(watermark.standing(&all, at(80)), named(79));
        watermark.observe("b", beat(81, 8), at(81));
        assert_eq!(watermark.standing(&all, at(81)), named(79), "published is not committed");
        let all = closed(&[("a", 1, 99), ("b", 1, 8)]);
        assert_eq!(watermark.standing(&all, at(81)), accounted(79));
    }

    #[test]
    fn a_restart_claims_nothing_false() {
        let before = Standing { complete_up_to: Some(at(50)), unaccounted: vec![("c".into(), at(20))] };
        let mut watermark = Watermark::new(before);
        // a is alive and behind, b and c stopped long ago, b after it had delivered everything until 50.
        watermark.observe("a", beat(199, 9), at(200));
        watermark.observe("b", beat(60, 7), at(200));
        watermark.observe("c", beat(30, 7), at(200));
        let unaccounted = vec![("b".into(), at(50)), ("c".into(), at(20))];
        let behind = Standing { complete_up_to: Some(at(50)), unaccounted: unaccounted.clone() };
        assert_eq!(watermark.standing(&Closed::default(), at(200)), behind);
        let a_is_covered = Standing { complete_up_to: Some(at(198)), unaccounted };
        assert_eq!(watermark.standing(&closed(&[("a", 1, 9)]), at(201)), a_is_covered);
    }

    #[test]
    fn if_all_are_silent_the_last_claim_stands_and_the_first_to_return_counts() {
        let mut watermark = fresh();
        watermark.observe("a", beat(10, 0), at(10));
        assert_eq!(watermark.standing(&Closed::default(), at(10)), accounted(9));
        let silent = Standing { complete_up_to: Some(at(9)), unaccounted: vec![("a".into(), at(9))] };
        assert_eq!(watermark.standing(&Closed::default(), at(100)), silent);
        watermark.observe("a", beat(101, 0), at(101));
        assert_eq!(watermark.standing(&Closed::default(), at(101)), accounted(100));
        watermark.retain(|_| false);
        assert_eq!(watermark.standing(&Closed::default(), at(300)), accounted(100));
    }

    #[test]
    fn a_long_wait_stays_bounded_and_keeps_the_oldest() {
        let mut watermark = fresh();
        for second in 0..1_000 {
            watermark.observe("a", beat(second, second as u64 + 1), at(second));
        }
        assert_eq!(watermark.edges["a"].waiting.len(), WAITING_MAX);
        assert_eq!(watermark.standing(&closed(&[("a", 1, 3)]), at(999)), accounted(1));
        assert_eq!(watermark.standing(&closed(&[("a", 1, 1_000)]), at(999)), accounted(998));
    }
}
