//! Moves request events from NATS JetStream to ClickHouse, each exactly once, and says how far that has got.
//! Owns ClickHouse: its schema and every write. `shard` is the pipeline; PROTOCOL.md says why it is exact.

use anyhow::Context as _;
use boot::Health;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub mod activity;
pub mod audit;
pub mod batch;
pub mod bus;
pub mod command;
pub mod config;
pub mod dead_letters;
pub mod decode;
pub mod edges;
pub mod erasures;
pub mod gaps;
pub mod intervals;
pub mod lease;
pub mod letter;
pub mod letters;
pub mod metrics;
pub mod native;
pub mod record;
pub mod restore;
pub mod schema;
pub mod shard;
pub mod store;
pub mod takeover;
pub mod time_rule;
pub mod trouble;
pub mod watermark;
pub mod wire;
pub mod world;

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
}

/// Ingests all shards until `shutdown`.
///
/// # Errors
/// If a server is too old or its schema too new.
pub async fn run(config: Config, health: Health, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Some(services) = connect(&config, &health, &shutdown).await? else { return Ok(()) };
    let mut tasks = JoinSet::new();
    for shard in 0..config.shards {
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
    let (nats, clickhouse) = (health.need("nats"), health.need("clickhouse"));
    let shards = SharedNeed::missing(health.need("shards"), config.shards);
    let store = Store::new(config);
    let connected = async {
        let attempt = async || Bus::connect(&config.nats_url, config.stream_bytes_max).await;
        boot::retry("connect to nats", &nats, shutdown, attempt).await.transpose()
    };
    let prepared = async {
        let attempt = async || match store.prepare().await {
            Err(StoreError::Refused(refusal)) => Ok(Err(refusal)),
            other => other.map(Ok),
        };
        boot::retry("prepare clickhouse", &clickhouse, shutdown, attempt).await.transpose()
    };
    let (Some(bus), Some(())) = tokio::try_join!(connected, prepared)? else { return Ok(None) };
    let (edges, heartbeats) = watch::channel(edges::Edges::default());
    tokio::spawn(edges::follow(bus.clone(), edges, shutdown.clone()));
    let (told, erasures) = watch::channel(erasures::Erasures::default());
    tokio::spawn(erasures::follow(bus.clone(), told, shutdown.clone()));
    Ok(Some(Services {
        world: Servers { bus, store },
        edges: heartbeats,
        erasures,
        metrics: Metrics::new(),
        shards,
        nats: SharedNeed::present(nats),
        clickhouse: SharedNeed::present(clickhouse),
        owner: Uuid::now_v7().to_string(),
        stream_bytes_max: config.stream_bytes_max.unsigned_abs(),
    }))
}
