//! One edge: its spool, its keys, and the tasks that keep both current. Hands out the layer.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use domain::Environment;
use http::HeaderName;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    ack,
    capture::Recorder,
    commits,
    feed::{self, FeedState},
    feed_keys::FeedKeys,
    forwarded::ForwardedHeader,
    heartbeat,
    key_table::KeyTable,
    layer::{EdgeLayer, Shared},
    link::Link,
    metrics::Metrics,
    network::Network,
    publish,
    route::Routes,
    routes::RouteTemplates,
    scopes::RequiredScopes,
    spool::{self, Limits, Spool},
    verdict::Feed,
};

/// Largest segment of the spool, in bytes.
const SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A spool has room for at least so many segments, so that dropping one is a small loss.
const SEGMENTS_MIN: u64 = 8;
/// How long events wait at a new connection for what ClickHouse has of them.
const COMMITS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the end of a flush is looked for.
const FLUSH_POLL: Duration = Duration::from_millis(20);

/// Most routes of a workspace and day, if nothing else is asked for.
const ROUTES_MAX: usize = 1000;

/// What an edge is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of NATS, `nats://host:port`.
    pub nats_url: String,
    /// Folder of the spool, for this edge alone.
    pub spool_dir: PathBuf,
    /// Most bytes of the spool.
    pub spool_bytes_max: u64,
    /// Number of shards; the same for all edges and ingest.
    pub shards: u16,
    /// Written into each event; at most 64 bytes.
    pub region: String,
    /// After how long without a live key feed every call is refused.
    pub feed_lost_after: Duration,
    /// What the key feed is checked with.
    pub feed_keys: FeedKeys,
    /// Which scope a route requires.
    pub required_scopes: RequiredScopes,
    /// Proxies that are believed whom they forward for.
    pub trusted_proxies: Vec<Network>,
    /// Which header of theirs is.
    pub forwarded_header: ForwardedHeader,
    /// The API's routes by their templates; a path that fits none gets a route by its looks.
    pub routes: RouteTemplates,
    /// Most routes of a workspace and UTC day; at least as many as there are templates.
    pub routes_max: usize,
    /// A header of the API's answers that names the resource id.
    pub resource_id_header: Option<HeaderName>,
    /// Keys of the other environment are refused; `None` admits both.
    pub environment: Option<Environment>,
    /// Whether the inner service gets `Authorization`, `Proxy-Authorization` and `X-API-Key`.
    pub forward_credentials: bool,
}

impl Settings {
    /// Settings for an edge alone, with what most edges have: 4 shards, a spool of 4 GiB, calls refused after 30 s
    /// without a live key feed, and nothing that is not asked for.
    #[must_use]
    pub fn new(nats_url: impl Into<String>, spool_dir: impl Into<PathBuf>, feed_keys: FeedKeys) -> Self {
        Self {
            nats_url: nats_url.into(),
            spool_dir: spool_dir.into(),
            spool_bytes_max: 4 << 30,
            shards: 4,
            region: String::new(),
            feed_lost_after: Duration::from_secs(30),
            feed_keys,
            required_scopes: RequiredScopes::default(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            routes: RouteTemplates::default(),
            routes_max: ROUTES_MAX,
            resource_id_header: None,
            environment: None,
            forward_credentials: false,
        }
    }
}

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spool's folder.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    /// More routes are named than a workspace may have.
    #[error("{named} routes are named, and at most {routes_max} are allowed: raise that, or name fewer")]
    Routes {
        /// How many are named.
        named: usize,
        /// How many are allowed.
        routes_max: usize,
    },
    /// The address of NATS.
    #[error("the address of NATS cannot be used")]
    Nats(#[from] async_nats::ConnectError),
}

/// What an edge has and lacks right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// NATS is connected.
    pub nats: bool,
    /// The keys are known and current.
    pub feed: Feed,
    /// Why the spool cannot be written; `None` if it can.
    pub spool: Option<String>,
}

/// A running edge. End it with [`Self::close`]; dropped, it stops at once and the spool keeps what was not sent.
#[derive(Debug)]
pub struct Edge {
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    link: Link,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Edge {
    /// Opens the spool, finishes what an earlier start left, and starts to follow the keys and to publish. Waits
    /// for nothing: until the first snapshot of the keys, calls are refused.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let (named, routes_max) = (settings.routes.len(), settings.routes_max);
        if named > routes_max {
            return Err(StartError::Routes { named, routes_max });
        }
        let bytes_max = settings.spool_bytes_max;
        let limits = Limits { bytes_max, segment_bytes_max: SEGMENT_BYTES_MAX.min(bytes_max / SEGMENTS_MIN) };
        let spool_dir = settings.spool_dir;
        let opened = tokio::task::spawn_blocking(move || Spool::open(&spool_dir, limits)).await;
        let spool = Arc::new(opened.expect("opening a spool does not panic")?);
        let feed = Arc::new(FeedState::new(settings.feed_lost_after));
        let link = Link::connect(&settings.nats_url, format!("keymeter {}", spool.edge_id())).await?;
        let recorder = Recorder {
            spool: spool.clone(),
            metrics: Metrics::new(&spool, &feed),
            shards: settings.shards,
            is_cutting: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared {
            table: Arc::new(KeyTable::default()),
            feed,
            recorder: Arc::new(recorder),
            routes: Routes::new(settings.routes, routes_max),
            region: settings.region,
            required_scopes: settings.required_scopes,
            trusted_proxies: settings.trusted_proxies,
            forwarded_header: settings.forwarded_header,
            resource_id_header: settings.resource_id_header,
            environment: settings.environment,
            forward_credentials: settings.forward_credentials,
        });
        let mut edge = Self { shared, spool, link, stop: CancellationToken::new(), tasks: JoinSet::new() };
        edge.spawn_tasks(settings.feed_keys);
        Ok(edge)
    }

    /// The layer; every service that it is put before shares this edge.
    #[must_use]
    pub fn layer(&self) -> EdgeLayer {
        EdgeLayer(self.shared.clone())
    }

    /// What there is and what is missing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { nats: self.link.is_up(), feed: self.shared.feed.feed(), spool: self.spool.stats().failing }
    }

    /// The edge's id, `edge_` and 26 characters.
    #[must_use]
    pub fn edge_id(&self) -> domain::EdgeId {
        self.spool.edge_id()
    }

    /// From now on a call that ends without a complete answer was cut short by this edge, and says so.
    pub fn cut(&self) {
        self.shared.recorder.is_cutting.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Publishes what is left and waits for ClickHouse to have it, each for at most `within`; leaves the list of
    /// edges if nothing is outstanding. What is not published stays in the spool for the next start. To be called
    /// when no call is running.
    pub async fn close(mut self, within: Duration) {
        let published = self.wait(within, Spool::is_published).await;
        let committed = published && self.wait(within, Spool::is_committed).await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if !published {
            tracing::warn!(
                "some events are not published; they stay in the spool and are sent after the next start"
            );
        } else if committed && let Err(error) = heartbeat::leave(&self.link.jetstream, &self.spool).await {
            tracing::info!(%error, "this edge stays listed");
        }
    }

    async fn wait(&self, within: Duration, is_done: fn(&Spool) -> bool) -> bool {
        let poll = async {
            while !is_done(&self.spool) {
                tokio::time::sleep(FLUSH_POLL).await;
            }
        };
        timeout(within, poll).await.is_ok()
    }

    fn spawn_tasks(&mut self, feed_keys: FeedKeys) {
        let (link, stop) = (self.link.clone(), self.stop.clone());
        let (table, feed) = (self.shared.table.clone(), self.shared.feed.clone());
        self.tasks.spawn(feed::run(link, feed_keys, table, feed, stop));

        let (link, stop, edge_id) = (self.link.clone(), self.stop.clone(), self.spool.edge_id());
        let feed = self.shared.feed.clone();
        self.tasks.spawn(async move {
            let work = |jetstream| {
                let acks = ack::run(jetstream, edge_id, feed.clone());
                async move { acks.await.map(|never| match never {}) }
            };
            link.on_each_connection("acknowledge the key feed", &stop, work).await;
        });

        let are_commits_current = Arc::new(watch::Sender::new(false));
        let commits_current = are_commits_current.subscribe();
        let (link, stop, spool) = (self.link.clone(), self.stop.clone(), self.spool.clone());
        self.tasks.spawn(async move {
            let work = |jetstream| commits::run(jetstream, spool.clone(), are_commits_current.clone());
            link.on_each_connection("follow the commits", &stop, work).await;
        });

        let (link, stop, spool) = (self.link.clone(), self.stop.clone(), self.spool.clone());
        self.tasks.spawn(async move {
            let work = |jetstream| {
                let (spool, mut commits_current) = (spool.clone(), commits_current.clone());
                async move {
                    // Only spares sending what is committed; without it ingest drops that.
                    let _ =
                        timeout(COMMITS_TIMEOUT, commits_current.wait_for(|is_current| *is_current)).await;
                    publish::run(jetstream, spool).await
                }
            };
            link.on_each_connection("publish events", &stop, work).await;
        });

        let (link, stop, spool) = (self.link.clone(), self.stop.clone(), self.spool.clone());
        let feed = self.shared.feed.clone();
        self.tasks.spawn(async move {
            let work = |jetstream| heartbeat::run(jetstream, spool.clone(), feed.clone());
            link.on_each_connection("write heartbeats", &stop, work).await;
        });
    }
}
