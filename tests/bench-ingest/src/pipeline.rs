//! The whole: from full streams to rows that a query sees, and what each process uses for it.

use std::time::Instant;

use anyhow::ensure;
use figures::{
    Figures,
    process::{cpu_s, memory_mib},
    say,
};

use crate::{disk, stage::Stage};

/// Events a second.
pub(crate) async fn measure(figures: &Figures, stage: Stage, calls: usize) -> anyhow::Result<f64> {
    say("the whole: from streams to rows");
    let ingest = stage.spawn_ingest().await;
    // Ingest has started and owns its shards once there are rows; from there on it is timed.
    let first = stage.wait_for_rows(1).await?;
    let processes =
        [("ingest", ingest.pid()), ("clickhouse", stage.clickhouse.pid()), ("nats", stage.nats.pid())];
    let cpu_before = processes.map(|(_, pid)| cpu_s(pid));
    let began = Instant::now();
    stage.wait_for_rows(calls).await?;
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let timed = (calls - first) as f64;
    let mut all = 0.0;
    for ((name, pid), before) in processes.into_iter().zip(cpu_before) {
        let per_million = (cpu_s(pid)? - before?) * 1e6 / timed;
        figures.note(&format!("{name}_cpu_s_per_million"), per_million);
        all += per_million;
    }
    figures.note("cpu_s_per_million", all);
    figures.note("rss_mib", memory_mib(ingest.pid(), "VmHWM")?);
    figures.note("pipeline_events_per_s", timed / seconds);
    let rows = stage.rows().await;
    ensure!(rows == calls, "{rows} rows of {calls} calls: a speed is worth nothing if the count is wrong");
    disk::report(figures, &stage).await?;
    Ok(timed / seconds)
}
