//! The newest heartbeat of every edge, as the bucket `edges` has it. Says when it has not read all of them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::kv::Operation;
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events::EdgeHeartbeat, nats};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;

const PAUSE: Duration = Duration::from_secs(1);

/// What the bucket holds.
#[derive(Debug, Default)]
pub struct Edges {
    /// False until everything that was there has been read: who is missing then is not known.
    pub is_complete: bool,
    /// By edge id.
    pub heartbeats: BTreeMap<String, EdgeHeartbeat>,
}

/// Keeps `edges` as the bucket is until `shutdown`.
pub async fn follow(bus: Bus, edges: watch::Sender<Edges>, shutdown: CancellationToken) {
    loop {
        let mut connections = bus.connections();
        tokio::select! {
            result = read(&bus, &edges) => {
                if let Err(error) = result {
                    tracing::debug!(reason = format!("{error:#}"), "heartbeats: reading again");
                }
            }
            _ = connections.changed() => {}
            () = shutdown.cancelled() => return,
        }
        edges.send_replace(Edges::default());
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Only ends with an error.
async fn read(bus: &Bus, edges: &watch::Sender<Edges>) -> anyhow::Result<()> {
    let bucket = bus.bucket(nats::EDGES_BUCKET).await?;
    let is_empty = bucket.stream.get_info().await?.state.messages == 0;
    edges.send_replace(Edges { is_complete: is_empty, ..Edges::default() });
    let mut changes = bucket.watch_with_history(">").await?;
    loop {
        let entry = changes.next().await.context("the watch ended")??;
        edges.send_modify(|edges| {
            edges.is_complete |= entry.seen_current;
            match (entry.operation, EdgeHeartbeat::decode(entry.value)) {
                (Operation::Put, Ok(heartbeat)) => {
                    edges.heartbeats.insert(entry.key, heartbeat);
                }
                (Operation::Put, Err(_)) => {}
                _ => {
                    edges.heartbeats.remove(&entry.key);
                }
            }
        });
    }
}
