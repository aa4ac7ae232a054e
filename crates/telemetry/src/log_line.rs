//! Log lines that name the trace and the span in which they were written, if they were.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

/// Lines as `F` writes them, and the ids.
pub(crate) struct Traced<F>(pub(crate) F);

impl<S, N> FormatEvent<S, N> for Traced<Format<Json>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, of: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(span) = trace::current() else { return self.0.format_event(of, out, event) };
        let mut line = String::new();
        self.0.format_event(of, Writer::new(&mut line), event)?;
        // One object and the end of the line.
        let object = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        let (trace_id, span_id) = (span.trace_id(), span.span_id());
        writeln!(out, r#"{object},"trace_id":"{trace_id}","span_id":"{span_id}"}}"#)
    }
}

impl<S, N> FormatEvent<S, N> for Traced<Format>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, of: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if let Some(span) = trace::current() {
            write!(out, "trace_id={} span_id={} ", span.trace_id(), span.span_id())?;
        }
        self.0.format_event(of, out, event)
    }
}
