//! Connections from clients: HTTP/1.1 and HTTP/2, told apart by their first bytes. Answers its own paths under
//! `/.keymeter/` and hands on all others.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use boot::Health;
use bytes::Bytes;
use edge_layer::Peer;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::{Service, ServiceExt as _, service_fn};

/// Our own paths, `/.keymeter/healthz` and `/.keymeter/readyz`, so that all others are the API's.
const OWN_PATHS: &str = "/.keymeter";
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after an error of accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// All connections of clients.
#[derive(Default)]
pub(crate) struct Server {
    connections: JoinSet<()>,
    graceful: Option<GracefulShutdown>,
}

impl Server {
    /// Accepts connections and serves them, until dropped; they live on until they are drained or cut.
    pub(crate) async fn serve<S, B>(&mut self, listener: &TcpListener, service: S, health: &Health)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let own = health.router();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                Some(_) = self.connections.join_next() => continue,
            };
            let (service, own) = (service.clone(), own.clone());
            let handler = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer));
                let (service, own) = (service.clone(), own.clone());
                async move {
                    match own_path(request.uri()) {
                        Some(path) => {
                            *request.uri_mut() = path;
                            own.oneshot(request).await.map(|response| response.map(Either::Left))
                        }
                        None => service.oneshot(request).await.map(|response| response.map(Either::Right)),
                    }
                }
            });
            self.spawn(&builder, stream, peer, TowerToHyperService::new(handler));
        }
    }

    fn spawn<S, B>(
        &mut self,
        builder: &auto::Builder<TokioExecutor>,
        stream: TcpStream,
        peer: SocketAddr,
        service: S,
    ) where
        S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Without it a small answer can wait 40 ms; a connection that refuses it is gone anyway.
        let _ = stream.set_nodelay(true);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.get_or_insert_default().watch(connection);
        self.connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(peer.port = peer.port(), %error, "a connection broke");
            }
        });
    }

    /// Lets running calls end and takes no new ones.
    pub(crate) async fn drained(&mut self) {
        if let Some(graceful) = self.graceful.take() {
            graceful.shutdown().await;
        }
    }

    /// Ends all connections at once.
    pub(crate) async fn cut(&mut self) {
        self.connections.shutdown().await;
    }
}

/// What follows our own prefix.
fn own_path(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix(OWN_PATHS)?;
    if rest.starts_with('/') { rest.parse().ok() } else { None }
}
