//! One trace from a call at the edge to its row, and from a browser to both databases, as a collector of OpenTelemetry
//! receives them from our real processes.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::{Authority, ClickHouse, Collector, Relay, SeenSpan, Way, free_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stack::{self, ADMIN_EMAIL, ADMIN_PASSWORD, Environment, MadeKey, Stack};

/// The span of whoever calls.
const CALLER: &str = "b7ad6b7169203331";

fn trace_id(number: u32) -> String {
    format!("0af7651916cd43dd8448eb21{number:08x}")
}

fn traceparent(number: u32, flags: &str) -> String {
    format!("00-{}-{CALLER}-{flags}", trace_id(number))
}

/// A stack that tells `collector`, and what its services say to ClickHouse.
async fn traced_stack(collector: &Collector, sampler: &str) -> (Stack, Said) {
    let (clickhouse, said) = (ClickHouse::start().await, Said::default());
    let heard = said.clone();
    let relay = Relay::start(&clickhouse.url(), move |there, back| {
        let heard = heard.clone();
        async move { tokio::try_join!(overhear(there, heard), back.bring()).map(drop) }
    })
    .await;
    let relay = format!("http://{}", relay.address());
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("OTEL_TRACES_SAMPLER", sampler.to_owned()),
        ("RUST_LOG", "info,ui=debug".to_owned()),
        ("KEYMETER_INGEST_CLICKHOUSE_URL", relay.clone()),
        ("KEYMETER_QUERY_CLICKHOUSE_URL", relay),
    ];
    (Stack::start_before(clickhouse, environment).await, said)
}

/// Bytes that somebody was told.
type Said = Arc<Mutex<Vec<u8>>>;

async fn overhear(mut way: Way, heard: Said) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = way.from.read(&mut bytes).await?;
        if read == 0 {
            return way.to.shutdown().await;
        }
        heard.lock().unwrap().extend(&bytes[..read]);
        way.to.write_all(&bytes[..read]).await?;
    }
}

/// Whether ClickHouse was told that `span` asks.
fn was_told(said: &Said, span: &SeenSpan) -> bool {
    let header = format!("traceparent: 00-{}-{}-01\r\n", span.trace_id, span.span_id);
    said.lock().unwrap().windows(header.len()).any(|bytes| bytes == header.as_bytes())
}

async fn send(request: hyper::http::request::Builder, body: String) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

async fn call(stack: &Stack, key: &MadeKey, path: &str, traceparent: Option<&str>) {
    let mut request = Request::get(format!("{}{path}", stack.edge_url()))
        .header("authorization", format!("Bearer {}", key.secret));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    assert_eq!(send(request, String::new()).await.status(), 200);
}

/// The span of `service` that is of such a kind and in that trace, once it has come.
async fn find(collector: &Collector, service: &str, kind: &str, trace_id: &str) -> SeenSpan {
    let is_it = |span: &SeenSpan| span.service() == service && span.kind == kind && span.trace_id == trace_id;
    collector.span(&format!("a {kind} span of {service} comes"), is_it).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_trace_from_the_edge_to_its_row() {
    let collector = Collector::start().await;
    let (stack, said) = traced_stack(&collector, "").await;
    let key = stack.make_key("traced").await;
    call(&stack, &key, "/v1/orders/100200300?status=200&cursor=7x7", Some(&traceparent(1, "01"))).await;

    let trace = trace_id(1);
    let served = find(&collector, "keymeter-edge", "Server", &trace).await;
    assert_eq!((served.name.as_str(), served.parent_id.as_str()), ("GET /v1/orders/{id}", CALLER));
    assert_eq!(served.attribute("http.route"), "/v1/orders/{id}");
    assert_eq!(served.attribute("http.request.method"), "GET");
    assert_eq!(served.attribute("http.response.status_code"), "200");
    assert_eq!(served.attribute("keymeter.key.id"), key.id());
    assert!(!served.is_error);
    let sent = find(&collector, "keymeter-edge", "Producer", &trace).await;
    assert_eq!(sent.parent_id, served.span_id);
    let subject = sent.attribute("messaging.destination.name");
    assert_eq!(
        (sent.attribute("messaging.system"), sent.attribute("messaging.operation.type")),
        ("nats", "send")
    );
    assert_eq!(sent.name, format!("publish {subject}"));
    let taken = find(&collector, "keymeter-ingest", "Consumer", &trace).await;
    assert_eq!(
        (taken.parent_id.as_str(), taken.attribute("keymeter.batch.rows")),
        (sent.span_id.as_str(), "1")
    );
    assert_eq!(taken.links, [(trace.clone(), served.span_id.clone())], "the call itself");
    let inserted = find(&collector, "keymeter-ingest", "Client", &trace).await;
    assert_eq!(inserted.parent_id, taken.span_id);
    assert_eq!(inserted.attribute("db.system.name"), "clickhouse");
    assert_eq!(inserted.attribute("db.query.summary"), "INSERT request_events");
    assert!(was_told(&said, &inserted), "ClickHouse is told");
    let row = "select lower(hex(trace_id)) from keymeter.request_events";
    assert_eq!(stack.clickhouse.query(row).await.trim(), trace);

    for key in ["service.version", "service.instance.id", "deployment.environment.name"] {
        assert!(served.resource.contains_key(key), "{key}: {:?}", served.resource);
    }
    let instances: BTreeSet<_> = [&served, &taken].map(|span| &span.resource["service.instance.id"]).into();
    assert_eq!(instances.len(), 2, "each process is an instance of its own");

    // What is not sampled is on record all the same, and has no span.
    call(&stack, &key, "/v1/orders/2", Some(&traceparent(2, "00"))).await;
    // Without a caller a trace begins here, and its id is the row's.
    call(&stack, &key, "/v1/items/3", None).await;
    stack.complete().await;
    let rows = "select lower(hex(trace_id)) from keymeter.request_events where route in ('/v1/orders/{id}', '/v1/items/{id}') order by occurred_at";
    let rows = stack.clickhouse.query(rows).await;
    let rows: Vec<_> = rows.lines().collect();
    assert_eq!((rows.len(), rows[1]), (3, trace_id(2).as_str()));
    let began = find(&collector, "keymeter-edge", "Server", rows[2]).await;
    assert_eq!((began.name.as_str(), began.parent_id.as_str()), ("GET /v1/items/{id}", ""));
    find(&collector, "keymeter-ingest", "Client", rows[2]).await;

    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace_id != trace_id(2)));
    let told = format!("{spans:?}");
    for private in
        [&key.secret[8..43], "100200300", "7x7", ADMIN_EMAIL, ADMIN_PASSWORD, stack.service_token()]
    {
        assert!(!told.contains(private), "{private} is in a span");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_linked_to_all_of_its_sampled_calls() {
    const CALLS: u32 = 12;
    let collector = Collector::start().await;
    let (stack, _) = traced_stack(&collector, "").await;
    let key = stack.make_key("batched").await;
    for number in 1..=CALLS {
        call(&stack, &key, "/v1/orders", Some(&traceparent(number, "01"))).await;
    }
    stack.complete().await;
    for number in 1..=CALLS {
        let trace = trace_id(number);
        let served = find(&collector, "keymeter-edge", "Server", &trace).await;
        let leads_to = |span: &SeenSpan| {
            span.parent_id == served.span_id || span.links.contains(&(trace.clone(), served.span_id.clone()))
        };
        for kind in ["Producer", "Consumer"] {
            collector
                .span("what became of the call leads to it", |span| span.kind == kind && leads_to(span))
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_one_trace_from_the_browser_to_both_databases() {
    let collector = Collector::start().await;
    // Nothing but what the browser asks for.
    let (stack, said) = traced_stack(&collector, "parentbased_always_off").await;
    let key = stack.make_key("shown").await;
    call(&stack, &key, "/v1/orders", None).await;
    stack.complete().await;
    let ui = format!("http://127.0.0.1:{}", stack.ports.ui);
    let form =
        format!("email={}&password={}", ADMIN_EMAIL.replace('@', "%40"), ADMIN_PASSWORD.replace(' ', "+"));
    let sign_in = Request::post(format!("{ui}/sign-in"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("traceparent", traceparent(1, "01"));
    let signed_in = send(sign_in, form).await;
    assert_eq!(signed_in.status(), 303);
    let cookie =
        signed_in.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    for (number, path) in [(2, "/overview"), (3, "/keys")] {
        let page = Request::get(format!("{ui}{path}"))
            .header("cookie", &cookie)
            .header("traceparent", traceparent(number, "01"));
        assert_eq!(send(page, String::new()).await.status(), 200);
    }

    let trace = trace_id(2);
    let page = find(&collector, "keymeter-ui", "Server", &trace).await;
    assert_eq!((page.name.as_str(), page.parent_id.as_str()), ("GET /overview", CALLER));
    assert_eq!(page.attribute("http.response.status_code"), "200");
    let asked = find(&collector, "keymeter-query", "Server", &trace).await;
    assert!(asked.attribute("rpc.method").starts_with("keymeter.usage.v1.UsageService/"), "{asked:?}");
    assert_eq!(
        (asked.attribute("rpc.system.name"), asked.attribute("rpc.response.status_code")),
        ("grpc", "OK")
    );
    let asking = collector.span("the ui's call comes", |span| span.span_id == asked.parent_id).await;
    assert_eq!((asking.service(), asking.kind.as_str()), ("keymeter-ui", "Client"));
    assert_eq!((&asking.parent_id, &asking.name), (&page.span_id, &asked.name));
    let read = find(&collector, "keymeter-query", "Client", &trace).await;
    assert_eq!(
        (read.attribute("db.system.name"), read.attribute("db.query.summary")),
        ("clickhouse", read.name.as_str())
    );
    assert!(was_told(&said, &read), "ClickHouse is told");
    let within = collector.span("its call comes", |span| span.span_id == read.parent_id).await;
    assert_eq!((within.service(), within.kind.as_str()), ("keymeter-query", "Server"));

    let listed = find(&collector, "keymeter-keys", "Server", &trace_id(3)).await;
    assert!(listed.name.starts_with("keymeter.keys.v1."), "{listed:?}");
    let read = find(&collector, "keymeter-keys", "Client", &trace_id(3)).await;
    assert_eq!((read.attribute("db.system.name"), read.kind.as_str()), ("postgresql", "Client"));
    assert!(!read.attribute("db.operation.name").is_empty());

    let log = stack.ui.log();
    let line = log.lines().find(|line| line.contains(&trace)).expect("what is logged names its trace");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((line["trace_id"].as_str(), line["span_id"].as_str()), (Some(&*trace), Some(&*page.span_id)));

    let spans = collector.spans();
    let foreign: Vec<_> =
        spans.iter().filter(|span| (1..=3).all(|number| span.trace_id != trace_id(number))).collect();
    assert!(foreign.is_empty(), "nobody asked for these: {foreign:?}");
    let told = format!("{spans:?}");
    for private in [ADMIN_EMAIL, ADMIN_PASSWORD, cookie.split('=').nth(1).unwrap()] {
        assert!(!told.contains(private), "{private} is in a span");
    }
}

/// The environment of a ui with nothing behind it, and where it serves.
fn alone(more: &[(&'static str, String)]) -> (Environment, String) {
    let [addr, health] = std::array::from_fn(|_| format!("127.0.0.1:{}", free_port()));
    let mut environment = vec![("KEYMETER_UI_ADDR", addr.clone()), ("KEYMETER_UI_HEALTH_ADDR", health)];
    environment.extend(more.iter().cloned());
    (environment, addr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_that_wants_tls_a_certificate_and_a_header() {
    let authority = Authority::new();
    let collector = Collector::start_tls(&authority).await;
    let (certificate, key) = authority.certify("ui");
    let (environment, addr) = alone(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{}", collector.port())),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.ca().display().to_string()),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.display().to_string()),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.display().to_string()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=let%20me%20in".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_SERVICE_NAME", "pages".to_owned()),
    ]);
    let _ui = stack::spawn("ui", &environment).await;
    parts::eventually("the page is there", async || parts::get(&addr, "/sign-in").await.is_ok()).await;
    let page = collector.span("the page's span comes", |span| span.name == "GET /sign-in").await;
    assert_eq!((page.service(), page.metadata["x-collector-key"].as_str()), ("pages", "let me in"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_cannot_be_used_ends_the_start_and_is_named() {
    for (name, value) in [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no-value"),
    ] {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317".to_owned());
        let (environment, _) = alone(&[endpoint, (name, value.to_owned())]);
        let mut ui = stack::spawn("ui", &environment).await;
        assert!(!ui.wait().await.success());
        assert!(ui.log().contains(name), "{name}: {}", ui.log());
    }
}
