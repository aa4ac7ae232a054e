//! What `ingest` does instead of working: one subcommand, then it ends. Never serves health or metrics, so that it
//! runs beside the worker with the worker's own settings.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Subcommand;

use crate::{analyst, bus::Bus, config::Config, rebuild};

/// Between two words on how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What to do; without one of these it ingests until it is asked to stop.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
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
            Self::Rebuild(asked) => Box::pin(rebuild::run(config, asked)).await,
            Self::Analyst(action) => analyst::run(config, action).await,
        }
    }
}

/// Connects once: a command does not wait for a server that is away.
pub(crate) async fn connect_nats(config: &Config) -> anyhow::Result<Bus> {
    let url = &config.nats_url;
    let bus = Bus::connect(url, config.stream_bytes_max).await.with_context(|| {
        format!("NATS can not be reached at {url}: start it, or name it with --nats-url or KEYMETER_INGEST_NATS_URL")
    })?;
    Ok(bus?)
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
