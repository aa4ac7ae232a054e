//! One admitted call, passed on and answered. Streams both ways; sends a call again only if that cannot make it
//! happen twice.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use domain::Origin;
use edge_layer::{Problem, Tunnel};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header::CONNECTION, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::{
    exchange::{AnswerError, Exchange, Fault, duplex::Duplex, head::Head, http2},
    guard::{GuardError, Guarded},
    headers::{self, Asker, Believed},
    metrics::Metrics,
    strict,
    timeouts::Timeouts,
    tunnel::{self, Ends},
    upstream::{
        Protocol,
        connect::ConnectError,
        pool::{Tried, Upstreams},
    },
    worker::Worker,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Passes the calls of one thread on to the API.
pub(crate) struct Proxy<B> {
    pub(crate) upstreams: Rc<Upstreams<Guarded<B>>>,
    pub(crate) protocol: Protocol,
    pub(crate) timeouts: Timeouts,
    pub(crate) request_body_bytes_max: u64,
    pub(crate) believed: Believed,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) worker: Rc<Worker>,
}

impl<B> Proxy<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    /// The API's answer.
    pub(crate) async fn pass(
        &self,
        mut request: Request<B>,
        asker: &Asker,
    ) -> Result<Response<AnswerBody<B>>, Problem> {
        if request.method() == Method::CONNECT {
            return Err(Problem::ConnectRefused);
        }
        strict::check(&request)?;
        let protocol = headers::strip_hop_by_hop(request.headers_mut())
            .filter(|_| self.protocol == Protocol::Http1 && request.version() == Version::HTTP_11)
            .filter(strict::may_upgrade);
        let upgrade = protocol.map(|protocol| {
            let ends = Ends {
                client: hyper::upgrade::on(&mut request),
                call: request.extensions().get::<Tunnel>().and_then(Tunnel::hold),
            };
            headers::set_upgrade(request.headers_mut(), protocol);
            ends
        });
        let (mut head, body) = request.into_parts();
        self.believed.keep(&mut head.headers, asker);
        headers::forward(&mut head.headers, &head.uri, asker);
        let body = Guarded::new(body, self.request_body_bytes_max)
            .map_err(|error| problem(&Fault::Request(error)))?;
        match self.protocol {
            Protocol::Http1 => self.over_http1(&head, body, upgrade).await,
            Protocol::Http2 => Box::pin(self.over_http2(head, body)).await,
        }
    }

    async fn over_http1(
        &self,
        head: &request::Parts,
        body: Guarded<B>,
        upgrade: Option<Ends>,
    ) -> Result<Response<AnswerBody<B>>, Problem> {
        let may_repeat = head.method.is_idempotent() && body.is_end_stream();
        let mut body = Some(body);
        let (mut tried, mut is_second) = (Tried::default(), false);
        while let Some(sent) = body.take() {
            let (turn, connection) = self
                .upstreams
                .connection(&mut tried, is_second)
                .await
                .map_err(|error| unreachable(&error))?;
            let is_used = connection.is_used;
            let (fault, unsent) = match Exchange::start(turn, connection, head, sent, &self.timeouts).await {
                Ok((answer, exchange)) => return self.answer(answer, exchange, upgrade),
                Err(unanswered) => unanswered,
            };
            // The API closed an idle connection just then. A call that may have an effect, and may have had it, is
            // not sent again.
            let was_stale = matches!(fault, Fault::Closed) && is_used;
            if !(was_stale && may_repeat && !is_second) {
                return Err(problem(&fault));
            }
            (is_second, tried, body) = (true, Tried::default(), unsent);
            self.metrics.retried();
        }
        Err(Problem::UpstreamFailed)
    }

    fn answer(
        &self,
        mut head: Head,
        mut exchange: Box<Exchange<B>>,
        upgrade: Option<Ends>,
    ) -> Result<Response<AnswerBody<B>>, Problem> {
        let protocol: Option<HeaderValue> = headers::strip_hop_by_hop(&mut head.headers);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it, or it does not say to what.
            let (Some(ends), Some(protocol), Some(api)) = (upgrade, protocol, exchange.upgrade()) else {
                return Err(Problem::UpstreamFailed);
            };
            headers::set_upgrade(&mut head.headers, protocol);
            let idle = self.timeouts.tunnel_idle;
            self.worker.spawn(tunnel::join(ends, api, idle, self.worker.clone()));
            return Ok(response(head, AnswerBody::Whole(Full::default())));
        }
        if exchange.is_uploading() {
            return Ok(response(head, AnswerBody::Duplex(Duplex::start(exchange, &self.worker))));
        }
        Ok(response(head, AnswerBody::Http1(exchange)))
    }

    async fn over_http2(
        &self,
        head: request::Parts,
        body: Guarded<B>,
    ) -> Result<Response<AnswerBody<B>>, Problem> {
        let mut tried = Tried::default();
        let mut turn = self.upstreams.choose(&mut tried).ok_or(Problem::UpstreamUnreachable)?;
        let mut is_second = false;
        let mut request = http2::request(&turn, head, body).map_err(|_| Problem::BadRequest)?;
        loop {
            let place = match http2::place(&self.upstreams, &turn, is_second).await {
                Ok(place) => place,
                Err(error) => {
                    turn = self.upstreams.choose(&mut tried).ok_or_else(|| unreachable(&error))?;
                    continue;
                }
            };
            let (fault, unsent) = match http2::call(turn, place, request, &self.timeouts).await {
                Ok(answer) => return Ok(stripped(answer.map(|body| AnswerBody::Http2(Box::new(body))))),
                Err(http2::Unanswered(fault, unsent)) => (fault, unsent),
            };
            // Nothing of it was sent, so it can be sent whatever it is.
            let Some(unsent) = unsent.filter(|_| !is_second) else { return Err(problem(&fault)) };
            (is_second, tried, request) = (true, Tried::default(), unsent);
            turn = self.upstreams.choose(&mut tried).ok_or(Problem::UpstreamUnreachable)?;
            self.metrics.retried();
        }
    }
}

/// What the problem looks like from outside, on the edge's account.
pub(crate) fn refusal<B>(problem: Problem, request_id: domain::RequestId) -> Response<AnswerBody<B>> {
    let mut response = problem.response(request_id).map(AnswerBody::Whole);
    response.extensions_mut().insert(Origin::Edge);
    if problem == Problem::BadRequest {
        // What follows on the connection may be no request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn response<B>(head: Head, body: AnswerBody<B>) -> Response<AnswerBody<B>> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

fn stripped<B>(mut response: Response<B>) -> Response<B> {
    headers::strip_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response
}

fn unreachable(error: &ConnectError) -> Problem {
    match error {
        ConnectError::Timeout => Problem::UpstreamTimeout,
        ConnectError::Io(_) => Problem::UpstreamUnreachable,
    }
}

fn problem(fault: &Fault) -> Problem {
    tracing::debug!(error = fault as &dyn std::error::Error, "a call got no answer from the API");
    match fault {
        Fault::Request(GuardError::TooLarge) => Problem::BodyTooLarge,
        Fault::Request(GuardError::Client(_)) => Problem::ClientGone,
        Fault::Request(GuardError::Malformed) => Problem::BadRequest,
        Fault::RequestTimeout => Problem::RequestTimeout,
        Fault::Timeout => Problem::UpstreamTimeout,
        Fault::Closed | Fault::Broken(_) => Problem::UpstreamFailed,
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody<B> {
    /// Comes over HTTP/1.1.
    Http1(Box<Exchange<B>>),
    /// Comes over HTTP/1.1, while the request still goes on.
    Duplex(Duplex),
    /// Comes over HTTP/2.
    Http2(Box<http2::Streamed<B>>),
    /// Is here.
    Whole(Full<Bytes>),
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Duplex(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Duplex(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Duplex(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Whole(body) => body.size_hint(),
        }
    }
}
