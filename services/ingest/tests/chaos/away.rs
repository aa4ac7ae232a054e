//! ClickHouse away for long: nothing is lost, ingest takes no more memory for it, and catches up by itself.

use std::time::{Duration, Instant};

use parts::{asked, say, seed};

use crate::{
    crowd::{Crowd, Load},
    support::Stage,
};

/// What the memory of ingest may grow by meanwhile; an hour's events would be hundreds of times that.
const GROWTH_MAX_KIB: u64 = 64 << 10;
const LOOK: Duration = Duration::from_millis(200);

#[tokio::test]
async fn clickhouse_away_for_long() {
    let away = Duration::from_secs(asked("KEYMETER_CHAOS_AWAY_S", 3));
    let mut stage = Stage::start_roomy().await;
    let load = Load { events_max: asked("KEYMETER_CHAOS_AWAY_EVENTS", 500), pause_max_ms: 200 };
    let mut crowd = Crowd::with_load(&stage, seed(), load).await;
    // So that it has what memory it works with.
    crowd.during(tokio::time::sleep(Duration::from_secs(1))).await;
    crowd.settle().await;
    let (before_kib, before) = (memory_kib(&stage), crowd.accepted());

    stage.clickhouse.kill().await;
    let mut most_kib = before_kib;
    crowd
        .during(async {
            let end = Instant::now() + away;
            while Instant::now() < end {
                tokio::time::sleep(LOOK).await;
                most_kib = most_kib.max(memory_kib(&stage));
            }
        })
        .await;
    let missed = crowd.accepted() - before;
    assert!(stage.ingest.log().contains("away: waiting"), "ingest says that ClickHouse is away");
    assert!(
        most_kib <= before_kib + GROWTH_MAX_KIB,
        "ingest grew from {before_kib} to {most_kib} KiB while ClickHouse was away"
    );

    stage.clickhouse.restart().await;
    let back = Instant::now();
    crowd.settle().await;
    let (arrival, catch_up) =
        (missed as f64 / away.as_secs_f64(), missed as f64 / back.elapsed().as_secs_f64());
    crowd.assert_exact(&stage).await;
    say(&format!(
        "ClickHouse away for {} s: {missed} events came meanwhile, {arrival:.0} a second, and were caught up with at \
         {catch_up:.0} a second, {:.1} times as fast; ingest had {} MiB before, at most {} meanwhile, {} after",
        away.as_secs(),
        catch_up / arrival,
        before_kib >> 10,
        most_kib >> 10,
        memory_kib(&stage) >> 10,
    ));
}

fn memory_kib(stage: &Stage) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", stage.ingest.pid())).expect("ingest runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.expect("a process has memory")
}
