//! Settings, log, listener, server; then leaves without the engine's exit handlers.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use chdb_server::Config;
use clap::Parser as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// As much as the engine's parser expects of its own threads.
const STACK_BYTES: usize = 8 << 20;

fn main() {
    let config = Config::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(chdb_server::THREADS_MAX)
        .thread_stack_size(STACK_BYTES)
        .build();
    let served = runtime.context("no runtime").and_then(|runtime| runtime.block_on(serve(config)));
    if let Err(error) = &served {
        tracing::error!("{error:#}");
    }
    chdb_server::exit(i32::from(served.is_err()))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    config.validate()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("CHDB_LISTEN={} can not be used; choose another address", config.listen))?;
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    chdb_server::run(config, listener, shutdown).await
}
