//! Start and stop: in any order, under load, and against servers that do not suit.

use parts::{ClickHouse, Nats, eventually};

use crate::support::{Edge, Stage};

#[tokio::test]
async fn sigterm_under_load_loses_nothing() {
    let mut stage = Stage::start().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    for _ in 0..3 {
        for _ in 0..30 {
            let message = edges[0].spool(200);
            // Refused while the stream is full; then it is sent again below.
            edges[0].publish(&message).await;
        }
        assert!(stage.ingest.sigterm().await.success());
        stage.ingest.restart();
        stage.wait_ready().await;
    }
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
}

#[tokio::test]
async fn servers_may_come_later() {
    let (mut nats, mut clickhouse) = (Nats::start().await, ClickHouse::start().await);
    nats.stop().await;
    clickhouse.stop().await;
    let (ingest, health) = Stage::spawn_ingest(&nats, &clickhouse).await;
    let mut stage = Stage { nats, clickhouse, ingest, health };
    let missing = async |health: &str, name: &str| matches!(parts::get(health, "/readyz").await, Ok(answer) if answer.status == 503 && answer.body.contains(name));
    eventually("both are named", async || {
        missing(&stage.health, "nats").await && missing(&stage.health, "clickhouse").await
    })
    .await;
    stage.clickhouse.restart().await;
    stage.nats.restart().await;
    stage.wait_ready().await;
    let mut edges = [Edge::new("edge_a", stage.jetstream().await)];
    let message = edges[0].spool(10);
    assert!(edges[0].publish(&message).await);
    stage.settle(&mut edges).await;
    stage.assert_exact(&edges).await;
    // A stop while both are away again, waits for nobody.
    stage.nats.kill().await;
    stage.clickhouse.kill().await;
    assert!(stage.ingest.sigterm().await.success());
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let mut stage = Stage::start().await;
    assert!(stage.ingest.sigterm().await.success());
    stage
        .clickhouse
        .query("insert into keymeter.schema_migrations (version, name) values (99, 'of the future')")
        .await;
    stage.ingest.restart();
    assert!(!stage.ingest.wait().await.success());
    let log = stage.ingest.log();
    assert!(log.contains("schema version 99, this ingest knows"), "{log}");
    assert!(log.contains("install a newer ingest"), "{log}");
}
