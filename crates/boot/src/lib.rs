//! What every Keymeter process does before and after its own work: read settings, log, count, tell its
//! health, stop on a signal. Knows no part of the product.

use std::net::SocketAddr;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use telemetry::Telemetry;
use tokio::{net::TcpListener, signal::unix::SignalKind, task::JoinHandle};
use tokio_util::sync::CancellationToken;

mod config;
mod health;
mod healthcheck;
mod notify;
mod retry;

pub use config::config;
pub use health::{Health, Need};
pub use retry::retry;
pub use telemetry::meter;

/// A started process; ends with [`Process::finish`].
pub struct Process {
    health: Health,
    shutdown: CancellationToken,
    health_server: JoinHandle<std::io::Result<()>>,
    telemetry: Telemetry,
}

/// Starts logs, metrics, traces, the health server on `health_addr` and the wait for SIGTERM or SIGINT.
///
/// `service` is the name in logs and traces, `keymeter-query`. With an identity, health is told only to those who show
/// a certificate as well.
///
/// # Errors
/// If the identity cannot be used, the address is taken, or a variable `OTEL_*` has a value that cannot be used.
pub async fn start(
    service: &'static str,
    health_addr: SocketAddr,
    identity: &tls::Settings,
) -> anyhow::Result<Process> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let identity = identity.identity()?;
    let telemetry = Telemetry::start(service)?;
    let health = Health::default();
    health.observe(&meter());
    tell_version();
    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind(health_addr)
        .await
        .with_context(|| format!("health address {health_addr} can not be used; choose another one"))?;
    let app = health.router().merge(telemetry.router());
    let health_server =
        tokio::spawn(axum::serve(tls::Listener::of(listener, identity.as_ref())?, app).into_future());
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: draining");
        asked.cancel();
    });
    tokio::spawn(notify::tell(health.clone(), shutdown.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), health.addr = %health_addr, "started");
    Ok(Process { health, shutdown, health_server, telemetry })
}

/// `keymeter_build_info{version}`: always 1.
fn tell_version() {
    let version = KeyValue::new("version", env!("CARGO_PKG_VERSION"));
    let info = meter().u64_gauge("keymeter_build_info").with_description("Which version runs.").build();
    info.record(1, &[version]);
}

impl Process {
    /// Cancelled at SIGTERM or SIGINT.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// What `/readyz` says.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Sends what telemetry still holds; the last thing before `main` returns.
    pub async fn finish(self) {
        tracing::info!("stopped");
        self.health_server.abort();
        self.telemetry.finish().await;
    }
}
