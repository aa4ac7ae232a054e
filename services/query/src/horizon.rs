//! How far answers can be trusted: how complete the tables are, what is known to be missing, and from when on there are
//! single calls. One reading serves all calls for a second.

use std::collections::{BTreeMap, HashMap};

use domain::{TimeRange, WorkspaceId};
use proto::{timestamp, usage as pb};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    plan::{DAY_MS, Plan, Span},
    store::{GapRow, RetentionRow, WatermarkRow, time_of_ms},
};

/// Days for which rows are kept after their own, if a workspace has not chosen; and the least that one can choose.
const RETENTION_DAYS: i64 = 90;
const RETENTION_DAYS_MIN: i64 = 37;
/// Most gaps in one answer.
const GAPS_MAX: usize = 100;

/// A reading of the small tables.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    complete_up_to: Option<prost_types::Timestamp>,
    unaccounted_edges: Vec<pb::UnaccountedEdge>,
    gaps: HashMap<Uuid, Vec<GapRow>>,
    retentions: HashMap<Uuid, RetentionRow>,
    /// In days since 1970; negative while nothing is archived.
    closed_day: i64,
}

impl Horizon {
    pub(crate) fn new(
        shards: &[WatermarkRow],
        gaps: Vec<GapRow>,
        retentions: Vec<RetentionRow>,
        closed_day: i64,
    ) -> Self {
        let mut by_workspace: HashMap<Uuid, Vec<GapRow>> = HashMap::new();
        for gap in gaps {
            by_workspace.entry(gap.workspace_id).or_default().push(gap);
        }
        let retentions = retentions.into_iter().map(|row| (row.workspace_id, row)).collect();
        let (complete_up_to, unaccounted_edges) = combine(shards);
        Self { complete_up_to, unaccounted_edges, gaps: by_workspace, retentions, closed_day }
    }

    /// When the first day begins whose calls have surely not expired, in milliseconds since 1970.
    pub(crate) fn calls_from_ms(&self, workspace_id: WorkspaceId, now: OffsetDateTime) -> i64 {
        if self.closed_day < 0 {
            return i64::MIN;
        }
        let today = now.unix_timestamp().div_euclid(DAY_MS / 1000);
        let kept_from = match self.retentions.get(&workspace_id.as_uuid()) {
            None => today - RETENTION_DAYS,
            Some(chosen) => {
                // What had expired by an earlier choice does not come back.
                let chosen_day = chosen.chosen_at_ms.div_euclid(DAY_MS).min(today);
                (today - i64::from(chosen.days)).max(chosen_day - RETENTION_DAYS_MIN)
            }
        };
        // Only what is archived can have expired.
        kept_from.min(self.closed_day + 1) * DAY_MS
    }

    /// What an answer about a range of a workspace says of itself.
    pub(crate) fn freshness(
        &self,
        workspace_id: WorkspaceId,
        range: &TimeRange,
        plan: &Plan,
    ) -> pb::Freshness {
        let span = Span::of(range);
        let of = |id: Uuid| self.gaps.get(&id).into_iter().flatten();
        let mut gaps: Vec<&GapRow> = of(workspace_id.as_uuid())
            .chain(of(Uuid::nil()))
            .filter(|gap| gap.from_ms < span.to_ms && gap.to_ms > span.from_ms)
            .collect();
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.from_ms));
        pb::Freshness {
            complete_up_to: self.complete_up_to,
            unaccounted_edges: self.unaccounted_edges.clone(),
            known_gaps: gaps.into_iter().take(GAPS_MAX).map(known_gap).collect(),
            calls_from: plan.calls_from_ms.and_then(time_of_ms).map(timestamp::to_proto),
            is_without_archive: plan.is_without_archive,
            read_cost: None,
        }
    }
}

fn known_gap(row: &GapRow) -> pb::KnownGap {
    let reason = match row.reason_name.as_str() {
        "lost" => pb::GapReason::Lost,
        "dead_letter" => pb::GapReason::Unreadable,
        "missing" => pb::GapReason::Missing,
        _ => pb::GapReason::Unspecified,
    };
    pb::KnownGap {
        edge_id: row.edge_id.clone(),
        from: time_of_ms(row.from_ms).map(timestamp::to_proto),
        to: time_of_ms(row.to_ms).map(timestamp::to_proto),
        reason: reason.into(),
        call_count: row.call_count,
    }
}

/// The least of all shards; nothing is complete until every shard is known.
fn combine(shards: &[WatermarkRow]) -> (Option<prost_types::Timestamp>, Vec<pb::UnaccountedEdge>) {
    let complete_up_to = shards
        .iter()
        .map(|shard| shard.complete_up_to_ms)
        .min()
        .filter(|ms| *ms > 0)
        .and_then(time_of_ms)
        .map(timestamp::to_proto);
    let mut silent: BTreeMap<&str, i64> = BTreeMap::new();
    for shard in shards {
        for (edge_id, since_ms) in shard.edge_ids.iter().zip(&shard.since_ms) {
            silent.entry(edge_id).and_modify(|first| *first = (*first).min(*since_ms)).or_insert(*since_ms);
        }
    }
    let edge = |(edge_id, since_ms): (&str, i64)| pb::UnaccountedEdge {
        edge_id: edge_id.to_owned(),
        since: Some(timestamp::to_proto(time_of_ms(since_ms).unwrap_or(OffsetDateTime::UNIX_EPOCH))),
    };
    (complete_up_to, silent.into_iter().map(edge).collect())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn shard(complete_up_to_ms: i64, silent: &[(&str, i64)]) -> WatermarkRow {
        WatermarkRow {
            complete_up_to_ms,
            edge_ids: silent.iter().map(|(edge_id, _)| (*edge_id).to_owned()).collect(),
            since_ms: silent.iter().map(|(_, since_ms)| *since_ms).collect(),
        }
    }

    #[test]
    fn the_slowest_shard_counts_and_an_unknown_one_is_no_time() {
        let seconds = |shards: &[WatermarkRow]| combine(shards).0.map(|at| at.seconds);
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[shard(9_000, &[]), shard(7_500, &[])]), Some(7));
        assert_eq!(seconds(&[shard(9_000, &[]), shard(0, &[])]), None);
    }

    #[test]
    fn an_edge_is_told_once_since_its_first_silence() {
        let edges = combine(&[shard(1, &[("b", 5_000), ("a", 9_000)]), shard(1, &[("a", 8_000)])]).1;
        let edges = edges.into_iter().map(|edge| (edge.edge_id, edge.since.unwrap().seconds));
        assert_eq!(edges.collect::<Vec<_>>(), [("a".to_owned(), 8), ("b".to_owned(), 5)]);
    }

    #[test]
    fn calls_are_there_for_as_long_as_their_workspace_keeps_them() {
        let id = WorkspaceId::generate();
        let now = datetime!(2026-11-20 12:00 UTC);
        let day = |at: OffsetDateTime| at.unix_timestamp() / 86_400;
        let closed_day = day(datetime!(2026-10-15 00:00 UTC));
        let from = |days: Option<(u16, OffsetDateTime)>, closed_day| {
            let retention = days.map(|(days, chosen_at)| RetentionRow {
                workspace_id: id.as_uuid(),
                days,
                chosen_at_ms: chosen_at.unix_timestamp() * 1000,
            });
            let horizon = Horizon::new(&[], vec![], retention.into_iter().collect(), closed_day);
            horizon.calls_from_ms(id, now).checked_div(DAY_MS).unwrap()
        };
        let long_ago = datetime!(2020-01-01 00:00 UTC);
        assert_eq!(from(None, closed_day), day(datetime!(2026-08-22 00:00 UTC)));
        assert_eq!(from(Some((37, long_ago)), closed_day), day(datetime!(2026-10-14 00:00 UTC)));
        assert_eq!(from(Some((400, long_ago)), closed_day), day(now) - 400);
        // Longer since yesterday: what the shorter time had let go stays gone.
        let yesterday = datetime!(2026-11-19 12:00 UTC);
        assert_eq!(from(Some((400, yesterday)), closed_day), day(yesterday) - 37);
        // Nothing expires before it is archived.
        let late = day(datetime!(2026-08-01 00:00 UTC));
        assert_eq!(from(None, late), late + 1);
        assert_eq!(from(None, -1), i64::MIN / DAY_MS);
    }
}
