//! The spans of an edge: of a call, and of a batch that has sampled calls. Who called, the raw path and what a call
//! carries are in none. The other calls cost nothing: see `trace`.

use http::Request;
use proto::{event_bytes, nats};
use trace::{
    KeyValue, Span, SpanBuilder, SpanContext, SpanKind, Traceparent,
    attribute::{
        HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, MESSAGING_DESTINATION_NAME,
        MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM,
        NETWORK_PROTOCOL_VERSION,
    },
    link_to,
};

/// The span of a call that was asked for with these headers, if it is sampled.
pub(crate) fn of_call<I>(
    parent: Option<&Traceparent>,
    request: &Request<I>,
    call: &event_bytes::Beginning<'_>,
) -> Option<Span> {
    Span::begin_sampled(parent, request.headers(), || {
        let (method, named) = trace::method(request.method());
        let attributes = [
            KeyValue::new(HTTP_REQUEST_METHOD, method),
            KeyValue::new(HTTP_ROUTE, call.route.to_owned()),
            KeyValue::new(NETWORK_PROTOCOL_VERSION, version(request.version())),
            KeyValue::new("keymeter.workspace.id", call.workspace_id.to_string()),
            KeyValue::new("keymeter.key.id", call.key_id.to_string()),
            KeyValue::new("keymeter.request.id", call.request_id.to_string()),
        ];
        SpanBuilder::from_name(format!("{} {}", named, call.route))
            .with_kind(SpanKind::Server)
            .with_start_time(call.occurred_at)
            .with_attributes(attributes)
    })
}

/// What the call was answered with; the span ends with the call.
pub(crate) fn answered(span: &Span, status_code: u16, denial: Option<domain::Denial>) {
    span.set(HTTP_RESPONSE_STATUS_CODE, i64::from(status_code));
    if let Some(denial) = denial {
        span.set("keymeter.denial", denial.as_str());
    }
    // A client's mistakes are no fault of a server.
    if status_code >= 500 {
        span.failed(status_code.to_string());
    }
}

/// The span of sending a batch of encoded events to the stream of a shard: in that of its first sampled call, linked to
/// the others. `None` if it has none.
pub(crate) fn of_batch(shard: u16, events: &[Vec<u8>]) -> Option<Span> {
    if !trace::is_on() {
        return None;
    }
    let mut calls = events
        .iter()
        .filter_map(|event| event_bytes::span(event))
        .map(|(trace_id, span_id)| Traceparent { trace_id, span_id, flags: 1 }.context());
    let first: SpanContext = calls.next()?;
    Span::begin(Some(first), || {
        let subject = nats::request_events_subject(shard);
        let attributes = [
            KeyValue::new(MESSAGING_SYSTEM, "nats"),
            KeyValue::new(MESSAGING_OPERATION_NAME, "publish"),
            KeyValue::new(MESSAGING_OPERATION_TYPE, "send"),
            KeyValue::new(MESSAGING_DESTINATION_NAME, subject.clone()),
            KeyValue::new(
                MESSAGING_MESSAGE_BODY_SIZE,
                i64::try_from(events.iter().map(Vec::len).sum::<usize>()).unwrap_or(i64::MAX),
            ),
            KeyValue::new("keymeter.batch.events", i64::try_from(events.len()).unwrap_or(i64::MAX)),
        ];
        SpanBuilder::from_name(format!("publish {subject}"))
            .with_kind(SpanKind::Producer)
            .with_attributes(attributes)
            .with_links(link_to(calls))
    })
}

const fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
