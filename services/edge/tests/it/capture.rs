//! What is kept of a call, and what is passed on: routes, resource ids, addresses, traces, credentials.

use std::collections::BTreeMap;

use axum::{Router, routing::any};
use bytes::Bytes;
use domain::{Origin, RequestEvent};
use http::Request;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::eventually;
use proto::events as pb;

use crate::world::{EdgeProcess, Key, World, echo, get, json, send, serve};

const DOCUMENT: &str = "
openapi: 3.1.0
servers: [{ url: 'https://api.example.org/v1' }]
paths:
  /orders/{order_id}: { get: {}, post: {} }
  /orders/{order_id}/notes/{note_id}: { get: { x-keymeter-resource-id: order_id } }
";

fn by_path(events: Vec<RequestEvent>) -> BTreeMap<String, RequestEvent> {
    events.into_iter().map(|event| (event.path.clone(), event)).collect()
}

#[tokio::test]
async fn routes_come_from_a_document_and_ids_from_where_they_are_named() {
    let world = World::start().await;
    let key = world.key().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, DOCUMENT).unwrap();
    let settings = [
        ("KEYMETER_EDGE_ROUTES", file.path().to_str().unwrap()),
        ("KEYMETER_EDGE_ROUTES_MAX", "3"),
        ("KEYMETER_EDGE_RESOURCE_ID_HEADER", "x-order-id"),
    ];
    let api = Router::new()
        .route("/v1/orders/new", any(async || ([("x-order-id", "o-99")], "")))
        .fallback(async || "");
    let edge = EdgeProcess::start(&world, serve(api).await, &settings).await;
    let paths = ["/v1/orders/A-7", "/v1/orders/A-7/notes/N-1", "/v1/orders/new", "/else/17", "/more/17"];
    for path in paths {
        assert_eq!(send(get(&edge.url(&format!("{path}?order_id=no")), &key)).await.status(), 200);
    }
    let events = by_path(world.events_of(paths.len()).await);
    let check = |path: &str, route: &str, id: &str| {
        let event = &events[path];
        assert_eq!((event.route.as_str(), event.resource_id.as_str()), (route, id), "{path}");
    };
    check("/v1/orders/A-7", "/v1/orders/{order_id}", "A-7");
    check("/v1/orders/A-7/notes/N-1", "/v1/orders/{order_id}/notes/{note_id}", "A-7");
    check("/v1/orders/new", "/v1/orders/{order_id}", "o-99");
    check("/else/17", "/else/{id}", "17");
    check("/more/17", "__other__", "17");
}

#[tokio::test]
async fn addresses_are_kept_as_the_workspace_wishes_and_checked_whole() {
    let world = World::start().await;
    let key = world.key().await;
    let trusted = [("KEYMETER_EDGE_TRUSTED_PROXIES", "127.0.0.1")];
    let edge = EdgeProcess::start(&world, serve(echo()).await, &trusted).await;
    let feed = async |version: u64, storage: pb::AddressStorage| {
        let networks = vec!["198.51.100.7".into(), "2001:db8:1:2::/64".into()];
        let entry = pb::KeyFeedEntry {
            version,
            address_storage: storage.into(),
            allowed_networks: networks,
            ..key.entry(pb::KeyState::Active)
        };
        let place = world.feed_entry(&key, entry).await;
        eventually("the edge has applied it", async || {
            world.heartbeats().await.iter().all(|edge| edge.feed_version >= place)
        })
        .await;
    };
    let call = async |path: &str, address: &str| {
        let mut request = get(&edge.url(path), &key);
        request.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
        send(request).await.status().as_u16()
    };
    feed(2, pb::AddressStorage::Truncated).await;
    assert_eq!(call("/a", "198.51.100.7").await, 200);
    assert_eq!(call("/b", "198.51.100.8").await, 403, "the whole address is checked");
    assert_eq!(call("/c", "2001:db8:1:2::3").await, 200);
    feed(3, pb::AddressStorage::None).await;
    assert_eq!(call("/d", "198.51.100.7").await, 200);
    assert_eq!(call("/e", "198.51.100.8").await, 403);
    let events = by_path(world.events_of(5).await);
    let kept: Vec<_> = events.values().map(|event| event.client_ip.to_string()).collect();
    assert_eq!(kept, ["::ffff:198.51.100.0", "::ffff:198.51.100.0", "2001:db8:1::", "::", "::"]);
}

#[tokio::test]
async fn a_broken_trace_and_credentials_are_not_passed_on() {
    let world = World::start().await;
    let key = world.key().await;
    let api = serve(echo()).await;
    let plain = EdgeProcess::start(&world, api, &[]).await;
    let forwarding = [("KEYMETER_EDGE_FORWARD_CREDENTIALS", "true")];
    let forwarding = EdgeProcess::start(&world, api, &forwarding).await;
    let call = async |edge: &EdgeProcess, path: &str, trace: &str| {
        let mut request = get(&edge.url(path), &key);
        request.headers_mut().insert("traceparent", trace.parse().unwrap());
        request.headers_mut().insert("tracestate", "a=b".parse().unwrap());
        json(&send(request).await)["headers"].clone()
    };
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let seen = call(&plain, "/good", good).await;
    assert_eq!((seen["traceparent"].as_str(), seen["tracestate"].as_str()), (Some(good), Some("a=b")));
    assert!(seen.get("authorization").is_none(), "{seen}");
    let seen = call(&plain, "/bad", "00-xyz-b7ad6b7169203331-01").await;
    assert!(seen.get("traceparent").is_none() && seen.get("tracestate").is_none(), "{seen}");
    let seen = call(&forwarding, "/forwarded", good).await;
    assert_eq!(seen["authorization"], format!("Bearer {}", key.secret.reveal()));
    let events = by_path(world.events_of(3).await);
    assert_eq!((events["/good"].trace_id[0], events["/bad"].trace_id), (0x0a, [0; 16]));
}

#[tokio::test]
async fn a_client_that_leaves_in_its_own_request_is_on_record() {
    let world = World::start().await;
    let key = world.key().await;
    // Wants all of the body before it answers.
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let (pieces, sent) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = futures_util::stream::unfold(sent, async |mut sent| {
        let piece = sent.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), sent))
    });
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(edge.url("/upload")).header("x-api-key", key.secret.reveal());
    let request = request.body(Box::pin(StreamBody::new(body))).unwrap();
    let call = tokio::spawn(async move { client.request(request).await.map(drop) });
    pieces.send(Bytes::from_static(b"the first piece")).await.unwrap();
    pieces.send(Bytes::from_static(b"the second")).await.unwrap();
    call.abort();
    drop(pieces);
    let event = world.event().await;
    assert_eq!((event.status_code, event.origin, event.path.as_str()), (499, Origin::Edge, "/upload"));
}

#[tokio::test]
async fn a_flood_of_nobody_s_secrets_costs_a_counter_and_no_event() {
    const FLOOD: usize = 3_000;
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let spool_bytes = || -> u64 {
        let files = std::fs::read_dir(edge.spool.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let before = spool_bytes();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for number in 0..FLOOD {
        let secret = match number % 3 {
            0 => domain::Secret::generate(domain::Environment::Live).reveal().to_owned(),
            1 => format!("km_live_{}", "x".repeat(36)),
            _ => "x".repeat(number),
        };
        let request = Request::get(edge.url("/flood")).header("x-api-key", secret);
        let response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 401);
    }
    assert_eq!(spool_bytes(), before, "nothing of it is on the disk");
    let last: Key = key;
    assert_eq!(send(get(&edge.url("/last"), &last)).await.status(), 200);
    assert_eq!(world.event().await.path, "/last");
    let metrics = parts::get(&edge.health, "/metrics").await.unwrap().body;
    for (reason, count) in [("unknown_key", FLOOD / 3), ("malformed_key", FLOOD - FLOOD / 3)] {
        let line = format!("keymeter_edge_unattributed_requests_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}
