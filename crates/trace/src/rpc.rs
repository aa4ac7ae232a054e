//! gRPC: a span around each call, of who serves it and of who makes it, and `traceparent` between them.

use std::{
    pin::Pin,
    task::{Context as Task, Poll},
};

use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::{
    KeyValue,
    trace::{SpanBuilder, SpanKind},
};
use opentelemetry_semantic_conventions::attribute::{RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME};
use tower::{Layer, Service};

use crate::{Span, current, extract, inject, is_on, within};

/// Names by number, as gRPC has them.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Of these a server is to blame itself.
const FAULTS_OF_SERVER: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
/// A method that nobody knows, so that strangers make up no names of spans.
const OTHER: &str = "_OTHER";

/// A method that a server knows, by its full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// Calls of it have spans.
    Always(&'a str),
    /// Calls of it have spans if whoever calls has one: else each look at a server's health would be a trace.
    WithCaller(&'a str),
}

/// Which method is at a path, `/package.Service/Method`; `None` if there is none.
pub type NameOf = for<'a> fn(&'a str) -> Option<Named<'a>>;

/// Around the calls that a server answers.
#[derive(Debug, Clone, Copy)]
pub struct ServerLayer {
    name_of: NameOf,
}

impl ServerLayer {
    /// For the methods that `name_of` names.
    #[must_use]
    pub const fn new(name_of: NameOf) -> Self {
        Self { name_of }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server { inner, name_of: self.name_of }
    }
}

/// A server's services with spans around each call.
#[derive(Debug, Clone)]
pub struct Server<S> {
    inner: S,
    name_of: NameOf,
}

/// A client's channel with spans around each call.
#[derive(Debug, Clone)]
pub struct Client<S>(pub S);

type Answering<B, E> = Pin<Box<dyn Future<Output = Result<Response<Answer<B>>, E>> + Send>>;

impl<S, I, O> Service<Request<I>> for Server<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer<O>>;
    type Error = S::Error;
    type Future = Answering<O, S::Error>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let caller = if is_on() { extract(request.headers()) } else { None };
        let span = match (self.name_of)(request.uri().path()).unwrap_or(Named::Always(OTHER)) {
            Named::WithCaller(_) if caller.is_none() => None,
            Named::Always(method) | Named::WithCaller(method) => {
                Span::begin(caller, || builder(SpanKind::Server, method))
            }
        };
        let call = Call { span, is_server: true };
        let answer = within(call.span.as_ref(), self.inner.call(request));
        answer.map(|answer| answer.map(|answer| call.answered(answer))).boxed()
    }
}

impl<S, I, O> Service<Request<I>> for Client<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    O: 'static,
{
    type Response = Response<Answer<O>>;
    type Error = S::Error;
    type Future = Answering<O, S::Error>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<I>) -> Self::Future {
        let span = Span::child(|| builder(SpanKind::Client, request.uri().path().trim_start_matches('/')));
        if let Some(caller) = span.as_ref().map(Span::ids).or_else(current) {
            inject(&caller, request.headers_mut());
        }
        let call = Call { span, is_server: false };
        let answer = within(call.span.as_ref(), self.0.call(request));
        let told = move |answer: Result<Response<O>, S::Error>| match answer {
            Ok(answer) => Ok(call.answered(answer)),
            Err(error) => {
                // No answer at all is what a client's library calls so.
                call.ended("UNAVAILABLE");
                Err(error)
            }
        };
        answer.map(told).boxed()
    }
}

fn builder(kind: SpanKind, method: &str) -> SpanBuilder {
    let attributes = [KeyValue::new(RPC_SYSTEM_NAME, "grpc"), KeyValue::new(RPC_METHOD, method.to_owned())];
    SpanBuilder::from_name(method.to_owned()).with_kind(kind).with_attributes(attributes)
}

/// A call that runs.
#[derive(Debug)]
struct Call {
    span: Option<Span>,
    is_server: bool,
}

impl Call {
    fn answered<B>(self, answer: Response<B>) -> Response<Answer<B>> {
        // An answer without a body has its status here.
        self.note(answer.headers());
        answer.map(|body| Answer { body, call: self })
    }

    fn note(&self, headers: &HeaderMap) {
        let code = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if let Some(code) = code {
            self.ended(CODES.get(code).copied().unwrap_or("UNKNOWN"));
        }
    }

    fn ended(&self, code: &'static str) {
        let Some(span) = &self.span else { return };
        span.set(RPC_RESPONSE_STATUS_CODE, code);
        if code != "OK" && (!self.is_server || FAULTS_OF_SERVER.contains(&code)) {
            span.failed(code);
        }
    }
}

/// The body of an answer: the call ends with it, and its last frame has the status.
#[derive(Debug)]
pub struct Answer<B> {
    body: B,
    call: Call,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        // A server's stream is made as it is read.
        let _in_span = self.call.span.as_ref().map(|span| span.context().clone().attach());
        let frame = Pin::new(&mut self.body).poll_frame(task);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.note(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for Answer<B> {
    fn default() -> Self {
        Self { body: B::default(), call: Call { span: None, is_server: false } }
    }
}
