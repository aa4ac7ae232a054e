//! What rows take on disk, once merges have settled: all of it, by column, by projection.

use std::time::{Duration, Instant};

use figures::{Figures, say};

use crate::stage::Stage;

/// Longest wait for merges.
const MERGES_MAX: Duration = Duration::from_secs(20);

/// Notes bytes for each event, and prints what they are spent on.
pub(crate) async fn report(figures: &Figures, stage: &Stage) -> anyhow::Result<()> {
    let bytes = per_event(stage).await?;
    let rows = stage.number("select count() from keymeter.request_events").await?;
    let parts = "where database = 'keymeter' and table = 'request_events' and active";
    let columns = format!(
        "select column, sum(column_data_compressed_bytes + column_marks_bytes) as bytes from system.parts_columns {parts}
         group by column having bytes > 0 order by bytes desc"
    );
    let projections = format!(
        "select concat('projection ', name), sum(bytes_on_disk) from system.projection_parts {parts} group by name"
    );
    let indices = format!(
        "select 'skip indices and primary key', sum(secondary_indices_compressed_bytes + primary_key_size) from system.parts {parts}"
    );
    say("bytes of an event on disk, by column");
    for sql in [columns, projections, indices] {
        let table = stage.clickhouse.try_query(&sql).await.map_err(anyhow::Error::msg)?;
        for line in table.lines() {
            let Some((name, bytes)) = line.split_once('\t') else { continue };
            say(&format!("  {name:<36} {:>12.2}", bytes.parse::<f64>()? / rows));
        }
    }
    figures.note("bytes_per_event", bytes);
    Ok(())
}

/// Bytes for each event of a backlog that is ingested now.
pub(crate) async fn of_traced(stage: Stage, calls: usize) -> anyhow::Result<f64> {
    let _ingest = stage.spawn_ingest().await;
    stage.wait_for_rows(calls).await?;
    per_event(&stage).await
}

async fn per_event(stage: &Stage) -> anyhow::Result<f64> {
    let began = Instant::now();
    while stage.number("select count() from system.merges").await? > 0.0 && began.elapsed() < MERGES_MAX {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let sql = "select sum(bytes_on_disk) / sum(rows) from system.parts
               where database = 'keymeter' and table = 'request_events' and active";
    stage.number(sql).await
}
