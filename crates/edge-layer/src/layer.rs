//! The tower layer: verify, hand on, record. It waits for nothing but the inner service.

use std::{
    borrow::Cow,
    convert::Infallible,
    error::Error as StdError,
    fmt::Write as _,
    future::Future,
    net::Ipv6Addr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use domain::{Denial, Environment, KeyId, Origin, RequestId, WorkspaceId};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::UPGRADE};
use http_body::Body;
use http_body_util::{Either, Full};
use proto::event_bytes;
use time::OffsetDateTime;
use tower::{Layer, Service};
use trace::Traceparent;

use crate::{
    caller::{self, Peer, X_REQUEST_ID},
    capture::{Call, Recorder, RequestBody, ResponseBody, Tunnel},
    credential,
    feed::FeedState,
    forwarded::ForwardedHeader,
    grpc,
    key_table::{KeyEntry, KeyTable},
    limit::{Checked, RateLimits},
    network::{self, Network},
    problem::Problem,
    resource,
    route::{Routes, clean, cut},
    scopes::RequiredScopes,
    spans,
    template::{Segment, segments},
    verdict::{Asked, Verdict, decide},
};

/// Longest method kept, in bytes.
const METHOD_BYTES_MAX: usize = 32;

type BoxError = Box<dyn StdError + Send + Sync>;
/// The body of every answer: the inner service's or a refusal, counted.
pub type AnswerBody<B> = ResponseBody<Either<B, Full<Bytes>>>;

/// In the extensions of each request that reaches the inner service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// The request's id, as in `X-Request-Id`.
    pub request_id: RequestId,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: Arc<KeyTable>,
    pub(crate) feed: Arc<FeedState>,
    pub(crate) limits: Arc<RateLimits>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) routes: Routes,
    pub(crate) region: String,
    pub(crate) required_scopes: RequiredScopes,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) forwarded_header: ForwardedHeader,
    pub(crate) resource_id_header: Option<HeaderName>,
    pub(crate) environment: Option<Environment>,
    pub(crate) forward_credentials: bool,
}

/// Puts verification and capture before a service. The inner service is asked only for admitted calls, without
/// their credentials (unless they are to be forwarded), and with [`Caller`] in the extensions, and [`Tunnel`] if the
/// connection may become one. An answer that carries [`Origin::Edge`] in its extensions counts as ours, any other as the
/// API's.
#[derive(Debug, Clone)]
pub struct EdgeLayer(pub(crate) Arc<Shared>);

impl EdgeLayer {
    /// What the layer does, around a service that is a function: nothing is boxed, and nothing has to leave the
    /// thread.
    pub fn around<F, Fut, I, O, E>(
        &self,
        request: Request<I>,
        inner: F,
    ) -> impl Future<Output = Response<AnswerBody<O>>> + use<F, Fut, I, O, E>
    where
        F: FnMut(Request<RequestBody<I>>) -> Fut,
        Fut: Future<Output = Result<Response<O>, E>>,
        E: Into<BoxError>,
        O: Body<Data = Bytes>,
        O::Error: Into<BoxError>,
    {
        self.0.clone().answer(tower::service_fn(inner), request, Arrival::now())
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = EdgeService<S>;

    fn layer(&self, inner: S) -> EdgeService<S> {
        EdgeService { inner, shared: self.0.clone() }
    }
}

/// A service behind [`EdgeLayer`]; it never fails, since a failure of the inner one becomes an answer.
#[derive(Debug, Clone)]
pub struct EdgeService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, I, O> Service<Request<I>> for EdgeService<S>
where
    S: Service<Request<RequestBody<I>>, Response = Response<O>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    I: Send + 'static,
    O: Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody<O>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An inner service that failed for good says so at its next call, which is an answer then.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let shared = self.shared.clone();
        let arrival = Arrival::now();
        Box::pin(shared.answer(inner, request, arrival).map(Ok))
    }
}

/// When a request came, and its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) started: Instant,
    pub(crate) at: OffsetDateTime,
    pub(crate) id: RequestId,
}

impl Arrival {
    pub(crate) fn now() -> Self {
        Self { started: Instant::now(), at: OffsetDateTime::now_utc(), id: RequestId::generate() }
    }
}

impl Shared {
    async fn answer<S, I, O>(
        self: Arc<Self>,
        inner: S,
        mut request: Request<I>,
        arrival: Arrival,
    ) -> Response<AnswerBody<O>>
    where
        S: Service<Request<RequestBody<I>>, Response = Response<O>>,
        S::Error: Into<BoxError>,
        O: Body<Data = Bytes>,
        O::Error: Into<BoxError>,
    {
        let grpc = grpc::content_type(request.headers());
        let (hash, environment) = match credential::extract(request.headers()) {
            Ok(found) => found,
            Err(error) => return self.refuse(Problem::Credential(error), grpc, arrival.id),
        };
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let client = network::client(peer, request.headers(), &self.trusted_proxies, self.forwarded_header);
        let are_needed = !self.required_scopes.is_empty() || !self.routes.names_none();
        let segments = if are_needed { segments(request.uri().path()) } else { Vec::new() };
        let scope = self.required_scopes.of_segments(request.method().as_str(), &segments);
        let is_foreign = self.environment.is_some_and(|own| own != environment);
        let asked = Asked { at: arrival.at, client, scope, is_foreign };
        let verdict = decide(self.table.get(&hash), self.feed.feed(), asked);
        let (entry, denial) = match verdict {
            Verdict::Admit(entry) => (entry, None),
            Verdict::Refuse(entry, denial) => (entry, Some(denial)),
            Verdict::Unknown => return self.refuse(Problem::UnknownKey, grpc, arrival.id),
            Verdict::Unsure => return self.refuse(Problem::KeysUnavailable, grpc, arrival.id),
        };
        // Last of all, so that only what is admitted otherwise uses limits up.
        let checked = if denial.is_none() { self.limits.check(&entry, arrival.started) } else { None };
        let denial = denial.or_else(|| checked.as_ref().and_then(Checked::denial));
        let call = self.begin(&request, &segments, &entry, client, checked.as_ref(), arrival);
        let mut answer = match denial {
            Some(denial) => Answer::refusal(denial, arrival.id, checked.as_ref().map(Checked::name)),
            None => {
                self.prepare(&mut request, &entry, &call, arrival.id);
                let request = request.map(|body| RequestBody::new(body, call.counters()));
                match call.span() {
                    None => ask(inner, request, arrival.id).await,
                    // Boxed, so that the others need no more room for it.
                    span => Box::pin(trace::within(span, ask(inner, request, arrival.id))).await,
                }
            }
        };
        if answer.origin == Origin::Upstream
            && let Some(id) = resource::named(&answer.response, self.resource_id_header.as_ref())
        {
            call.is_about(&id);
        }
        let status = answer.response.status();
        if let Some(content_type) = grpc {
            answer.response = grpc::shape(answer.response, content_type);
        }
        checked.iter().for_each(|checked| checked.tell(answer.response.headers_mut()));
        call.answered(status.as_u16(), answer.origin, answer.denial).await;
        finish(answer.response, Some(call), arrival.id)
    }

    /// An answer to a call that is on nobody's record.
    fn refuse<O>(&self, problem: Problem, grpc: Option<HeaderValue>, id: RequestId) -> Response<AnswerBody<O>>
    where
        O: Body<Data = Bytes>,
        O::Error: Into<BoxError>,
    {
        self.recorder.metrics.unattributed(problem);
        let response = problem.response(id).map(Either::Right);
        let response = match grpc {
            Some(content_type) => grpc::shape(response, content_type),
            None => response,
        };
        finish(response, None, id)
    }

    /// A call of a known key: what is known of it by now.
    pub(crate) fn begin<I>(
        &self,
        request: &Request<I>,
        segments: &[Segment<'_>],
        entry: &KeyEntry,
        client: Option<Ipv6Addr>,
        checked: Option<&Checked<'_>>,
        arrival: Arrival,
    ) -> Arc<Call> {
        let headers = request.headers();
        let parent = Traceparent::of(headers);
        let path = clean(request.uri().path().as_bytes(), domain::event::PATH_BYTES_MAX);
        let method = method(request.method().as_str());
        let (route, resource_id) = self.routes.of(entry.workspace_id, &method, segments, &path, arrival.at);
        let mut event = event_bytes::Beginning {
            workspace_id: entry.workspace_id,
            key_id: entry.key_id,
            secret_id: entry.secret_id,
            request_id: arrival.id,
            client_request_id: &caller::client_request_id(headers),
            occurred_at: arrival.at,
            method: &method,
            route: &route,
            path: &path,
            resource_id: &resource_id,
            limit_name: "",
            limit_window_s: 0,
            limit_remaining: 0,
            client_ip: entry.address_storage.keep(client.unwrap_or(Ipv6Addr::UNSPECIFIED)),
            user_agent: &caller::user_agent(headers),
            region: &self.region,
            trace_id: parent.map_or([0; 16], |parent| parent.trace_id),
            span_id: [0; 8],
        };
        checked.iter().for_each(|checked| checked.record(&mut event));
        let span = spans::of_call(parent.as_ref(), request, &event);
        if let Some(own) = span.as_ref().map(|span| Traceparent::from(&span.ids())) {
            (event.trace_id, event.span_id) = (own.trace_id, own.span_id);
        }
        Call::begin(self.recorder.clone(), arrival.started, &event, span)
    }

    /// Makes the request what the API shall see.
    fn prepare<I>(&self, request: &mut Request<I>, entry: &KeyEntry, call: &Arc<Call>, id: RequestId) {
        if !self.forward_credentials {
            credential::strip(request.headers_mut());
        }
        caller::strip_broken_trace(request.headers_mut());
        if let Some(span) = call.span() {
            trace::inject(&span.ids(), request.headers_mut());
        }
        request.headers_mut().insert(X_REQUEST_ID, id_value(id));
        let caller = Caller { workspace_id: entry.workspace_id, key_id: entry.key_id, request_id: id };
        request.extensions_mut().insert(caller);
        if request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT {
            request.extensions_mut().insert(Tunnel::of(call));
        }
    }
}

/// As it is kept: in upper case, and cut.
fn method(method: &str) -> Cow<'_, str> {
    let method = cut(method, METHOD_BYTES_MAX);
    if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        method.to_ascii_uppercase().into()
    } else {
        method.into()
    }
}

/// What goes back, and on whose account.
struct Answer<O> {
    response: Response<Either<O, Full<Bytes>>>,
    origin: Origin,
    denial: Option<Denial>,
}

impl<O> Answer<O> {
    fn refusal(denial: Denial, id: RequestId, limit: Option<&str>) -> Self {
        let response = Problem::Denied(denial).response_naming(id, limit).map(Either::Right);
        Self { response, origin: Origin::Edge, denial: Some(denial) }
    }

    fn of_edge(response: Response<Full<Bytes>>) -> Self {
        Self { response: response.map(Either::Right), origin: Origin::Edge, denial: None }
    }
}

/// Asks the inner service; an error or a panic of it becomes an answer.
async fn ask<S, B, O>(mut inner: S, request: Request<B>, id: RequestId) -> Answer<O>
where
    S: Service<Request<B>, Response = Response<O>>,
    S::Error: Into<BoxError>,
{
    let answer = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind().await;
    match answer {
        Ok(Ok(response)) => {
            let origin = response.extensions().get().copied().unwrap_or(Origin::Upstream);
            Answer { response: response.map(Either::Left), origin, denial: None }
        }
        Ok(Err(error)) => {
            let error: BoxError = error.into();
            tracing::warn!(request.id = %id, %error, "the service behind the layer failed");
            Answer::of_edge(Problem::UpstreamFailed.response(id))
        }
        Err(_) => {
            tracing::error!(request.id = %id, "the service behind the layer panicked");
            let mut response = Problem::UpstreamFailed.response(id);
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Answer::of_edge(response)
        }
    }
}

fn finish<B: Body>(
    mut response: Response<B>,
    call: Option<Arc<Call>>,
    id: RequestId,
) -> Response<ResponseBody<B>> {
    response.headers_mut().insert(X_REQUEST_ID, id_value(id));
    response.map(|body| ResponseBody::new(body, call))
}

fn id_value(id: RequestId) -> HeaderValue {
    // One allocation; the text is 30 bytes.
    let mut text = String::with_capacity(32);
    let _ = write!(text, "{id}");
    HeaderValue::try_from(text).expect("an id is letters, digits and one underscore")
}
