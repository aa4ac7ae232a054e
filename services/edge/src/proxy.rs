//! The inner service: one admitted call, passed on and answered. Streams both ways, never retries.

use std::{
    convert::Infallible,
    error::Error as StdError,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use domain::Origin;
use edge_layer::{Caller, Peer, Problem, RequestBody, Tunnel};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower::Service;

use crate::{
    headers,
    pace::{Pace, Paced},
    tunnel::Tunnels,
    upstream::Upstream,
};

/// How long the API may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the API may take to begin its answer once it has the request, or to take more of the request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Below the 5 s after which common servers close an idle connection themselves.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

type Body = Either<Incoming, Full<Bytes>>;

/// Passes calls on to the API.
#[derive(Clone)]
pub(crate) struct Proxy {
    client: Client<HttpConnector, Paced<RequestBody<Incoming>>>,
    upstream: Arc<Upstream>,
    tunnels: Tunnels,
}

impl Proxy {
    /// A proxy to `upstream`; upgraded connections go to `tunnels`.
    pub(crate) fn new(upstream: Upstream, tunnels: Tunnels) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .set_host(false)
            .build(connector);
        Self { client, upstream: Arc::new(upstream), tunnels }
    }

    async fn pass(self, mut request: Request<RequestBody<Incoming>>) -> Result<Response<Body>, Problem> {
        if request.method() == Method::CONNECT {
            return Err(Problem::ConnectRefused);
        }
        let from_client = hyper::upgrade::on(&mut request);
        let tunnel = request.extensions().get::<Tunnel>().cloned();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let asked = request.uri().clone();
        *request.uri_mut() = self.upstream.address(&asked).map_err(|_| Problem::UpstreamFailed)?;
        *request.version_mut() = Version::HTTP_11;
        let protocol = headers::strip_hop_by_hop(request.headers_mut());
        headers::forward(request.headers_mut(), &asked, peer);
        let wants_upgrade = protocol.is_some();
        if let Some(protocol) = protocol {
            headers::set_upgrade(request.headers_mut(), protocol);
        }
        let pace = Pace::start();
        let (head, body) = request.into_parts();
        // What is in the extensions is for this process.
        let mut request = Request::new(pace.watch(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (head.method, head.uri, head.headers);
        let response = tokio::select! {
            response = self.client.request(request) => response.map_err(|error| problem(&error))?,
            () = pace.rest(ANSWER_TIMEOUT) => return Err(Problem::UpstreamTimeout),
        };
        self.answer(response, tunnel.filter(|_| wants_upgrade), from_client)
    }

    fn answer(
        &self,
        mut response: Response<Incoming>,
        tunnel: Option<Tunnel>,
        from_client: OnUpgrade,
    ) -> Result<Response<Body>, Problem> {
        let to_api = hyper::upgrade::on(&mut response);
        let protocol = headers::strip_hop_by_hop(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let held = tunnel.and_then(|tunnel| tunnel.hold()).ok_or(Problem::UpstreamFailed)?;
            headers::set_upgrade(response.headers_mut(), protocol.ok_or(Problem::UpstreamFailed)?);
            self.tunnels.join(from_client, to_api, held);
        }
        Ok(response.map(Either::Left))
    }
}

impl Service<Request<RequestBody<Incoming>>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Incoming>>) -> Self::Future {
        let caller = request.extensions().get::<Caller>().copied().expect("the layer puts it there");
        let proxy = self.clone();
        Box::pin(async move {
            Ok(proxy.pass(request).await.unwrap_or_else(|problem| {
                let mut response = problem.response(caller.request_id).map(Either::Right);
                response.extensions_mut().insert(Origin::Edge);
                response
            }))
        })
    }
}

/// What went wrong between here and the API.
fn problem(error: &hyper_util::client::legacy::Error) -> Problem {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    let (mut is_timeout, mut is_client) = (false, false);
    while let Some(cause) = source {
        is_timeout |=
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
        is_client |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user);
        source = cause.source();
    }
    match (is_client, is_timeout, error.is_connect()) {
        (true, ..) => Problem::ClientGone,
        (_, true, _) => Problem::UpstreamTimeout,
        (_, _, true) => Problem::UpstreamUnreachable,
        _ => Problem::UpstreamFailed,
    }
}
