//! Everything under test on this machine: the API, nginx before it, our plain proxy, our edge, and what the edge
//! needs.

use std::{fs, path::Path};

use async_nats::jetstream;
use figures::{Figures, say};
use parts::{Nats, Service, free_port};
use tempfile::TempDir;

use crate::{
    api_key::{self, heartbeats},
    nginx::Nginx,
};

/// A server that is measured.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) addr: String,
    pub(crate) pid: u32,
}

/// All of them, running.
pub(crate) struct Servers {
    /// In the order in which they take turns: nginx, the plain proxy, the edge.
    pub(crate) proxies: [Server; 3],
    /// The API itself.
    pub(crate) api: Server,
    /// What callers send.
    pub(crate) authorization: String,
    nats_url: String,
    health: String,
    _nats: Nats,
    _running: [Service; 2],
    _nginx: [Nginx; 2],
    _folder: TempDir,
}

impl Servers {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        say("starting nginx, NATS and the edge");
        let mut api = Nginx::api()?;
        api.ready().await?;
        let mut nginx = Nginx::proxy(&api.addr)?;
        nginx.ready().await?;
        let nats = Nats::start().await;
        let secret = api_key::make(&nats.url()).await?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("feed-keys"), api_key::feed_keys())?;
        let upstream = format!("http://{}", api.addr);
        let [plain_addr, edge_addr, health] = std::array::from_fn(|_| format!("127.0.0.1:{}", free_port()));
        let plain = Service::spawn_with("bench-edge", &["plain", &plain_addr, &upstream], &[]);
        parts::eventually("the plain proxy answers", async || parts::get(&plain_addr, "/").await.is_ok())
            .await;
        let edge = edge(&edge_addr, &health, &upstream, &nats.url(), folder.path(), &[]).await;
        let server = |name, addr: &str, pid| Server { name, addr: addr.to_owned(), pid };
        Ok(Self {
            proxies: [
                server("nginx", &nginx.addr, nginx.pid()),
                server("proxy", &plain_addr, plain.pid()),
                server("edge", &edge_addr, edge.pid()),
            ],
            api: server("direct", &api.addr, api.pid()),
            authorization: format!("Bearer {}", secret.reveal()),
            nats_url: nats.url(),
            health,
            _nats: nats,
            _running: [plain, edge],
            _nginx: [api, nginx],
            _folder: folder,
        })
    }

    /// Notes how many calls the edge counted, how many of them are published, and how many it lost: a figure of
    /// speed is worth nothing if the record is short.
    pub(crate) async fn check_exact(&self, figures: &Figures) -> anyhow::Result<()> {
        say("the record of all these calls");
        let jetstream = jetstream::new(async_nats::connect(&self.nats_url).await?);
        let counted = self.metric("keymeter_edge_requests_total").await?;
        let mut published = 0.0;
        for _ in 0..60 {
            published = published_events(&jetstream).await?;
            if published >= counted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        figures.note("edge_calls_counted", counted);
        figures.note("edge_calls_published", published);
        figures.note("edge_calls_lost", self.metric("keymeter_edge_lost_events_total").await?);
        Ok(())
    }

    /// The sum of a metric of the edge over all its labels.
    async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = parts::get(&self.health, "/metrics").await?.body;
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }
}

/// An edge with its spool in `folder`, where `feed-keys` is.
pub(crate) async fn edge(
    addr: &str,
    health: &str,
    upstream: &str,
    nats: &str,
    folder: &Path,
    more: &[(&str, &str)],
) -> Service {
    let file = |name: &str| folder.join(name).display().to_string();
    let (spool, feed_keys) = (file("spool"), file("feed-keys"));
    let mut environment = vec![
        ("KEYMETER_EDGE_ADDR", addr),
        ("KEYMETER_EDGE_HEALTH_ADDR", health),
        ("KEYMETER_EDGE_UPSTREAM_URL", upstream),
        ("KEYMETER_EDGE_NATS_URL", nats),
        ("KEYMETER_EDGE_SPOOL_DIR", &spool),
        ("KEYMETER_EDGE_FEED_KEYS_FILE", &feed_keys),
    ];
    environment.extend(more);
    let mut edge = Service::spawn("edge", &environment).await;
    edge.wait_ready(health).await;
    edge
}

async fn published_events(jetstream: &jetstream::Context) -> anyhow::Result<f64> {
    let positions = heartbeats(jetstream).await?.into_iter().flat_map(|heartbeat| heartbeat.positions);
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let events = positions.map(|position| position.published_seq).sum::<u64>() as f64;
    Ok(events)
}
