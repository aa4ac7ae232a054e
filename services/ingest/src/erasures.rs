//! Which workspaces were erased, as the bucket `erasures` has said at any time: an erasure is never withdrawn, so
//! a bucket that forgot takes none back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::kv::Operation;
use domain::WorkspaceId;
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::{OffsetDateTime, macros::datetime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{bus::Bus, event};

const PAUSE: Duration = Duration::from_millis(200);
/// The last time that events are compared with; ClickHouse has some years more.
const TIME_MAX: OffsetDateTime = datetime!(2262-01-01 00:00 UTC);

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Erasures {
    /// False until everything that was in the bucket has been read.
    pub is_complete: bool,
    /// Up to when each workspace was erased.
    pub erased: Erased,
}

/// Events of a workspace that began before its time are to be gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased(Arc<BTreeMap<WorkspaceId, OffsetDateTime>>);

impl Erased {
    /// Whether an event of that workspace that began then, in nanoseconds since 1970, is to be gone.
    #[must_use]
    pub fn covers(&self, workspace_id: WorkspaceId, occurred_at_ns: i64) -> bool {
        self.up_to_ns(workspace_id).is_some_and(|up_to_ns| occurred_at_ns < up_to_ns)
    }

    /// Up to when a workspace is erased, in nanoseconds since 1970, if it is.
    #[must_use]
    pub fn up_to_ns(&self, workspace_id: WorkspaceId) -> Option<i64> {
        self.0.get(&workspace_id).copied().map(event::nanos)
    }

    /// Every erased workspace, and up to when.
    pub fn iter(&self) -> impl Iterator<Item = (WorkspaceId, OffsetDateTime)> {
        self.0.iter().map(|(workspace_id, up_to)| (*workspace_id, *up_to))
    }

    /// With one more; whether that says anything new.
    pub fn insert(&mut self, workspace_id: WorkspaceId, up_to: OffsetDateTime) -> bool {
        let up_to = up_to.min(TIME_MAX);
        if self.0.get(&workspace_id).is_some_and(|known| *known >= up_to) {
            return false;
        }
        Arc::make_mut(&mut self.0).insert(workspace_id, up_to);
        true
    }
}

/// Adds to `erasures` what the bucket says, until `shutdown`.
pub async fn follow(bus: Bus, erasures: watch::Sender<Erasures>, shutdown: CancellationToken) {
    loop {
        let mut connections = bus.connections();
        tokio::select! {
            result = read(&bus, &erasures) => {
                if let Err(error) = result {
                    tracing::debug!(reason = format!("{error:#}"), "erasures: reading again");
                }
            }
            _ = connections.changed() => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Only ends with an error.
async fn read(bus: &Bus, erasures: &watch::Sender<Erasures>) -> anyhow::Result<()> {
    let bucket = bus.workspaces(nats::ERASURES_BUCKET).await?;
    if bucket.stream.get_info().await?.state.messages == 0 {
        erasures.send_if_modified(|known| !std::mem::replace(&mut known.is_complete, true));
    }
    let mut changes = bucket.watch_with_history(">").await?;
    loop {
        let entry = changes.next().await.context("the watch ended")??;
        let erasure = (entry.operation == Operation::Put).then(|| erasure(&entry.value)).flatten();
        if erasure.is_none() {
            tracing::warn!(key = entry.key, "an erasure can not be read");
        }
        erasures.send_if_modified(|known| {
            let completes = entry.seen_current && !std::mem::replace(&mut known.is_complete, true);
            let adds = erasure.is_some_and(|(workspace_id, up_to)| known.erased.insert(workspace_id, up_to));
            completes || adds
        });
    }
}

fn erasure(value: &[u8]) -> Option<(WorkspaceId, OffsetDateTime)> {
    let erasure = pb::Erasure::decode(value).ok()?;
    let up_to = timestamp::from_proto(&erasure.up_to?)?;
    Some((WorkspaceId::from_slice(&erasure.workspace_id)?, up_to))
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::example;

    #[test]
    fn only_earlier_events_of_the_workspace_are_covered() {
        let event = example::event("edge_a", 1);
        let at = event.occurred_at;
        let mut erased = Erased::default();
        let covers = |erased: &Erased| erased.covers(event.workspace_id, event::nanos(at));
        assert!(!covers(&erased));
        assert!(erased.insert(WorkspaceId::generate(), at + Duration::DAY));
        assert!(!covers(&erased));
        assert!(erased.insert(event.workspace_id, at));
        assert!(!covers(&erased), "it began at that time, not before");
        assert!(erased.insert(event.workspace_id, at + Duration::MILLISECOND));
        assert!(covers(&erased));
        assert!(!erased.insert(event.workspace_id, at), "an erasure is never withdrawn");
        assert!(covers(&erased));
    }
}
