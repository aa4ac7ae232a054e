//! Crashes of every part under load: nothing lost, nothing doubled. The oracle is the edges' own numbering.

use std::time::Duration;

use parts::eventually;

use crate::support::{Chance, Edge, Stage};

/// Load from two edges for `rounds` short whiles, with one `blow` at any moment of each.
async fn under_load(
    stage: &mut Stage,
    rounds: u64,
    seed: u64,
    mut blow: impl AsyncFnMut(&mut Stage, u64),
) -> [Edge; 2] {
    let jetstream = stage.jetstream().await;
    let mut edges = ["edge_a", "edge_b"].map(|id| Edge::new(id, jetstream.clone()));
    let mut chance = Chance::new(seed);
    for round in 0..rounds {
        let moment = Duration::from_millis(chance.below(400));
        let load = async {
            for _ in 0..30 {
                let edge = &mut edges[chance.below(2) as usize];
                let message = edge.spool(1 + chance.below(100));
                edge.publish(&message).await;
                tokio::time::sleep(Duration::from_millis(chance.below(20))).await;
            }
        };
        let blow = async {
            tokio::time::sleep(moment).await;
            blow(stage, round).await;
        };
        tokio::join!(load, blow);
    }
    edges
}

async fn assert_settled(stage: &mut Stage, mut edges: [Edge; 2]) {
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
}

#[tokio::test]
async fn ingest_killed_twenty_times() {
    let mut stage = Stage::start().await;
    let edges = under_load(&mut stage, 20, 1, async |stage, _| {
        stage.ingest.kill().await;
        stage.ingest.restart();
        // So that the next blow meets one at work, in the middle of what was left.
        stage.wait_ready().await;
    })
    .await;
    assert_settled(&mut stage, edges).await;
}

#[tokio::test]
async fn clickhouse_killed_under_load() {
    let mut stage = Stage::start().await;
    let edges = under_load(&mut stage, 6, 2, async |stage, round| {
        stage.clickhouse.kill().await;
        if round % 2 == 0 {
            let health = stage.health.clone();
            eventually("ingest says that ClickHouse is away", async || {
                matches!(parts::get(&health, "/readyz").await, Ok(answer) if answer.status == 503 && answer.body.contains("clickhouse"))
            })
            .await;
        }
        stage.clickhouse.restart().await;
    })
    .await;
    assert_settled(&mut stage, edges).await;
    let away = stage.ingest.log().lines().filter(|line| line.contains("away: waiting")).count();
    assert!(away <= 12, "said {away} times");
}

#[tokio::test]
async fn nats_killed_under_load() {
    let mut stage = Stage::start().await;
    let edges = under_load(&mut stage, 6, 3, async |stage, _| {
        stage.nats.kill().await;
        stage.nats.restart().await;
    })
    .await;
    assert_settled(&mut stage, edges).await;
}

#[tokio::test]
async fn nats_forgets_everything() {
    let mut stage = Stage::start().await;
    let edges = under_load(&mut stage, 3, 4, async |stage, _| {
        stage.nats.stop().await;
        stage.nats.wipe();
        stage.nats.restart().await;
    })
    .await;
    assert_settled(&mut stage, edges).await;
}

#[tokio::test]
async fn everything_at_once() {
    let mut stage = Stage::start().await;
    let edges = under_load(&mut stage, 6, 5, async |stage, round| {
        stage.ingest.kill().await;
        if round % 2 == 0 {
            stage.nats.kill().await;
            stage.nats.restart().await;
        }
        stage.clickhouse.kill().await;
        stage.clickhouse.restart().await;
        stage.ingest.restart();
    })
    .await;
    assert_settled(&mut stage, edges).await;
}
