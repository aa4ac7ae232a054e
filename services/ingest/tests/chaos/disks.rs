//! Full disks, each a small one of its own: ingest says so, nothing is lost, and all goes on when there is space again.

use std::time::Instant;

use parts::{SmallDisk, eventually, say, seed};

use crate::{crowd::Crowd, support::Stage};

const CLICKHOUSE_MIB: u32 = 192;
const NATS_MIB: u32 = 64;

/// Waits until `/readyz` misses `need` for a reason that has `word` in it.
async fn alarmed(stage: &Stage, need: &str, word: &str) {
    let full = Instant::now();
    let said = eventually("ingest says that a disk is full", async || {
        let answer = parts::get(&stage.health, "/readyz").await.ok()?;
        (answer.status == 503 && answer.body.contains(need) && answer.body.contains(word))
            .then_some(answer.body)
    })
    .await;
    say(&format!("after {:.1} s: {said}", full.elapsed().as_secs_f64()));
    let log = stage.ingest.log();
    assert!(log.contains("away: waiting") && log.contains(word), "the log says so too");
}

#[tokio::test]
async fn the_disk_of_clickhouse_is_full() {
    let mut stage = Stage::start().await;
    stage.clickhouse.stop().await;
    let disk = SmallDisk::mount(&stage.clickhouse.data(), CLICKHOUSE_MIB);
    stage.clickhouse.restart().await;
    stage.wait_ready().await;
    let mut crowd = Crowd::new(&stage, seed()).await;
    crowd.during(tokio::time::sleep(std::time::Duration::from_secs(1))).await;
    disk.fill();
    crowd.during(alarmed(&stage, "clickhouse", "not enough space")).await;
    disk.empty();
    crowd.during(stage.wait_ready()).await;
    crowd.assert_exact(&stage).await;
    say(&format!("{} events accepted, each one row", crowd.accepted()));
}

#[tokio::test]
async fn the_disk_of_nats_is_full() {
    let mut stage = Stage::start().await;
    stage.nats.stop().await;
    let disk = SmallDisk::mount(&stage.nats.folder().join("jetstream"), NATS_MIB);
    stage.nats.restart().await;
    stage.wait_ready().await;
    let mut crowd = Crowd::new(&stage, seed()).await;
    crowd.during(tokio::time::sleep(std::time::Duration::from_secs(1))).await;
    disk.fill();
    crowd.during(alarmed(&stage, "nats", "space left")).await;
    disk.empty();
    // It writes no more to a stream that it once could not write, space or not.
    stage.nats.stop().await;
    stage.nats.restart().await;
    crowd.during(stage.wait_ready()).await;
    crowd.assert_exact(&stage).await;
    say(&format!("{} events accepted, each one row", crowd.accepted()));
}
