//! A NATS, a ClickHouse and an ingest between them.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use async_nats::jetstream::{self, Context};
use parts::{ClickHouse, Nats, Service, eventually};

use super::Edge;

/// How a subcommand ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The parts of one test.
pub(crate) struct Stage {
    pub(crate) nats: Nats,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) ingest: Service,
    pub(crate) health: String,
}

impl Stage {
    /// Bytes of streams with room for a million events.
    pub(crate) const ROOMY: &str = "268435456";

    /// All three, ready.
    pub(crate) async fn start() -> Self {
        // Small, so that a test can fill it.
        Self::start_with("4194304").await
    }

    /// The same, with room for a million events.
    pub(crate) async fn start_roomy() -> Self {
        Self::start_with(Self::ROOMY).await
    }

    /// The same, with streams of so many bytes.
    pub(crate) async fn start_with(stream_bytes_max: &str) -> Self {
        let (nats, clickhouse) = (Nats::start().await, ClickHouse::start().await);
        let (ingest, health) = Self::spawn(&nats.url(), &clickhouse.url(), stream_bytes_max).await;
        let mut stage = Self { nats, clickhouse, ingest, health };
        stage.wait_ready().await;
        stage
    }

    /// Waits until ingest owns the tests' shard; it may look ready a moment before it has said what it needs.
    pub(crate) async fn wait_ready(&mut self) {
        self.ingest.wait_ready(&self.health).await;
        eventually("the shard is owned", async || {
            self.metric("keymeter_ingest_owned{shard=\"1\"").await == 1
        })
        .await;
        self.ingest.wait_ready(&self.health).await;
    }

    /// An ingest of two shards; shard 1 is the one that tests use.
    pub(crate) async fn spawn_ingest(nats: &Nats, clickhouse: &ClickHouse) -> (Service, String) {
        Self::spawn(&nats.url(), &clickhouse.url(), "4194304").await
    }

    /// The same, at these URLs and with streams of so many bytes.
    pub(crate) async fn spawn(nats: &str, clickhouse: &str, stream_bytes_max: &str) -> (Service, String) {
        let health = format!("127.0.0.1:{}", parts::free_port());
        let service = Service::spawn(
            "ingest",
            &[
                ("KEYMETER_INGEST_NATS_URL", nats),
                ("KEYMETER_INGEST_CLICKHOUSE_URL", clickhouse),
                ("KEYMETER_INGEST_HEALTH_ADDR", health.as_str()),
                ("KEYMETER_INGEST_SHARDS", "2"),
                ("KEYMETER_INGEST_STREAM_BYTES_MAX", stream_bytes_max),
            ],
        )
        .await;
        (service, health)
    }

    /// Runs a subcommand beside the worker, with nothing to read on its standard input.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(parts::binary("ingest"));
        command
            .args(arguments)
            .env("KEYMETER_INGEST_NATS_URL", self.nats.url())
            .env("KEYMETER_INGEST_CLICKHOUSE_URL", self.clickhouse.url())
            .env("KEYMETER_INGEST_SHARDS", "2")
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
        let output = output.expect("the binary is there");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it says text");
        Ended { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A connection of the test's own, which soon gives up what is not answered.
    pub(crate) async fn jetstream(&self) -> Context {
        let client = async_nats::connect(self.nats.url()).await.expect("NATS runs");
        let short = Duration::from_secs(1);
        jetstream::context::ContextBuilder::new().timeout(short).ack_timeout(short).build(client)
    }

    /// Plays the edges until everything they have spooled is committed, sending again what is not.
    pub(crate) async fn settle(&self, edges: &mut [Edge]) {
        eventually("everything is committed", async || {
            let mut left = 0;
            for edge in edges.iter_mut() {
                left += edge.free().await;
            }
            if left > 0 {
                for edge in edges.iter() {
                    edge.resend().await;
                }
            }
            left == 0
        })
        .await;
    }

    /// Every sequence of every edge is one row, and the projection counts the same.
    pub(crate) async fn assert_exact(&self, edges: &[Edge]) {
        let by_edge = "select edge_id, count(), uniqExact(edge_seq), min(edge_seq), max(edge_seq) \
            from keymeter.request_events group by edge_id order by edge_id";
        let expected: String = edges
            .iter()
            .map(|edge| format!("{}\t{last}\t{last}\t1\t{last}\n", edge.id, last = edge.last_seq()))
            .collect();
        assert_eq!(self.clickhouse.query(by_edge).await, expected);
        let projected = "select sum(calls) from (select method, count() as calls from keymeter.request_events \
            group by method) settings optimize_use_projections = 1, force_optimize_projection = 1";
        let total: u64 = edges.iter().map(Edge::last_seq).sum();
        assert_eq!(self.clickhouse.query(projected).await, format!("{total}\n"));
    }

    /// Waits until ClickHouse has `count` rows.
    pub(crate) async fn wait_for_rows(&self, count: u64) {
        eventually(&format!("{count} rows"), async || self.rows().await.ok() == Some(count)).await;
    }

    /// How many rows there are.
    pub(crate) async fn rows(&self) -> Result<u64, String> {
        let text = self.clickhouse.try_query("select count() from keymeter.request_events").await?;
        text.trim().parse().map_err(|_| text)
    }

    /// A metric's value with the given labels of shard 1; 0 if it is not there yet.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        let text = parts::get(&self.health, "/metrics").await.map(|answer| answer.body).unwrap_or_default();
        let found = text.lines().find(|found| found.starts_with(line));
        found.and_then(|found| found.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
    }
}

/// Whether the ingest with this address of health has the shard.
pub(crate) async fn owns(health: &str) -> bool {
    let text = parts::get(health, "/metrics").await.map(|answer| answer.body).unwrap_or_default();
    text.lines().any(|line| line.starts_with("keymeter_ingest_owned{shard=\"1\"") && line.ends_with(" 1"))
}
