//! Calls and their events, one by one.

use axum::{Router, body::Body, routing::get as on_get};
use bytes::Bytes;
use domain::{Denial, Environment, Origin, Secret};
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::eventually;
use proto::events as pb;
use time::{Duration, OffsetDateTime};

use crate::world::{EdgeProcess, World, echo, get, json, send, serve};

#[tokio::test]
async fn a_good_key_is_proxied_and_recorded() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let before = OffsetDateTime::now_utc();
    let request = Request::post(edge.url("/v1/orders/17?secret=no"))
        .header("x-api-key", key.secret.reveal())
        .header("x-request-id", "mine-1")
        .header("user-agent", "test/1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("connection", "x-private")
        .header("x-private", "1")
        .body(Full::from("hello"))
        .unwrap();
    let response = send(request).await;
    assert_eq!(response.status(), 200);
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let seen = json(&response);
    assert_eq!(
        (&seen["method"], &seen["uri"], &seen["body"]),
        (&"POST".into(), &"/v1/orders/17?secret=no".into(), &"hello".into())
    );
    assert_eq!(seen["headers"]["x-request-id"], request_id);
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["headers"]["host"], edge.addr);
    assert_eq!(seen["headers"]["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    for gone in ["x-api-key", "authorization", "x-private"] {
        assert!(seen["headers"].get(gone).is_none(), "{gone} reached the API: {seen}");
    }

    let event = world.event().await;
    assert_eq!(
        (event.workspace_id, event.key_id, event.secret_id),
        (key.workspace_id, key.key_id, key.secret_id)
    );
    assert_eq!((event.request_id.to_string(), event.client_request_id.as_str()), (request_id, "mine-1"));
    assert_eq!((event.method.as_str(), event.route.as_str()), ("POST", "/v1/orders/{id}"));
    assert_eq!((event.path.as_str(), event.resource_id.as_str()), ("/v1/orders/17", "17"));
    assert_eq!((event.status_code, event.origin, event.denial), (200, Origin::Upstream, None));
    assert_eq!((event.request_bytes, event.response_bytes), (5, response.body().len() as u64));
    assert_eq!(
        (event.client_ip.to_string().as_str(), event.user_agent.as_str()),
        ("::ffff:127.0.0.1", "test/1")
    );
    assert_eq!((event.region.as_str(), event.interrupted), ("eu-1", false));
    assert_eq!(event.trace_id[..2], [0x0a, 0xf7]);
    assert!(event.occurred_at >= before && event.occurred_at <= OffsetDateTime::now_utc());
    assert!(event.latency_us > 0);
}

#[tokio::test]
async fn nobody_s_secret_is_refused_without_an_event() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let unknown = Secret::generate(Environment::Live);
    let other = Secret::generate(Environment::Live);
    for (pairs, kind) in [
        (vec![], "missing_key"),
        (vec![("x-api-key", "km_live_short")], "malformed_key"),
        (vec![("x-api-key", unknown.reveal())], "unknown_key"),
        (vec![("x-api-key", unknown.reveal()), ("x-api-key", other.reveal())], "ambiguous_key"),
    ] {
        let request = pairs
            .iter()
            .fold(Request::get(edge.url("/")), |request, (name, value)| request.header(*name, *value));
        let response = send(request.body(Full::default()).unwrap()).await;
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem = json(&response);
        assert_eq!(problem["type"], format!("urn:keymeter:problem:{kind}"));
        assert_eq!((&problem["denial"], &problem["status"]), (&"".into(), &401.into()));
        assert_eq!(problem["request_id"], response.headers()["x-request-id"].to_str().unwrap());
    }
    assert_eq!(send(get(&edge.url("/last"), &key)).await.status(), 200);
    assert_eq!(world.event().await.path, "/last");
    let metrics = parts::get(&edge.health, "/metrics").await.unwrap().body;
    assert!(
        metrics.contains("keymeter_edge_unattributed_requests_total{reason=\"unknown_key\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_deleted_and_an_expired_key_are_refused_on_their_own_account() {
    let world = World::start().await;
    let (deleted, expired) = (world.key().await, world.key().await);
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    assert_eq!(send(get(&edge.url("/a"), &deleted)).await.status(), 200);
    world.feed(&deleted, 2, pb::KeyState::Deleted, None).await;
    let response = eventually("the deletion arrives", async || {
        let response = send(get(&edge.url("/a"), &deleted)).await;
        (response.status() == 401).then_some(response)
    })
    .await;
    assert_eq!(json(&response)["denial"], "deleted");
    assert_eq!(response.headers()["www-authenticate"], "Bearer");

    // An older version arrives late, and changes nothing.
    world.feed(&deleted, 1, pb::KeyState::Active, None).await;
    let ends = OffsetDateTime::now_utc() - Duration::SECOND;
    world.feed(&expired, 2, pb::KeyState::Active, Some(ends)).await;
    eventually("the expiry arrives", async || {
        let response = send(get(&edge.url("/b"), &expired)).await;
        (response.status() == 401).then(|| assert_eq!(json(&response)["denial"], "expired"))
    })
    .await;
    assert_eq!(send(get(&edge.url("/c"), &deleted)).await.status(), 401);

    // Both keys' last calls: they may be of two shards, which are published one after the other.
    let last = eventually("the last calls are published", async || {
        let events: Vec<_> = world.events().await.into_values().collect();
        let has = |path: &str, denial| {
            events.iter().any(|event| event.path == path && event.denial == Some(denial))
        };
        (has("/c", Denial::Deleted) && has("/b", Denial::Expired)).then_some(events)
    })
    .await;
    let denials = |path: &str| -> Vec<_> {
        last.iter()
            .filter(|event| event.path == path)
            .map(|event| (event.denial, event.status_code, event.origin))
            .collect()
    };
    assert_eq!(denials("/c"), [(Some(Denial::Deleted), 401, Origin::Edge)]);
    assert!(denials("/a").contains(&(Some(Denial::Deleted), 401, Origin::Edge)));
    assert!(denials("/a").contains(&(None, 200, Origin::Upstream)));
    assert!(denials("/b").contains(&(Some(Denial::Expired), 401, Origin::Edge)));
    assert!(last.iter().all(|event| [deleted.key_id, expired.key_id].contains(&event.key_id)));
}

#[tokio::test]
async fn an_api_that_is_down_or_broken_is_a_failed_call() {
    let world = World::start().await;
    let key = world.key().await;
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], parts::free_port()));
    let edge = EdgeProcess::start(&world, nobody, &[]).await;
    let response = send(get(&edge.url("/x"), &key)).await;
    assert_eq!(response.status(), 502);
    assert_eq!(json(&response)["type"], "urn:keymeter:problem:upstream_unreachable");
    // Then somebody who hangs up.
    let listener = tokio::net::TcpListener::bind(nobody).await.unwrap();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let response = send(get(&edge.url("/x"), &key)).await;
    assert_eq!(response.status(), 502);
    assert_eq!(json(&response)["type"], "urn:keymeter:problem:upstream_failed");
    for event in world.events_of(2).await {
        assert_eq!((event.status_code, event.origin, event.denial), (502, Origin::Edge, None));
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_with_what_it_got() {
    let world = World::start().await;
    let key = world.key().await;
    let (asked, asked_at) = tokio::sync::mpsc::channel(1);
    let endless = || async {
        let pieces = stream::repeat(Bytes::from_static(&[b'x'; 1024])).then(async |piece| {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(piece)
        });
        Body::from_stream(pieces)
    };
    let silent = move || async move {
        asked.send(()).await.unwrap();
        std::future::pending::<StatusCode>().await
    };
    let api = Router::new().route("/endless", on_get(endless)).route("/silent", on_get(silent));
    let edge = EdgeProcess::start(&world, serve(api).await, &[]).await;

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut response = client.request(get(&edge.url("/endless"), &key)).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    drop(client);
    let event = world.event().await;
    assert_eq!((event.status_code, event.origin, event.interrupted), (200, Origin::Upstream, false));
    assert!(event.response_bytes >= 1024);

    let mut asked_at = asked_at;
    let url = edge.url("/silent");
    let waiting = tokio::spawn(async move { send(get(&url, &key)).await });
    asked_at.recv().await.unwrap();
    waiting.abort();
    let events = world.events_of(2).await;
    let event = events.iter().find(|event| event.path == "/silent").unwrap();
    assert_eq!((event.status_code, event.origin, event.denial), (499, Origin::Edge, None));
}

#[tokio::test]
async fn a_panic_behind_the_layer_is_an_answer_and_an_event() {
    let world = World::start().await;
    let key = world.key().await;
    let spool = tempfile::tempdir().unwrap();
    let edge = world.layer(spool.path()).await;
    let broken = || async {
        if OffsetDateTime::now_utc().year() > 0 {
            panic!("on purpose")
        }
    };
    // Promises an answer, and breaks on the way.
    let half = || async {
        let pieces = stream::iter([0, 1]).map(|number| match number {
            0 => Ok::<_, std::io::Error>(Bytes::from_static(b"half")),
            _ => panic!("on purpose"),
        });
        Body::from_stream(pieces)
    };
    let about = || async { (axum::Extension(edge_layer::ResourceId("order 7".into())), "") };
    let who = |caller: axum::Extension<edge_layer::Caller>| async move { caller.key_id.to_string() };
    let api = Router::new().route("/broken", on_get(broken)).route("/who", on_get(who));
    let api = api.route("/half", on_get(half)).route("/about/1", on_get(about)).layer(edge.layer());
    let addr = serve(api).await;
    let response = send(get(&format!("http://{addr}/broken"), &key)).await;
    assert_eq!(response.status(), 500);
    assert_eq!(world.event().await.status_code, 500);
    let response = send(get(&format!("http://{addr}/who"), &key)).await;
    assert_eq!(response.body(), &key.key_id.to_string());
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let is_whole = match client.request(get(&format!("http://{addr}/half"), &key)).await {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!is_whole, "a broken answer is not a whole one");
    let response = send(get(&format!("http://{addr}/about/1"), &key)).await;
    assert_eq!(response.status(), 200);
    let events = world.events_of(4).await;
    let of = |path: &str| events.iter().find(|event| event.path == path).unwrap();
    assert_eq!((of("/half").status_code, of("/half").response_bytes), (200, 4));
    assert_eq!(of("/about/1").resource_id, "order 7", "the handler knows better than the path");
    world.commit().await;
    edge.close(crate::world::PATIENCE).await;
    assert_eq!(world.heartbeats().await, [], "an edge that owes nothing leaves the list");
}
