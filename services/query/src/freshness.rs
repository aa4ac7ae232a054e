//! How far an answer can be trusted. Read before the answer itself, so that it never claims more than is in it.

use std::collections::BTreeMap;

use domain::{TimeRange, WorkspaceId};
use proto::{timestamp, usage as pb};
use time::OffsetDateTime;

use crate::{
    call::Call,
    error::StoreError,
    sql,
    store::{GapRow, WatermarkRow, time_of_ms},
};

/// The freshness of whatever is read from now on.
pub(crate) async fn freshness(
    call: &Call,
    workspace_id: WorkspaceId,
    range: &TimeRange,
) -> Result<pb::Freshness, StoreError> {
    let gaps = call.store.gaps(sql::gaps(workspace_id, range), call.deadline).await?;
    let known_gaps = gaps.into_iter().map(gap).collect();
    Ok(pb::Freshness { known_gaps, ..combine(&call.store.watermarks(call.deadline).await?) })
}

fn gap(row: GapRow) -> pb::KnownGap {
    let reason = match row.reason_name.as_str() {
        "lost" => pb::GapReason::Lost,
        "dead_letter" => pb::GapReason::Unreadable,
        "missing" => pb::GapReason::Missing,
        _ => pb::GapReason::Unspecified,
    };
    pb::KnownGap {
        edge_id: row.edge_id,
        from: time_of_ms(row.from_ms).map(timestamp::to_proto),
        to: time_of_ms(row.to_ms).map(timestamp::to_proto),
        reason: reason.into(),
        call_count: row.call_count,
    }
}

/// The least of all shards; nothing is complete until every shard is known.
fn combine(shards: &[WatermarkRow]) -> pb::Freshness {
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
    let unaccounted_edges = silent
        .into_iter()
        .map(|(edge_id, since_ms)| pb::UnaccountedEdge {
            edge_id: edge_id.to_owned(),
            since: Some(timestamp::to_proto(time_of_ms(since_ms).unwrap_or(OffsetDateTime::UNIX_EPOCH))),
        })
        .collect();
    pb::Freshness { complete_up_to, unaccounted_edges, known_gaps: Vec::new() }
}

#[cfg(test)]
mod tests {
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
        let seconds = |shards: &[WatermarkRow]| combine(shards).complete_up_to.map(|at| at.seconds);
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[shard(9_000, &[]), shard(7_500, &[])]), Some(7));
        assert_eq!(seconds(&[shard(9_000, &[]), shard(0, &[])]), None);
    }

    #[test]
    fn an_edge_is_told_once_since_its_first_silence() {
        let edges = combine(&[shard(1, &[("b", 5_000), ("a", 9_000)]), shard(1, &[("a", 8_000)])]);
        let edges =
            edges.unaccounted_edges.into_iter().map(|edge| (edge.edge_id, edge.since.unwrap().seconds));
        assert_eq!(edges.collect::<Vec<_>>(), [("a".to_owned(), 8), ("b".to_owned(), 5)]);
    }
}
