//! What the engine alone takes: the blocks that ingest would make, built before, into the same table.

use std::time::Instant;

use bytes::Bytes;
use figures::{Figures, process::cpu_s, say};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ingest::{
    batch::{Buffer, Message, rows_max},
    native::{Block, Common},
    record::Closed,
};
use parts::ClickHouse;
use time::OffsetDateTime;

use crate::{edges::SHARDS, stage};

/// A block and its rows.
type Prebuilt = (Vec<Bytes>, usize);

/// Rows a second, the better of one and two inserts at a time.
pub(crate) async fn measure(figures: &Figures, messages: &[(u16, Bytes)]) -> anyhow::Result<f64> {
    let cpu_before = cpu_s(std::process::id())?;
    let blocks = blocks(messages);
    let rows = blocks.iter().map(|(_, rows)| *rows).sum::<usize>();
    // What reading and building cost without any waiting: one thread, nothing else.
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let per_million = (cpu_s(std::process::id())? - cpu_before) * 1e6 / rows as f64;
    figures.note("build_cpu_s_per_million", per_million);
    say(&format!("the engine alone: {} blocks of {rows} rows together", blocks.len()));
    let mut best = 0.0_f64;
    for lanes in [1, 2] {
        let clickhouse = ClickHouse::start().await;
        let store = stage::store(&clickhouse)?;
        store.prepare().await?;
        let cpu_before = cpu_s(clickhouse.pid())?;
        let began = Instant::now();
        let inserts = stream::iter(blocks.iter().enumerate()).map(|(number, (block, _))| {
            let store = &store;
            async move { store.insert(block.clone(), &format!("bench-{number}"), None).await }
        });
        inserts.buffer_unordered(lanes).try_collect::<()>().await?;
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let rows = rows as f64;
        let rate = rows / began.elapsed().as_secs_f64();
        figures.note(&format!("engine_{lanes}_rows_per_s"), rate);
        figures.note(
            &format!("engine_{lanes}_cpu_s_per_million"),
            (cpu_s(clickhouse.pid())? - cpu_before) * 1e6 / rows,
        );
        best = best.max(rate);
    }
    figures.note("engine_rows_per_s", best);
    Ok(best)
}

/// The messages as ingest turns them into blocks when it is behind.
fn blocks(messages: &[(u16, Bytes)]) -> Vec<Prebuilt> {
    let now = Instant::now();
    let mut blocks = Vec::new();
    for shard in 0..SHARDS {
        let mut buffer = Buffer::new(shard, Closed::default(), rows_max(SHARDS));
        for (sequence, (_, payload)) in messages.iter().filter(|(of, _)| *of == shard).enumerate() {
            let (sequence, published_at) = (sequence as u64 + 1, OffsetDateTime::now_utc());
            buffer.push(Message { sequence, published_at, sent_in: None, payload: payload.clone() }, now);
            if buffer.is_full() {
                blocks.push(block(shard, &mut buffer));
            }
        }
        blocks.push(block(shard, &mut buffer));
    }
    blocks
}

fn block(shard: u16, buffer: &mut Buffer) -> Prebuilt {
    let (batch, _) = buffer.drain(Instant::now());
    let rows = batch.rows.len();
    let common = Common { shard, writer_epoch: 1, ingested_at_ms: 1_790_000_000_000 };
    (Block::new(batch.rows.into(), common).collect(), rows)
}
