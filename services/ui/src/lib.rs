//! The pages of Keymeter. Calls keys and query by gRPC, owns no data, opens no database.

use std::{sync::Arc, time::Duration};

use boot::Health;
use tls::Listener;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod assets;
mod clients;
mod columns;
mod config;
mod cookies;
mod download;
mod filters;
mod format;
mod headers;
mod metrics;
mod pages;
mod problem;
mod roles;
mod router;
mod session;
mod theme;
mod views;
mod violations;
mod visit;

pub use config::{Config, HttpUrl};
pub use router::router;

use clients::Clients;
use pages::usage::export::Exports;
use session::Sessions;

/// How long running requests may still take after the signal.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What every request needs.
pub struct App {
    config: Config,
    clients: Clients,
    sessions: Sessions,
    exports: Exports,
    /// Ends what would go on by itself.
    shutdown: CancellationToken,
}

impl App {
    /// Clients that connect on first use, and an empty cache of access tokens.
    ///
    /// # Errors
    /// If the system's certificates can not be read for an https address.
    pub fn new(config: Config, shutdown: CancellationToken) -> anyhow::Result<Arc<Self>> {
        let clients = Clients::new(&config)?;
        let sessions = Sessions::new(clients.clone(), config.public_url.is_https());
        Ok(Arc::new(Self { config, clients, sessions, exports: Exports::default(), shutdown }))
    }
}

/// Serves pages until `shutdown`, then lets running requests end. Pages are served at once; while keys or
/// query is away they say so, and `/readyz` does.
///
/// # Errors
/// If the clients can not be made or the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    health: &Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!(ui.addr = %listener.local_addr()?, ui.public_url = %config.public_url, "serving pages");
    let tls = config.tls()?;
    let app = App::new(config, shutdown.clone())?;
    app.clients.watch(health, &shutdown);
    let server = axum::serve(Listener::new(listener, tls), router(app, health)?)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        served = server.into_future() => Ok(served?),
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN_MAX).await } => {
            tracing::warn!("requests were still running after {DRAIN_MAX:?}; they were cut off");
            Ok(())
        }
    }
}
