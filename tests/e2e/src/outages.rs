//! Parts that are down at start or go away: services wait and say so, and no call is lost.

use std::collections::BTreeSet;

use parts::{ClickHouse, Nats, Postgres};

use crate::{stack::Stack, usage::last_day};

async fn readyz(port: u16) -> String {
    parts::get(&format!("127.0.0.1:{port}"), "/readyz").await.unwrap().body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_start_in_any_order_and_say_what_they_miss() {
    let (mut nats, postgres, mut clickhouse) =
        tokio::join!(Nats::start(), Postgres::start(), ClickHouse::start());
    nats.stop().await;
    clickhouse.stop().await;
    let mut stack = Stack::start_on(nats, postgres, clickhouse).await;
    let ports = &stack.ports;
    for (port, missing) in [
        (ports.ingest_health, "nats"),
        (ports.edge_health, "keys"),
        (ports.query_health, "clickhouse"),
        (ports.keys_health, "nats"),
    ] {
        parts::eventually(missing, async || {
            let answer = parts::get(&format!("127.0.0.1:{port}"), "/readyz").await.ok()?;
            (answer.status == 503 && answer.body.contains(missing) && answer.body.contains("since"))
                .then_some(())
        })
        .await;
    }
    stack.clickhouse.restart().await;
    stack.nats.restart().await;
    stack.ready().await;
    let key = stack.make_key("After the start").await;
    assert_eq!(stack.client(&key.secret).get("/v1/orders").await.status, 200);
    stack.complete().await;
    assert_eq!(stack.total(last_day(&[key.id()])).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_waits_for_postgres() {
    let mut stack = Stack::start().await;
    stack.keys.sigterm().await;
    stack.postgres.stop().await;
    stack.keys.restart();
    let port = stack.ports.keys_health;
    parts::eventually("keys misses postgres", async || {
        let answer = parts::get(&format!("127.0.0.1:{port}"), "/readyz").await.ok()?;
        answer.body.contains("postgres").then_some(())
    })
    .await;
    stack.postgres.restart().await;
    stack.ready().await;
    stack.make_key("After the outage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_made_while_the_rest_is_away_are_counted_once() {
    let mut stack = Stack::start().await;
    let key = stack.make_key("Steady").await;
    let client = stack.client(&key.secret);
    let mut answered = BTreeSet::new();
    for outage in ["clickhouse", "nats", "nats and clickhouse", "nats forgets"] {
        if outage.contains("clickhouse") {
            stack.clickhouse.kill().await;
        }
        if outage.contains("nats") {
            stack.nats.kill().await;
        }
        if outage == "nats forgets" {
            stack.nats.wipe();
        }
        for _ in 0..50 {
            let answer = client.get("/v1/orders/17").await;
            assert_eq!(answer.status, 200, "{outage}");
            answered.insert(answer.request_id());
        }
        if outage.contains("nats") {
            stack.nats.restart().await;
        }
        if outage.contains("clickhouse") {
            stack.clickhouse.restart().await;
        }
        stack.ready().await;
    }
    stack.assert_counted_once(&answered, 0).await;
    assert!(readyz(stack.ports.edge_health).await.contains("true"));
}
