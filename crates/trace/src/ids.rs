//! Ids of traces and spans: random, but that a trace may begin with an id that was decided on before.

use std::cell::Cell;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

thread_local! {
    static NEXT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// The generator of the process.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// An id that no trace has yet.
pub(crate) fn new_trace_id() -> TraceId {
    RandomIdGenerator::default().new_trace_id()
}

/// Runs `begin`; a trace that begins in it has this id.
pub(crate) fn beginning_as<T>(trace_id: TraceId, begin: impl FnOnce() -> T) -> T {
    NEXT.set(Some(trace_id));
    let begun = begin();
    NEXT.take();
    begun
}
