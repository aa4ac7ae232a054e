//! Moves request events from NATS JetStream to ClickHouse, each exactly once, and says how far that has got.
//! Owns ClickHouse: its schema and every write. `shard` is the pipeline; PROTOCOL.md says why it is exact.

use std::time::Duration;

use anyhow::Context as _;
use boot::{Health, Need};
use proto::nats;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub mod activity;
pub mod analyst;
pub mod archive;
pub mod audit;
pub mod batch;
pub mod bus;
pub mod command;
pub mod config;
pub mod dead_letters;
pub mod decode;
pub mod edges;
pub mod erasures;
pub mod event;
pub mod gaps;
pub mod inserts;
pub mod intervals;
pub mod layout;
pub mod lease;
pub mod letter;
pub mod letters;
pub mod metrics;
pub mod native;
mod pace;
pub mod rebuild;
pub mod record;
pub mod restore;
pub mod retentions;
pub mod rows;
pub mod schema;
pub mod shard;
pub mod spans;
pub mod store;
pub mod stream_keep;
pub mod takeover;
pub mod time_rule;
pub mod trouble;
pub mod watermark;
pub mod wire;
pub mod world;
mod write;

#[cfg(test)]
#[path = "../tests/it/support/example.rs"]
mod example;

use bus::Bus;
use config::Config;
use metrics::Metrics;
use store::{Store, StoreError};
use trouble::SharedNeed;
use world::Servers;

/// What the workers of all shards share.
#[derive(Clone)]
pub struct Services<W> {
    /// NATS, ClickHouse and the clock.
    pub world: W,
    /// Heartbeats.
    pub edges: watch::Receiver<edges::Edges>,
    /// Erased workspaces.
    pub erasures: watch::Receiver<erasures::Erasures>,
    /// Counters.
    pub metrics: Metrics,
    /// Whether every shard was taken once, or is another process's.
    pub shards: SharedNeed,
    /// Whether NATS is there.
    pub nats: SharedNeed,
    /// Whether ClickHouse is.
    pub clickhouse: SharedNeed,
    /// Names this process in the records.
    pub owner: String,
    /// Limit of each shard's stream.
    pub stream_bytes_max: u64,
    /// For how long a stream keeps what is closed.
    pub stream_keep: Duration,
    /// Most rows of a batch.
    pub rows_max: usize,
    /// The shard of what is beyond the quota of a workspace.
    pub bulk_shard: u16,
}

/// Ingests all shards until `shutdown`.
///
/// # Errors
/// If a server is too old or its schema too new.
pub async fn run(config: Config, health: Health, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Some(services) = connect(&config, &health, &shutdown).await? else { return Ok(()) };
    let mut tasks = JoinSet::new();
    for shard in nats::all_shards(config.shards) {
        tasks.spawn(shard::run(shard, services.clone(), shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a worker panicked")??;
    }
    Ok(())
}

/// Waits for both servers, in whichever order they come. `None` at shutdown.
async fn connect(
    config: &Config,
    health: &Health,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Services<Servers>>> {
    let needs = [health.need("nats"), health.need("clickhouse"), health.need("shards")];
    let [nats, clickhouse, _] = &needs;
    let (servers, store) = (config.nats()?, Store::new(config)?);
    let connected = async {
        let attempt = async || Bus::connect(&servers, config.stream_bytes_max, config.nats_replicas).await;
        boot::retry("connect to nats", nats, shutdown, attempt).await.transpose()
    };
    let prepared = async {
        let attempt = async || match store.prepare().await {
            Err(StoreError::Refused(refusal)) => Ok(Err(refusal)),
            other => other.map(Ok),
        };
        boot::retry("prepare clickhouse", clickhouse, shutdown, attempt).await.transpose()
    };
    let (Some(bus), Some(())) = tokio::try_join!(connected, prepared)? else { return Ok(None) };
    Ok(Some(services(config, Servers::new(bus, store, config.shards), needs, shutdown)))
}

/// What workers share once both servers are there: until `shutdown` it is told what is new.
pub(crate) fn services(
    config: &Config,
    world: Servers,
    needs: [Need; 3],
    shutdown: &CancellationToken,
) -> Services<Servers> {
    let [nats, clickhouse, shards] = needs;
    let Servers { bus, store, .. } = &world;
    let (edges, heartbeats) = watch::channel(edges::Edges::default());
    tokio::spawn(edges::follow(bus.clone(), edges, shutdown.clone()));
    let (told, erasures) = watch::channel(erasures::Erasures::default());
    tokio::spawn(erasures::follow(bus.clone(), told, shutdown.clone()));
    tokio::spawn(retentions::follow(bus.clone(), store.clone(), shutdown.clone()));
    Services {
        edges: heartbeats,
        erasures,
        metrics: Metrics::new(),
        shards: SharedNeed::missing(shards, nats::all_shards(config.shards)),
        nats: SharedNeed::present(nats),
        clickhouse: SharedNeed::present(clickhouse),
        owner: Uuid::now_v7().to_string(),
        stream_bytes_max: config.stream_bytes_max.unsigned_abs(),
        stream_keep: Duration::from_secs(u64::from(config.stream_keep_hours) * 3_600),
        rows_max: batch::rows_max(config.shards),
        bulk_shard: nats::bulk_shard(config.shards),
        world,
    }
}
