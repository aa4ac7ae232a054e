//! What ClickHouse has, as ingest says it; frees the spool by that and by nothing else.

use std::sync::Arc;

use async_nats::jetstream;
use prost::Message as _;
use proto::{events as pb, nats};
use tokio::sync::watch;

use crate::{
    bucket::{FollowError, Update, follow},
    spool::{Spool, intervals::Intervals, record::StreamId},
};

/// Follows the commits of this edge; `is_current` becomes true once all older ones are known.
pub(crate) async fn run(
    jetstream: jetstream::Context,
    spool: Arc<Spool>,
    is_current: Arc<watch::Sender<bool>>,
) -> Result<(), FollowError> {
    is_current.send_replace(false);
    let keys = nats::edge_commit_keys(&spool.edge_id().to_string());
    follow(&jetstream, nats::EDGE_COMMITS_BUCKET, &keys, 0, |update| {
        match update {
            Update::Entry(key, value, _) => match (stream(key), pb::EdgeCommit::decode(value)) {
                (Some(stream), Ok(commit)) => {
                    let runs = commit.committed.iter().map(|range| (range.first_seq, range.last_seq));
                    spool.commit(stream, &runs.collect::<Intervals>());
                }
                _ => tracing::warn!(key, "a commit cannot be read; the spool keeps its events"),
            },
            Update::Current(..) => {
                is_current.send_replace(true);
            }
        }
        Ok(())
    })
    .await
}

/// Reads `<edge_id>.<boot_epoch>.<shard>`.
fn stream(key: &str) -> Option<StreamId> {
    let mut parts = key.split('.').skip(1);
    let (boot_epoch, shard) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(StreamId { boot_epoch, shard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let key = nats::edge_commit_key("edge_x", 7, 3);
        assert_eq!(stream(&key), Some(StreamId { boot_epoch: 7, shard: 3 }));
        for key in ["", "edge_x", "edge_x.1", "edge_x.1.2.3", "edge_x.1.-2", "edge_x.4294967296.1"] {
            assert_eq!(stream(key), None);
        }
    }
}
