//! Several addresses of the API: calls go where it works.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parts::{eventually, free_port};

use crate::{
    api::{Api, Reply, ok},
    world::{EdgeProcess, World, get, json, send},
};

async fn edge(world: &World, urls: &[String], more: &[(&str, &str)]) -> EdgeProcess {
    let mut edge = EdgeProcess::spawn(&world.nats.url(), &urls.join(","), more).await;
    edge.wait_ready().await;
    edge
}

fn url(addr: std::net::SocketAddr) -> String {
    format!("http://{addr}")
}

#[tokio::test]
async fn calls_go_round_and_past_the_dead() {
    let world = World::start().await;
    let key = world.key().await;
    let named =
        |name: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).into_bytes();
    let (one, two) = (named("one"), named("two"));
    let first = Api::start(move |_, _| Reply::Send(one.clone())).await;
    let second = Api::start(move |_, _| Reply::Send(two.clone())).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let edge =
        edge(&world, &[url(first.addr), nobody, url(second.addr)], &[("KEYMETER_EDGE_THREADS", "1")]).await;
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..30 {
        let response = send(get(&edge.url("/x"), &key)).await;
        assert_eq!(response.status(), 200, "a call that was not sent goes elsewhere");
        *answers.entry(String::from_utf8(response.body().to_vec()).unwrap()).or_default() += 1;
    }
    assert!(answers["one"] >= 10 && answers["two"] >= 10, "{answers:?}");
    let metrics = parts::get(&edge.health, "/metrics").await.unwrap().body;
    let failures =
        metrics.lines().find(|line| line.starts_with("keymeter_edge_upstream_connect_failures_total{"));
    let failures: f64 = failures.unwrap().split(' ').next_back().unwrap().parse().unwrap();
    assert!((3.0..10.0).contains(&failures), "after three failures it is left out: {failures}");
}

#[tokio::test]
async fn when_all_are_dead_each_call_still_tries() {
    let world = World::start().await;
    let key = world.key().await;
    let ports = [free_port(), free_port()];
    let edge = edge(&world, &ports.map(|port| format!("http://127.0.0.1:{port}")), &[]).await;
    for _ in 0..5 {
        let response = send(get(&edge.url("/x"), &key)).await;
        assert_eq!(response.status(), 502);
        assert_eq!(json(&response)["type"], "urn:keymeter:problem:upstream_unreachable");
    }
    // One comes back while both are left out.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", ports[1])).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, crate::world::echo()).await });
    assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 200);
}

#[tokio::test]
async fn what_says_that_it_is_unhealthy_is_left_out() {
    let world = World::start().await;
    let key = world.key().await;
    let is_healthy = Arc::new(AtomicBool::new(false));
    let asked = is_healthy.clone();
    let sick = Api::start(move |head, _| {
        if head.starts_with("GET /health ") && !asked.load(Relaxed) {
            return Reply::Send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec());
        }
        Reply::Send(ok())
    })
    .await;
    let well = Api::start(|_, _| Reply::Send(ok())).await;
    let more = [
        ("KEYMETER_EDGE_UPSTREAM_HEALTH_PATH", "/health"),
        ("KEYMETER_EDGE_UPSTREAM_HEALTH_INTERVAL_S", "1"),
    ];
    let edge = edge(&world, &[url(sick.addr), url(well.addr)], &more).await;
    let calls = |api: &Api| api.seen().iter().filter(|seen| seen.head.starts_with("GET /x")).count();
    eventually("the sick one is asked for its health", async || !sick.seen().is_empty()).await;
    eventually("it gets no calls", async || {
        let before = calls(&sick);
        for _ in 0..6 {
            assert_eq!(send(get(&edge.url("/x"), &key)).await.status(), 200);
        }
        calls(&sick) == before
    })
    .await;
    is_healthy.store(true, Relaxed);
    let before = calls(&sick);
    eventually("it gets calls again", async || {
        send(get(&edge.url("/x"), &key)).await;
        calls(&sick) > before
    })
    .await;
    assert!(world.events().await.values().all(|event| event.path != "/health"), "probes are nobody's calls");
}
