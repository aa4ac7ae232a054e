//! What `ingest` does instead of working: one subcommand, then it ends. Never serves health or metrics, so that it
//! runs beside the worker with the worker's own settings.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use boot::Health;
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::{
    Services, analyst, audit::report, bus::Bus, config::Config, dead_letters, rebuild, services,
    store::Store, world::Servers,
};

/// Between two words on how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Reading all erasures takes no longer.
const ERASURES_TIMEOUT: Duration = Duration::from_secs(30);

/// What to do; without one of these it ingests until it is asked to stop.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Look at what could not be read, count what can be read by now, remove the rest
    #[command(subcommand)]
    DeadLetters(dead_letters::Action),
    /// Hold what the streams hold against the rows and the totals, and print what differs; 1 if anything does
    Audit(report::Arguments),
    /// Fill an empty ClickHouse with what the streams still hold: of the last 24 hours (`--stream-keep-hours`), or
    /// less if they were 60 % full before
    Rebuild(rebuild::Asked),
    /// Make, remove and list the ClickHouse users of workspaces
    #[command(subcommand)]
    Analyst(analyst::Action),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Whatever ends the process with 1.
    pub async fn run(self, config: &Config) -> anyhow::Result<()> {
        match self {
            Self::DeadLetters(action) => dead_letters::run(config, action).await,
            Self::Audit(asked) => report::run(config, &asked).await,
            Self::Rebuild(asked) => Box::pin(rebuild::run(config, asked)).await,
            Self::Analyst(action) => analyst::run(config, action).await,
        }
    }
}

/// Connects once: a command does not wait for a server that is away.
pub(crate) async fn connect_nats(config: &Config) -> anyhow::Result<Bus> {
    let servers = config.nats()?;
    let bus = Bus::connect(&servers, config.stream_bytes_max, config.nats_replicas).await.with_context(|| {
        format!("NATS can not be reached at {servers}: start it, or name it with --nats-url or KEYMETER_INGEST_NATS_URL")
    })?;
    Ok(bus?)
}

/// Connects to both servers, as a worker does, and reads all erasures.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<Services<Servers>> {
    let bus = connect_nats(config).await?;
    let store = Store::new(config)?;
    let url = &config.clickhouse_url;
    store.prepare().await.with_context(|| {
        format!(
            "ClickHouse can not be used at {url}: start it, or name it with --clickhouse-url or \
             KEYMETER_INGEST_CLICKHOUSE_URL"
        )
    })?;
    // Nobody asks a command whether it is ready.
    let health = Health::default();
    let needs = ["nats", "clickhouse", "shards"].map(|name| health.need(name));
    let mut services =
        services(config, Servers::new(bus, store, config.shards), needs, &CancellationToken::new());
    let known = services.erasures.wait_for(|erasures| erasures.is_complete);
    tokio::time::timeout(ERASURES_TIMEOUT, known).await.context("NATS does not say what was erased")??;
    Ok(services)
}

/// Says on stderr how far something is, at most once a second; nothing of what is done sooner.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    said: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        Self { what, total, done: 0, started: now, said: now }
    }

    pub(crate) fn step(&mut self) {
        self.done += 1;
        if self.said.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.said = Instant::now();
        let rate = self.done as f64 / self.started.elapsed().as_secs_f64();
        let left = self.total.saturating_sub(self.done) as f64 / rate;
        let Self { what, total, done, .. } = self;
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{what}: {done} of {total}, {rate:.0} a second, {left:.0} s left");
    }
}
