//! Spans of statements to Postgres, from what `sqlx` says of each when it has ended: so no use of the store has to be
//! measured by hand. Takes the first words of the text, and no value: values are parameters, which are not told.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use trace::{
    KeyValue, Span, SpanBuilder, SpanKind,
    attribute::{DB_OPERATION_NAME, DB_QUERY_SUMMARY, DB_RESPONSE_RETURNED_ROWS, DB_SYSTEM_NAME},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{Layer, filter::DynFilterFn, layer::Context, registry::LookupSpan};

/// Where `sqlx` says it.
const TARGET: &str = "sqlx::query";

/// Makes the spans, in the one in which the statement was run; without one it costs nothing.
pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let is_asked = DynFilterFn::new(|event, _: &Context<'_, S>| {
        event.target() == TARGET && trace::current().is_some_and(|span| span.is_sampled())
    });
    let of_others = |event: &'static Metadata<'static>| {
        if event.target() == TARGET { Interest::sometimes() } else { Interest::never() }
    };
    Statements.with_filter(is_asked.with_callsite_filter(of_others).with_max_level_hint(Level::DEBUG))
}

struct Statements;

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        let now = SystemTime::now();
        let began = now.checked_sub(told.took).unwrap_or(now);
        drop(Span::child(|| told.builder().with_start_time(began)));
    }
}

/// What is told of a statement.
#[derive(Default)]
struct Told {
    summary: String,
    rows: u64,
    took: Duration,
}

impl Told {
    fn builder(self) -> SpanBuilder {
        let summary = self.summary.trim_end_matches(" …").to_owned();
        let operation = summary.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        SpanBuilder::from_name(summary.clone()).with_kind(SpanKind::Client).with_attributes([
            KeyValue::new(DB_SYSTEM_NAME, "postgresql"),
            KeyValue::new(DB_OPERATION_NAME, operation),
            KeyValue::new(DB_QUERY_SUMMARY, summary),
            KeyValue::new(DB_RESPONSE_RETURNED_ROWS, self.rows.cast_signed()),
        ])
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            value.clone_into(&mut self.summary);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rows_returned" {
            self.rows = value;
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.took = Duration::try_from_secs_f64(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
