//! A NATS with the shards' streams, an empty ClickHouse, and an ingest between them when it is asked for.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser as _;
use figures::say;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ingest::{bus::Bus, config::Config, store::Store};
use nats_cluster::Servers;
use parts::{ClickHouse, Nats, Service, free_port};
use proto::nats;

use crate::edges::SHARDS;

/// Room for every backlog.
const STREAM_BYTES_MAX: i64 = 4 << 30;
/// Messages that are published and not acknowledged.
const IN_FLIGHT_MAX: usize = 64;
/// Time between two looks at the rows.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// The parts of one measurement.
pub(crate) struct Stage {
    pub(crate) nats: Nats,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) bus: Bus,
}

/// Settings as ingest's own, for that ClickHouse.
pub(crate) fn store(clickhouse: &ClickHouse) -> anyhow::Result<Store> {
    Store::new(&Config::try_parse_from(["ingest", "--clickhouse-url", &clickhouse.url()])?)
}

impl Stage {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (nats, clickhouse) = (Nats::start().await, ClickHouse::start().await);
        let bus = Bus::connect(&Servers::parse(&nats.url())?, STREAM_BYTES_MAX, 1).await??;
        for shard in nats::all_shards(SHARDS) {
            bus.ensure(shard).await?;
        }
        Ok(Self { nats, clickhouse, bus })
    }

    /// Puts messages into the streams.
    pub(crate) async fn publish(&self, messages: Vec<(u16, Bytes)>) -> anyhow::Result<()> {
        say("into the streams");
        let jetstream = async_nats::jetstream::new(async_nats::connect(self.nats.url()).await?);
        let sent = stream::iter(messages).map(|(shard, message)| {
            let jetstream = jetstream.clone();
            async move {
                jetstream.publish(nats::request_events_subject(shard), message).await?.await?;
                anyhow::Ok(())
            }
        });
        sent.buffered(IN_FLIGHT_MAX).try_collect().await
    }

    /// An ingest of all shards; does not wait for it.
    pub(crate) async fn spawn_ingest(&self) -> Service {
        self.spawn_ingest_with(&[]).await
    }

    /// The same with more settings.
    pub(crate) async fn spawn_ingest_with(&self, more: &[(&'static str, String)]) -> Service {
        let (shards, bytes_max) = (SHARDS.to_string(), STREAM_BYTES_MAX.to_string());
        let health = format!("127.0.0.1:{}", free_port());
        let environment = [
            ("KEYMETER_INGEST_NATS_URL", self.nats.url()),
            ("KEYMETER_INGEST_CLICKHOUSE_URL", self.clickhouse.url()),
            ("KEYMETER_INGEST_HEALTH_ADDR", health),
            ("KEYMETER_INGEST_SHARDS", shards),
            ("KEYMETER_INGEST_STREAM_BYTES_MAX", bytes_max),
        ];
        let environment: Vec<_> =
            environment.iter().chain(more).map(|(name, value)| (*name, value.as_str())).collect();
        Service::spawn("ingest", &environment).await
    }

    /// How many rows a query sees; 0 before there is a table.
    pub(crate) async fn rows(&self) -> usize {
        let count = self.clickhouse.try_query("select count() from keymeter.request_events").await;
        count.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Waits for so many rows, and says how many there are then.
    pub(crate) async fn wait_for_rows(&self, count: usize) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            let rows = self.rows().await;
            if rows >= count {
                return Ok(rows);
            }
            ensure!(began.elapsed() < WAIT_MAX, "{rows} of {count} rows after {} s", WAIT_MAX.as_secs());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A number that a query answers.
    pub(crate) async fn number(&self, sql: &str) -> anyhow::Result<f64> {
        let text = self.clickhouse.try_query(sql).await.map_err(|error| anyhow::anyhow!("{sql}: {error}"))?;
        text.trim().parse().with_context(|| format!("{sql}: {text}"))
    }
}
