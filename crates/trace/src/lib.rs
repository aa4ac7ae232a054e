//! Spans of OpenTelemetry, the decision which calls have some, and the headers that carry them from process to
//! process. Until [`start`] nothing is a span and asking for one costs a load from memory. Knows no part of the
//! product, and puts no value of a request into a span by itself.

use std::sync::OnceLock;

use opentelemetry::{InstrumentationScope, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider, SpanExporter},
};

mod body;
mod ids;
mod method;
pub mod rpc;
mod sampling;
mod span;
mod traceparent;

pub use body::InSpan;
pub use method::method;
pub use opentelemetry::{
    Context, KeyValue,
    trace::{SpanBuilder, SpanContext, SpanKind},
};
pub use opentelemetry_semantic_conventions::attribute;
pub use sampling::{Sampling, SamplingError};
pub use span::{Span, carried, current, link_to, within};
pub use traceparent::{TRACEPARENT, TRACESTATE, Traceparent, extract, inject};

/// Most links of a span: a batch of a thousand calls names so many of those that are traced.
pub const LINKS_MAX: usize = 32;

/// What makes spans in this process.
#[derive(Debug)]
struct Tracing {
    tracer: SdkTracer,
    sampling: Sampling,
}

static TRACING: OnceLock<Tracing> = OnceLock::new();

/// From now on calls that `sampling` chooses have spans, which go to `exporter` in batches. Once in a process: a later
/// call changes nothing. The provider is to be shut down at the end, which sends what is left.
pub fn start(
    resource: Resource,
    sampling: Sampling,
    exporter: impl SpanExporter + 'static,
) -> SdkTracerProvider {
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampling)
        .with_id_generator(ids::Ids::default())
        .with_batch_exporter(exporter)
        .build();
    let scope = InstrumentationScope::builder("keymeter")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(opentelemetry_semantic_conventions::SCHEMA_URL)
        .build();
    let _ = TRACING.set(Tracing { tracer: provider.tracer_with_scope(scope), sampling });
    provider
}

/// Whether any call can have a span.
#[must_use]
pub fn is_on() -> bool {
    TRACING.get().is_some()
}
