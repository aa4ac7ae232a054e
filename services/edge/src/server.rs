//! Puts the proxy together from its settings: threads, addresses of the API, probes, certificates. Starts and
//! stops it.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Body;
use rustls::ServerConfig;
use tls::Identity;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    client::Handler,
    guard::Guarded,
    headers::Believed,
    metrics::Metrics,
    proxy::Proxy,
    timeouts::Timeouts,
    upstream::{
        Address, Protocol, Trust,
        connect::Connector,
        health::Health,
        pool::Upstreams,
        probe::{self, Probing},
    },
    workers::Workers,
};

/// How often idle connections to the API are looked through.
const SWEEP: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the proxy runs with.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Threads that serve.
    pub threads: usize,
    /// Most connections of clients.
    pub connections_max: usize,
    /// TLS towards clients.
    pub tls: Option<Arc<ServerConfig>>,
    /// Where the API is: at least one address, at most 64.
    pub upstreams: Vec<Address>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Who may certify it; needed for addresses with TLS.
    pub trust: Option<Trust>,
    /// Who the edge is to it.
    pub identity: Option<Identity>,
    /// Whether and how it is asked for its health.
    pub probing: Option<Probing>,
    /// How long a call may take.
    pub timeouts: Timeouts,
    /// Most bytes of a request's body; 0 is no limit.
    pub request_body_bytes_max: u64,
    /// Whose word the API gets about where a call comes from.
    pub believed: Believed,
    /// How long running calls have to end at shutdown.
    pub drain: Duration,
}

/// A running proxy.
pub(crate) struct Server {
    workers: Workers,
    drain: Duration,
    /// Ended with it.
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts the threads; `make` makes of a proxy what answers.
    ///
    /// # Errors
    /// If a thread cannot be started, or an address not be used.
    pub(crate) fn start<H, B>(
        serving: Serving,
        make: impl Fn(Proxy<B>) -> H + Clone + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        H: Handler,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
    {
        let Serving { protocol, timeouts, request_body_bytes_max, believed, .. } = serving;
        let metrics = Arc::new(Metrics::new(&boot::meter()));
        let connectors = serving.upstreams.into_iter().map(|address| {
            let health = Arc::new(Health::new(address.authority().to_owned(), Instant::now()));
            let connector = Connector::new(
                address,
                protocol,
                (serving.trust.as_ref(), serving.identity.as_ref()),
                timeouts.connect,
            )?;
            Ok((connector, health))
        });
        let connectors = connectors.collect::<anyhow::Result<Vec<_>>>()?;
        let mut tasks = JoinSet::new();
        if let Some(probing) = serving.probing {
            tasks.spawn(probe::run(probing, protocol, connectors.clone()));
        }
        let make = move |worker| {
            let upstreams = Rc::new(Upstreams::<Guarded<B>>::new(connectors.clone(), metrics.clone()));
            tokio::task::spawn_local(sweep(upstreams.clone()));
            let metrics = metrics.clone();
            let believed = believed.clone();
            make(Proxy { upstreams, protocol, timeouts, request_body_bytes_max, believed, metrics, worker })
        };
        let workers = Workers::start(serving.threads, serving.connections_max, serving.tls.as_ref(), &make)?;
        Ok(Self { workers, drain: serving.drain, tasks })
    }

    /// Serves, for ever.
    ///
    /// # Errors
    /// If a thread is gone.
    pub(crate) async fn serve(&self, listener: &TcpListener) -> anyhow::Result<()> {
        self.workers.accept(listener).await
    }

    /// Lets running calls end; calls `cut` before it ends those that take too long.
    pub(crate) async fn stop(mut self, cut: impl FnOnce()) {
        self.workers.stop.drain.cancel();
        if timeout(self.drain, self.workers.ended()).await.is_err() {
            tracing::warn!("some calls are still running: they are cut short");
            cut();
            self.workers.stop.cut.cancel();
            self.workers.ended().await;
        }
        self.tasks.shutdown().await;
    }
}

/// Closes what is idle for too long, for ever.
async fn sweep<B>(upstreams: Rc<Upstreams<B>>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        upstreams.sweep(Instant::now());
    }
}
