//! A span from its beginning to its end, and the work in it.

use std::future::Future;

use futures_util::future::Either;
use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        FutureExt as _, Link, SpanBuilder, SpanContext, Status, TraceContextExt as _, TraceId, Tracer as _,
    },
};
use opentelemetry_semantic_conventions::attribute::ERROR_TYPE;

use crate::{LINKS_MAX, TRACING, Traceparent, Tracing, extract, ids};

/// A span; it ends when this is dropped. It may be of a call that is not sampled: then it is only told on, so that who
/// is called does not sample either.
#[derive(Debug)]
pub struct Span(Context);

impl Span {
    /// The span of work that was asked for by `parent`, or that begins a trace. `None` while nothing is traced.
    #[must_use]
    pub fn begin(parent: Option<SpanContext>, build: impl FnOnce() -> SpanBuilder) -> Option<Self> {
        Some(Self::build(TRACING.get()?, parent, build()))
    }

    /// As [`Self::begin`], of a call with these headers and the `traceparent` in them, but `None` unless the call is
    /// sampled, which is decided before anything is made.
    #[must_use]
    pub fn begin_sampled(
        parent: Option<&Traceparent>,
        headers: &HeaderMap,
        build: impl FnOnce() -> SpanBuilder,
    ) -> Option<Self> {
        let tracing = TRACING.get()?;
        let trace_id = parent.map_or_else(ids::new_trace_id, |parent| TraceId::from_bytes(parent.trace_id));
        let is_sampled = tracing.sampling.samples(parent.map(|parent| parent.flags & 1 == 1), trace_id);
        is_sampled.then(|| ids::beginning_as(trace_id, || Self::build(tracing, extract(headers), build())))
    }

    /// A span in the one that this runs in; `None` if there is none, or it is not sampled.
    #[must_use]
    pub fn child(build: impl FnOnce() -> SpanBuilder) -> Option<Self> {
        let tracing = TRACING.get()?;
        let parent = Context::current();
        parent.span().is_recording().then(|| Self(Self::in_context(tracing, &parent, build())))
    }

    fn build(tracing: &Tracing, parent: Option<SpanContext>, builder: SpanBuilder) -> Self {
        let nothing = Context::new();
        let parent =
            parent.map_or_else(|| nothing.clone(), |parent| nothing.with_remote_span_context(parent));
        Self(Self::in_context(tracing, &parent, builder))
    }

    fn in_context(tracing: &Tracing, parent: &Context, builder: SpanBuilder) -> Context {
        parent.with_span(tracing.tracer.build_with_context(builder, parent))
    }

    /// What the work in it runs in: see [`within`].
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.0
    }

    /// Its ids, for those that are called or linked.
    #[must_use]
    pub fn ids(&self) -> SpanContext {
        self.0.span().span_context().clone()
    }

    /// Says something more of it.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// It went wrong, in a way that has few names.
    pub fn failed(&self, error: impl Into<Value>) {
        self.set(ERROR_TYPE, error);
        self.0.span().set_status(Status::error(""));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// The ids of the span that this runs in, if there is one.
#[must_use]
pub fn current() -> Option<SpanContext> {
    Context::map_current(|context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid))
}

/// Links to the first [`LINKS_MAX`] of `spans`.
#[must_use]
pub fn link_to(spans: impl IntoIterator<Item = SpanContext>) -> Vec<Link> {
    spans.into_iter().take(LINKS_MAX).map(Link::with_context).collect()
}

/// Does `work` in the span that this runs in, wherever `work` is done.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    work.with_current_context()
}

/// Does `work` in `span`, so that logs and calls tell of it.
pub fn within<F: Future>(span: Option<&Span>, work: F) -> impl Future<Output = F::Output> + use<F> {
    match span {
        Some(span) => Either::Left(work.with_context(span.0.clone())),
        None => Either::Right(work),
    }
}
