//! One edge: its spool, its keys, and the tasks that keep both current. Hands out the layer.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use domain::Environment;
use http::HeaderName;
use time::OffsetDateTime;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    ack,
    capture::Recorder,
    commits,
    feed::{self, FeedState, Source, WhenFeedLost},
    feed_keys::FeedKeys,
    feed_log::FeedLog,
    forwarded::ForwardedHeader,
    heartbeat,
    key_table::KeyTable,
    layer::{EdgeLayer, Shared},
    limit::{self, RateLimits},
    link::Link,
    metrics::Metrics,
    network::Network,
    publish,
    quota::{self, Quota},
    route::Routes,
    routes::RouteTemplates,
    scopes::RequiredScopes,
    spool::{self, Limits, Spool},
    verdict::Feed,
    watch::{KeysAccess, Watcher},
};

/// Largest segment of the spool, in bytes.
const SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Folder in the spool's with what is kept of the key feed.
const FEED_DIR: &str = "feed";
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
    /// Who this edge is to NATS and keys; without it both are spoken to as their addresses say.
    pub identity: Option<tls::Identity>,
    /// Folder of the spool, for this edge alone.
    pub spool_dir: PathBuf,
    /// Most bytes of the spool.
    pub spool_bytes_max: u64,
    /// Number of shards; the same for all edges and ingest.
    pub shards: u16,
    /// Calls a second of a workspace that are counted at once; what is beyond goes through the bulk shard, and is
    /// counted when there is time.
    pub workspace_calls_per_s: u32,
    /// Written into each event; at most 64 bytes.
    pub region: String,
    /// Where the key feed comes from while NATS is away; without it there is no snapshot of the keys on the disk either.
    pub keys: Option<KeysAccess>,
    /// After how long without a live key feed it counts as lost.
    pub feed_lost_after: Duration,
    /// What becomes of calls then.
    pub when_feed_lost: WhenFeedLost,
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
            identity: None,
            spool_dir: spool_dir.into(),
            spool_bytes_max: 4 << 30,
            shards: 4,
            workspace_calls_per_s: quota::CALLS_PER_S,
            region: String::new(),
            keys: None,
            feed_lost_after: Duration::from_secs(30),
            when_feed_lost: WhenFeedLost::Refuse,
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
    /// Where they come from now; `None` while nothing is heard of them.
    pub source: Option<Source>,
    /// Why the spool cannot be written, or why it has no room ahead; `None` if all is well.
    pub spool: Option<String>,
    /// Rate limits are counted together with all edges; else this edge counts alone.
    pub limits_shared: bool,
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
        let feed_dir = spool_dir.join(FEED_DIR);
        let open = move || {
            let spool = Spool::open(&spool_dir, limits)?;
            let limits = RateLimits::open(&spool_dir, spool.edge_id(), spool.boot_epoch())
                .map_err(|source| spool::OpenError::Io { path: spool_dir, source })?;
            Ok::<_, StartError>((Arc::new(spool), Arc::new(limits)))
        };
        let (spool, limits) =
            tokio::task::spawn_blocking(open).await.expect("opening a spool does not panic")?;
        let feed = Arc::new(FeedState::new(settings.feed_lost_after, settings.when_feed_lost));
        let table = Arc::new(KeyTable::default());
        let log = open_feed_log(feed_dir, &settings.feed_keys, &table, &feed).await;
        let link = Link::connect(
            &settings.nats_url,
            settings.identity.clone(),
            format!("keymeter {}", spool.edge_id()),
        )
        .await?;
        let quota = Arc::new(Quota::new(settings.workspace_calls_per_s));
        let recorder = Recorder {
            spool: spool.clone(),
            metrics: Metrics::new(&spool, &feed, &limits, &quota),
            shards: settings.shards,
            quota,
            is_cutting: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared {
            table,
            feed,
            limits,
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
        let access = settings.keys.map(|keys| (keys, settings.identity));
        edge.spawn_feed(settings.feed_keys, access, log);
        edge.spawn_tasks();
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
        Status {
            nats: self.link.is_up(),
            feed: self.shared.feed.feed(),
            source: self.shared.feed.source(),
            spool: self.spool.stats().failing,
            limits_shared: self.shared.limits.is_shared(),
        }
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
        if self.link.is_up() {
            limit::farewell(&self.link.jetstream.client(), &self.shared.limits).await;
        }
        while self.tasks.join_next().await.is_some() {}
        self.spool.flush();
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

    /// What keeps the keys current: NATS, the keys service if it may be asked, and a note on the disk of what is known.
    fn spawn_feed(
        &mut self,
        keys: FeedKeys,
        access: Option<(KeysAccess, Option<tls::Identity>)>,
        log: Option<Arc<FeedLog>>,
    ) {
        let (table, state) = (self.shared.table.clone(), self.shared.feed.clone());
        let floor = log.as_ref().map_or(0, |log| log.marked());
        if let Some((access, identity)) = access {
            let watcher = Watcher {
                access,
                identity,
                keys: keys.clone(),
                table: table.clone(),
                state: state.clone(),
                log: log.clone(),
                floor,
                edge_id: self.spool.edge_id(),
                boot_epoch: self.spool.boot_epoch(),
            };
            self.tasks.spawn(watcher.run(self.stop.clone()));
        }
        let (noted, stop) = (state.clone(), self.stop.clone());
        self.tasks.spawn(async move { _ = stop.run_until_cancelled(noted.note(log)).await });
        self.tasks.spawn(feed::run(self.link.clone(), keys, table, state, floor, self.stop.clone()));
    }

    fn spawn_tasks(&mut self) {
        let (link, stop, edge_id) = (self.link.clone(), self.stop.clone(), self.spool.edge_id());
        let feed = self.shared.feed.clone();
        self.tasks.spawn(async move {
            let work = |jetstream| {
                let acks = ack::run(jetstream, edge_id, feed.clone());
                async move { acks.await.map(|never| match never {}) }
            };
            link.on_each_connection("acknowledge the key feed", &stop, work).await;
        });

        let (link, stop) = (self.link.clone(), self.stop.clone());
        self.tasks.spawn(async move { link.keep_useful(&stop).await });
        let (stop, spool) = (self.stop.clone(), self.spool.clone());
        self.tasks.spawn(async move { _ = stop.run_until_cancelled(spool.flush_for_ever()).await });
        let (spool, stop) = (self.spool.clone(), self.stop.clone());
        self.tasks.spawn(async move { _ = stop.run_until_cancelled(spool.keep_reserve_for_ever()).await });

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

        let (link, stop, limits) = (self.link.clone(), self.stop.clone(), self.shared.limits.clone());
        self.tasks.spawn(async move {
            let work =
                |jetstream: async_nats::jetstream::Context| limit::gossip(jetstream.client(), limits.clone());
            link.on_each_connection("tell other edges of rate limits", &stop, work).await;
        });
        self.tasks.spawn(limit::keep(self.shared.limits.clone(), self.stop.clone()));
    }
}

/// The folder of what is kept of the key feed, and what it has: an edge that starts serves from it at once if it is not
/// too old. Without it the edge works as well.
async fn open_feed_log(
    folder: PathBuf,
    keys: &FeedKeys,
    table: &KeyTable,
    feed: &FeedState,
) -> Option<Arc<FeedLog>> {
    let keys = keys.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let log = FeedLog::open(&folder)?;
        let loaded = log.load(&keys, OffsetDateTime::now_utc());
        Ok::<_, std::io::Error>((log, loaded))
    })
    .await
    .expect("reading a snapshot does not panic");
    let (log, loaded) = opened
        .inspect_err(|error| tracing::warn!(%error, "no snapshot of the keys is kept beside the spool"))
        .ok()?;
    if let Some(loaded) = loaded {
        table.absorb(&loaded.table);
        feed.has_applied(loaded.version);
        feed.was_current(loaded.age);
        tracing::info!(
            feed.version = loaded.version,
            feed.age_s = loaded.age.as_secs(),
            secrets = table.len(),
            "the keys are known from the disk"
        );
    }
    Some(Arc::new(log))
}
