//! The spans of ingest: of a batch that comes from sampled calls, and of its insert. Such a batch has calls of many
//! traces: its span is in the first one and is linked to the others, as far as links go.

use trace::{
    KeyValue, LINKS_MAX, Span, SpanBuilder, SpanContext, SpanKind, Traceparent,
    attribute::{
        DB_COLLECTION_NAME, DB_NAMESPACE, DB_OPERATION_BATCH_SIZE, DB_OPERATION_NAME, DB_QUERY_SUMMARY,
        DB_SYSTEM_NAME, MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME, MESSAGING_OPERATION_NAME,
        MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM,
    },
    link_to,
};

use crate::{batch::Batch, event::Event};

/// The spans that a batch comes from: of the edges that sent its messages, and of calls.
#[derive(Debug, Default)]
pub struct Sources {
    messages: Vec<SpanContext>,
    calls: Vec<SpanContext>,
}

impl Sources {
    /// Takes the span in which a message was sent.
    pub(crate) fn sent_in(&mut self, span: Option<Traceparent>) {
        if let Some(span) = span.filter(|span| span.flags & 1 == 1 && self.messages.len() < LINKS_MAX) {
            self.messages.push(span.context());
        }
    }

    /// Takes the span of a call.
    pub(crate) fn call(&mut self, event: &Event<'_>) {
        let Event { trace_id, span_id, .. } = *event;
        if span_id != [0; 8] && trace_id != [0; 16] && self.calls.len() < LINKS_MAX {
            self.calls.push(Traceparent { trace_id, span_id, flags: 1 }.context());
        }
    }
}

/// The span of writing a batch; `None` unless it comes from sampled calls.
pub(crate) fn of_batch(shard: u16, batch: &Batch) -> Option<Span> {
    let Sources { messages, calls } = &batch.sources;
    let mut sources = messages.iter().chain(calls).cloned();
    let first = sources.next()?;
    Span::begin(Some(first), || {
        let subject = proto::nats::request_events_subject(shard);
        let attributes = [
            KeyValue::new(MESSAGING_SYSTEM, "nats"),
            KeyValue::new(MESSAGING_OPERATION_NAME, "process"),
            KeyValue::new(MESSAGING_OPERATION_TYPE, "process"),
            KeyValue::new(MESSAGING_DESTINATION_NAME, subject.clone()),
            KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, number(batch.messages)),
            KeyValue::new("keymeter.batch.rows", number(batch.rows.len())),
        ];
        SpanBuilder::from_name(format!("process {subject}"))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(link_to(sources))
    })
}

/// The span of one insert of rows of several batches, those that are sampled being written in these spans.
pub(crate) fn of_insert(asked_in: impl IntoIterator<Item = SpanContext>, rows: usize) -> Option<Span> {
    let mut asked_in = asked_in.into_iter();
    let first = asked_in.next()?;
    Span::begin(Some(first), || {
        let attributes = [
            KeyValue::new(DB_SYSTEM_NAME, "clickhouse"),
            KeyValue::new(DB_NAMESPACE, "keymeter"),
            KeyValue::new(DB_COLLECTION_NAME, "request_events"),
            KeyValue::new(DB_OPERATION_NAME, "INSERT"),
            KeyValue::new(DB_QUERY_SUMMARY, "INSERT request_events"),
            KeyValue::new(DB_OPERATION_BATCH_SIZE, number(rows)),
        ];
        SpanBuilder::from_name("INSERT request_events")
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .with_links(link_to(asked_in))
    })
}

fn number(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
