//! What NATS alone gives: every message fetched as ingest fetches it, and dropped.

use std::time::Instant;

use figures::{Figures, process::cpu_s, say};
use futures_util::future::try_join_all;

use crate::{edges::SHARDS, stage::Stage};

pub(crate) async fn measure(figures: &Figures, stage: &Stage, calls: usize) -> anyhow::Result<()> {
    say("NATS alone: fetch without insert");
    let cpu_before = cpu_s(stage.nats.pid())?;
    let began = Instant::now();
    try_join_all((0..SHARDS).map(async |shard| {
        let last_sequence = stage.bus.stream_state(shard).await?.last_sequence;
        let mut reader = stage.bus.read(shard, 0).await?;
        while reader.next().await?.sequence < last_sequence {}
        anyhow::Ok(())
    }))
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let calls = calls as f64;
    figures.note("nats_events_per_s", calls / began.elapsed().as_secs_f64());
    figures.note("nats_fetch_cpu_s_per_million", (cpu_s(stage.nats.pid())? - cpu_before) * 1e6 / calls);
    Ok(())
}
