//! How long workspaces keep their rows, as the bucket `retentions` says: copied to ClickHouse, where it is not
//! forgotten. Shortens nobody's time by itself.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::kv::Operation;
use domain::WorkspaceId;
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{archive::RETENTION_DAYS, bus::Bus, store::Store};

const PAUSE: Duration = Duration::from_secs(1);

/// What a workspace has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Whole days after the day of a call.
    pub days: u16,
    /// Of two choices the later one holds.
    pub chosen_at: OffsetDateTime,
}

/// Copies what the bucket says, until `shutdown`.
pub async fn follow(bus: Bus, store: Store, shutdown: CancellationToken) {
    loop {
        let mut connections = bus.connections();
        tokio::select! {
            result = read(&bus, &store) => {
                if let Err(error) = result {
                    tracing::debug!(reason = format!("{error:#}"), "retentions: reading again");
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
async fn read(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let mut changes = bus.workspaces(nats::RETENTIONS_BUCKET).await?.watch_with_history(">").await?;
    loop {
        let entry = changes.next().await.context("the watch ended")??;
        match (entry.operation == Operation::Put).then(|| retention(&entry.value)).flatten() {
            Some(retention) => store.keep_for(retention).await?,
            None => tracing::warn!(key = entry.key, "a retention can not be read, it changes nothing"),
        }
    }
}

fn retention(value: &[u8]) -> Option<Retention> {
    let retention = pb::Retention::decode(value).ok()?;
    let days = u16::try_from(retention.days).ok().filter(|days| RETENTION_DAYS.contains(days))?;
    let workspace_id = WorkspaceId::from_slice(&retention.workspace_id)?;
    Some(Retention { workspace_id, days, chosen_at: timestamp::from_proto(&retention.chosen_at?)? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::shortest(37, true)]
    #[case::longest(400, true)]
    #[case::shorter_than_the_archive_takes(36, false)]
    #[case::longer(401, false)]
    #[case::none(0, false)]
    #[case::far(100_000, false)]
    fn only_allowed_days_are_taken(#[case] days: u32, #[case] is_fine: bool) {
        let workspace_id = WorkspaceId::generate();
        let message = pb::Retention {
            workspace_id: workspace_id.as_bytes().to_vec(),
            days,
            chosen_at: Some(timestamp::to_proto(OffsetDateTime::UNIX_EPOCH)),
        };
        let read = retention(&message.encode_to_vec());
        assert_eq!(
            read.map(|read| (read.workspace_id, u32::from(read.days))),
            is_fine.then_some((workspace_id, days))
        );
    }
}
