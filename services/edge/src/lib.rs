//! A reverse proxy with Keymeter's layer before it: start, serve, tell health, drain. Never touches a key or an
//! event itself.

use std::time::Duration;

use boot::{Health, Need};
use edge_layer::{Edge, Feed, Source, Status};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod client;
mod clock;
pub mod config;
mod durable;
mod exchange;
mod gateway;
mod gather;
mod guard;
mod headers;
mod metrics;
pub mod plain;
mod proxy;
mod server;
mod strict;
mod timeouts;
mod tunnel;
pub mod upstream;
mod worker;
mod workers;

use self::{gateway::Gateway, server::Server};
pub use self::{server::Serving, timeouts::Timeouts};

/// How often readiness is brought up to date.
const STATUS_POLL: Duration = Duration::from_millis(100);
/// How long publishing what is left may take, and then its commit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the edge runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Verification and capture.
    pub edge: edge_layer::Settings,
    /// The proxy.
    pub serving: Serving,
}

/// Serves until `shutdown`; then lets running calls end, and publishes what is left.
///
/// # Errors
/// If the spool's folder or an address cannot be used, or a thread that serves ends.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    health: &Health,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    // First, so that nothing is ready before it is known to be.
    let needs = Needs::new(health);
    let edge = Edge::start(settings.edge).await?;
    tracing::info!(edge.id = %edge.edge_id(), addr = %listener.local_addr()?, "the edge listens");
    let (layer, own) = (edge.layer(), health.router());
    let server = Server::start(settings.serving, move |proxy| Gateway {
        layer: layer.clone(),
        proxy,
        own: own.clone(),
    })?;
    let served = tokio::select! {
        served = server.serve(&listener) => served,
        () = tell(&edge, &needs) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    };
    drop(listener);
    server.stop(|| edge.cut()).await;
    edge.close(FLUSH_TIMEOUT).await;
    served
}

/// What readiness depends on. A lost NATS is not among it: the edge works on until the keys are too old.
struct Needs {
    keys: Need,
    spool: Need,
}

impl Needs {
    fn new(health: &Health) -> Self {
        Self { keys: health.need("keys"), spool: health.need("spool") }
    }
}

/// Keeps readiness up to date, for ever.
async fn tell(edge: &Edge, needs: &Needs) {
    let mut told = None;
    loop {
        let status = edge.status();
        if told.as_ref() != Some(&status) {
            say(&status, needs);
            told = Some(status);
        }
        tokio::time::sleep(STATUS_POLL).await;
    }
}

fn say(status: &Status, needs: &Needs) {
    let nats = if status.nats { "NATS is connected" } else { "NATS is not connected" };
    let source = match status.source {
        Some(Source::Nats) => "from NATS",
        Some(Source::Keys) => "from the keys service, without NATS",
        None => "nothing is heard of it now",
    };
    match status.feed {
        Feed::Live => needs.keys.up_with(format!("the list of keys is current: {source}")),
        Feed::NotReady => needs.keys.down(format!("the first list of keys has not come; {nats}")),
        Feed::Lost => needs.keys.down(format!("the list of keys is too old, calls are refused; {nats}")),
        Feed::Stale => {
            tracing::warn!(
                "the list of keys is too old: calls are decided by it all the same, as was chosen"
            );
            needs.keys.up_with(format!("the list of keys is too old and used all the same; {nats}"));
        }
    }
    match &status.spool {
        None => needs.spool.up(),
        Some(reason) => needs.spool.down(reason),
    }
    let limits = if status.limits_shared { "shared" } else { "local" };
    tracing::info!(nats = status.nats, feed = ?status.feed, feed.source = source, spool = status.spool.as_deref().unwrap_or("ok"), limits, "status");
}
