//! Spans of calls as a collector receives them, and what the API is told of them.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use parts::{Collector, SeenSpan, eventually};

use crate::world::{EdgeProcess, Key, World, echo, json, send, serve};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

async fn traced(world: &World, collector: &Collector, sampler: (&str, &str)) -> EdgeProcess {
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_TRACES_SAMPLER", sampler.0),
        ("OTEL_TRACES_SAMPLER_ARG", sampler.1),
    ];
    EdgeProcess::start(world, serve(echo()).await, &settings).await
}

async fn call(edge: &EdgeProcess, secret: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::get(edge.url("/v1/orders/17")).header("x-api-key", secret);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(Full::default()).unwrap()).await
}

/// What the API saw of the trace.
async fn seen(edge: &EdgeProcess, key: &Key, headers: &[(&str, &str)]) -> Option<String> {
    let answer = call(edge, key.secret.reveal(), headers).await;
    assert_eq!(answer.status(), 200);
    json(&answer)["headers"].get("traceparent").map(|value| value.as_str().unwrap().to_owned())
}

fn of(span: &SeenSpan) -> String {
    format!("00-{}-{}-01", span.trace_id, span.span_id)
}

#[tokio::test]
async fn the_api_is_called_from_the_edges_span_if_the_call_is_sampled() {
    let (world, collector) = (World::start().await, Collector::start().await);
    let key = world.key().await;
    let edge = traced(&world, &collector, ("", "")).await;
    let passed = seen(&edge, &key, &[("traceparent", SAMPLED), ("tracestate", "a=b")]).await.unwrap();
    let span = collector.span("the call's span comes", |span| span.trace_id == TRACE).await;
    assert_eq!((passed, span.parent_id.as_str()), (of(&span), "b7ad6b7169203331"));
    assert_eq!(seen(&edge, &key, &[("traceparent", UNSAMPLED)]).await.as_deref(), Some(UNSAMPLED));
    // One that cannot be read is none: a trace begins here.
    let began = seen(&edge, &key, &[("traceparent", "00-0-0-01")]).await.unwrap();
    collector.span("a trace begins", |span| of(span) == began && span.parent_id.is_empty()).await;

    let event = world.events_of(3).await;
    let numbers: Vec<_> =
        event.iter().map(|event| (event.trace_id != [0; 16], event.span_id != [0; 8])).collect();
    assert_eq!(numbers.iter().filter(|has| **has == (true, true)).count(), 2);
    assert_eq!(numbers.iter().filter(|has| **has == (true, false)).count(), 1, "on record, and not sampled");
}

#[tokio::test]
async fn a_refusal_has_a_span_if_it_is_somebodys() {
    let (world, collector) = (World::start().await, Collector::start().await);
    let key = world.key().await;
    let settings = ("always_on", "");
    let edge = traced(&world, &collector, settings).await;
    let stranger = domain::Secret::generate(domain::Environment::Live);
    assert_eq!(call(&edge, stranger.reveal(), &[]).await.status(), 401);
    world.feed(&key, 2, proto::events::KeyState::Disabled, None).await;
    let refused = async || call(&edge, key.secret.reveal(), &[]).await.status() == 401;
    eventually("the key is switched off", refused).await;
    let refused = collector
        .span("the refusal's span comes", |span| !span.attribute("keymeter.denial").is_empty())
        .await;
    assert_eq!(refused.attribute("keymeter.denial"), "disabled");
    assert!(!refused.is_error, "a client's mistake is no fault of the edge");
    let spans = collector.spans();
    let calls: Vec<_> = spans.iter().filter(|span| span.kind == "Server").collect();
    assert!(
        calls.iter().all(|span| span.attribute("keymeter.key.id") == key.key_id.to_string()),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_sampler_that_follows_nobody_decides_by_itself() {
    let (world, collector) = (World::start().await, Collector::start().await);
    let key = world.key().await;
    let edge = traced(&world, &collector, ("traceidratio", "0")).await;
    assert_eq!(seen(&edge, &key, &[("traceparent", SAMPLED)]).await.as_deref(), Some(SAMPLED), "as it came");
    assert_eq!(seen(&edge, &key, &[]).await, None);
    let events = world.events_of(2).await;
    assert!(events.iter().all(|event| event.span_id == [0; 8]));
    assert_eq!(collector.count(), 0, "{:?}", collector.spans());
}
