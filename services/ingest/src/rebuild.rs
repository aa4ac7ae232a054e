//! `ingest rebuild`: fills a ClickHouse, empty or restored from a copy, with what the streams still hold of the events
//! that were taken. Changes neither what is taken nor what edges were told, so an ingest that starts afterwards goes on
//! where it was.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use proto::nats;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Services,
    batch::Buffer,
    bus::Reader,
    command::{self, Progress},
    config::Config,
    erasures::Erased,
    lease::Lease,
    native::Common,
    record::{Closed, Record},
    takeover,
    world::{Servers, World as _},
};

/// What is asked for.
#[derive(Debug, Clone, Copy, Args)]
pub struct Asked {
    /// Leave out what NATS took before this time, such as 2026-11-22T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: OffsetDateTime,

    /// Into a ClickHouse that was restored from a copy: write only what has no row there. --from must be before the copy
    #[arg(long)]
    pub add: bool,
}

/// How much earlier than NATS took its event a row may seem to have been written, by a clock that is behind.
const CLOCKS_APART: time::Duration = time::Duration::HOUR;

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "must look like 2026-11-22T00:00:00Z".to_owned())
}

/// A shard that is to be read.
struct Source {
    shard: u16,
    reader: Reader,
    messages: u64,
}

/// Does it.
///
/// # Errors
/// A server is away; ClickHouse is not empty, which it need not be to add; another ingest runs.
pub async fn run(config: &Config, asked: Asked) -> anyhow::Result<()> {
    let services = command::connect(config).await?;
    let Servers { bus, store, .. } = &services.world;
    let rows = store.rows().await?;
    ensure!(
        rows == 0 || asked.add,
        "ClickHouse is not empty: it has {rows} rows and totals in the database keymeter. What is there would be \
         counted twice, so nothing was done. If it was restored from a copy, say --add. Else stop ingest, \
         `drop database keymeter sync`, and try again; or name another ClickHouse with --clickhouse-url"
    );
    let erased = services.erasures.borrow().erased.clone();

    let mut sources = Vec::new();
    for shard in nats::all_shards(config.shards) {
        bus.ensure(shard).await?;
        let (reader, messages) = bus.read_since(shard, asked.from).await?;
        sources.push(Source { shard, reader, messages });
    }
    let total = sources.iter().map(|source| source.messages).sum();
    let (mut progress, mut rows) = (Progress::new("messages", total), 0);
    for source in sources {
        let shard = source.shard;
        rows += fill(source, asked, &services, &erased, &mut progress).await.with_context(|| {
            if asked.add {
                format!("shard {shard}; try again")
            } else {
                format!("shard {shard}; `drop database keymeter sync` before you try again")
            }
        })?;
    }
    writeln!(io::stdout(), "wrote {rows} rows from {total} messages; start ingest, it goes on from there")?;
    Ok(())
}

/// Writes the rows of one shard, and says how many there were.
async fn fill(
    source: Source,
    asked: Asked,
    services: &Services<Servers>,
    erased: &Erased,
    progress: &mut Progress,
) -> anyhow::Result<u64> {
    let Source { shard, mut reader, messages } = source;
    // With the epoch, so that an ingest that runs all the same loses the shard, or takes it and ends this.
    let mut lease = takeover::take(shard, "rebuild", services).await?;
    let present =
        if asked.add { find(&mut lease, services, shard, asked.from).await? } else { Closed::default() };
    let mut buffer = Buffer::new(shard, present, services.rows_max);
    buffer.obey(erased.clone());
    let (mut rows, mut inserts) = (0, 0);
    for number in 1..=messages {
        let message = lease.hold(reader.next()).await??;
        buffer.push(message, services.world.instant());
        progress.step();
        if buffer.is_full() || number == messages {
            inserts += 1;
            rows += write(&mut buffer, &mut lease, services, shard, inserts).await?;
        }
    }
    let record = Record { owner: String::new(), ..lease.record().clone() };
    lease.write(record).await?;
    Ok(rows)
}

/// What has a row already of the events that NATS took since a time.
async fn find(
    lease: &mut Lease<Servers>,
    services: &Services<Servers>,
    shard: u16,
    from: OffsetDateTime,
) -> anyhow::Result<Closed> {
    let after_ms = i64::try_from((from - CLOCKS_APART).unix_timestamp_nanos() / 1_000_000)?;
    let mut present = Closed::default();
    for run in lease.hold(services.world.found_after(shard, after_ms)).await?? {
        present.insert_found(&run.edge_id, run.boot_epoch, (run.first, run.last));
    }
    Ok(present)
}

/// Writes what was taken before, and nothing else: the rest is for ingest to read again.
async fn write(
    buffer: &mut Buffer,
    lease: &mut Lease<Servers>,
    services: &Services<Servers>,
    shard: u16,
    number: u64,
) -> anyhow::Result<u64> {
    let (mut batch, _) = buffer.drain(services.world.instant());
    let record = lease.record().clone();
    ensure!(
        batch.fates.deferred == 0,
        "{} events have too many gaps between them: choose an earlier --from",
        batch.fates.deferred
    );
    batch.rows.retain(|number| record.closed.contains(number.edge_id, number.boot_epoch, number.edge_seq));
    if !batch.gaps.is_empty() {
        lease.hold(services.world.note_gaps(shard, &batch.gaps)).await??;
    }
    let rows = batch.rows.len() as u64;
    if rows > 0 {
        let common = Common::next(shard, &record, services.world.now());
        lease.hold(services.world.insert(Arc::new(batch.rows), common, number)).await??;
        lease.write(Record { closed_through_ms: common.ingested_at_ms, ..record }).await?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_cannot_be_read_is_refused_with_an_example() {
        assert!(parse_time("2026-11-22T00:00:00Z").is_ok());
        for text in ["", "yesterday", "2026-11-22", "2026-11-22 00:00"] {
            assert!(parse_time(text).unwrap_err().contains("2026-11-22T00:00:00Z"));
        }
    }
}
