//! `ingest audit`: reads all that the streams hold, asks ClickHouse what it has of it, and prints both by shard and
//! hour. Only looks, unless it is told to repair.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
};

use anyhow::ensure;
use clap::Args;
use proto::nats;
use serde::Serialize;
use serde_json::json;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Findings, REPAIRS_MAX, Repaired, Said};
use crate::{
    Services,
    batch::Message,
    command::{Progress, connect},
    config::Config,
    decode,
    erasures::Erased,
    event,
    intervals::Intervals,
    store::{HourCount, Store},
    takeover, time_rule,
    trouble::Trouble,
    world::Servers,
};

/// Hours that are printed even if the streams hold nothing of them.
const HOURS: i64 = 24;
const HOUR_S: i64 = 3_600;
/// New rows come between one question and the next; a difference that lasts is one.
const LOOKS: usize = 3;

/// Settings of `audit`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Make one row of each doubled one and restore the missing ones, taking each shard for a moment
    #[arg(long)]
    repair: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Line {
    /// `None` for all shards together.
    shard: Option<u16>,
    hour: String,
    /// Events that the stream holds and that are to be rows.
    stream: Option<u64>,
    rows: u64,
    events: u64,
    /// What the totals count, over all shards.
    projection: Option<u64>,
}

/// What a stream holds.
#[derive(Default)]
struct Held {
    by_hour: BTreeMap<i64, u64>,
    by_boot: BTreeMap<(String, u32), Intervals>,
}

impl Held {
    /// Each event that is to be a row, once; but those of days before `open_ns`, which may have expired.
    fn add(&mut self, message: &Message, shard: u16, erased: &Erased, open_ns: i64) {
        let Ok(decoded) = decode::decode(message.payload.clone(), shard) else { return };
        let known = self.by_boot.entry((decoded.edge_id, decoded.boot_epoch)).or_default();
        let broker_ns = event::nanos(message.published_at);
        for (seq, bytes) in (decoded.first_seq..).zip(decoded.events) {
            let read = |event: &event::Event<'_>| (event.workspace_id, event.occurred_at_ns);
            let Ok((workspace_id, occurred_at_ns)) = event::read(&bytes, read) else { continue };
            let (at_ns, _) = time_rule::bucketed(occurred_at_ns, broker_ns);
            if known.contains(seq) || at_ns < open_ns || erased.covers(workspace_id, at_ns) {
                continue;
            }
            known.insert((seq, seq));
            *self.by_hour.entry(at_ns.div_euclid(HOUR_S * 1_000_000_000) * HOUR_S).or_default() += 1;
        }
    }
}

/// Runs the command; an error if anything differs and is not repaired.
///
/// # Errors
/// A server; any difference.
pub async fn run(config: &Config, asked: &Arguments) -> anyhow::Result<()> {
    let services = connect(config).await?;
    let erased = services.erasures.borrow().erased.clone();
    let (mut lines, mut found, mut hours) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    let now = OffsetDateTime::now_utc().unix_timestamp().div_euclid(HOUR_S) * HOUR_S;
    hours.extend((0..HOURS).map(|ago| now - ago * HOUR_S));
    for shard in nats::all_shards(config.shards) {
        let (held, findings) = look(&services.world, shard, &erased).await?;
        hours.extend(held.by_hour.keys());
        let counts = services.world.store.hours(Some(shard), &hours, false).await?;
        for (hour, HourCount { rows, events }) in &counts {
            let stream = Some(held.by_hour.get(hour).copied().unwrap_or(0));
            let hour = text(*hour);
            lines.push(Line {
                shard: Some(shard),
                hour,
                stream,
                rows: *rows,
                events: *events,
                projection: None,
            });
        }
        if !findings.is_empty() {
            found.insert(shard, findings);
        }
    }
    let drifted = projection(&services.world.store, &hours, &mut lines).await?;
    let repaired = if asked.repair { repair(&services, &found, &erased).await? } else { BTreeMap::new() };
    print(asked.json, &lines, &found, &repaired)?;
    ensure!(drifted == 0, "in {drifted} hours the totals do not count what the rows do");
    let archived: u64 = repaired.values().map(|repaired| repaired.archived).sum();
    ensure!(
        archived == 0,
        "{archived} doubled rows are of days that are in the archive: they stay, and so does its total"
    );
    let missing: usize = found.values().map(|findings| findings.missing.len()).sum();
    let doubled: usize = found.values().map(|findings| findings.doubled.len()).sum();
    ensure!(
        asked.repair || found.is_empty(),
        "{missing} rows are missing and {doubled} are doubled; `ingest audit --repair` repairs them"
    );
    Ok(())
}

/// What the stream of a shard holds, and what differs from the rows.
async fn look(world: &Servers, shard: u16, erased: &Erased) -> anyhow::Result<(Held, Findings)> {
    let Servers { bus, store, .. } = world;
    let mut held = Held::default();
    let Some(record) = bus.existing_record(shard).await? else { return Ok((held, Findings::default())) };
    let cursor = record.cursor.sequence;
    let (first, last) = bus.held(shard).await?;
    let open_ns = store.archived(shard).await?.map_or(i64::MIN, |archived| event::nanos(archived.end()));
    let mut progress = Progress::new("read messages", (last.min(cursor) + 1).saturating_sub(first));
    super::read(bus, shard, cursor, |message| {
        held.add(&message, shard, erased, open_ns);
        progress.step();
    })
    .await?;
    // What the stream does not hold any more, but was closed a short while ago.
    let mut findings = super::find(store, bus, shard, &record, OffsetDateTime::now_utc()).await?;
    for ((edge_id, boot_epoch), expected) in &held.by_boot {
        let rows = store.sequences(shard, edge_id, *boot_epoch, 0).await?;
        let gaps = store.gaps(shard, edge_id, *boot_epoch).await?;
        findings.add_missing(edge_id, *boot_epoch, &expected.without(&rows).without(&gaps));
        let doubled = store.doubled(shard, edge_id, *boot_epoch).await?;
        findings
            .doubled
            .extend(doubled.into_iter().take(REPAIRS_MAX).map(|seq| (edge_id.clone(), *boot_epoch, seq)));
    }
    if !findings.missing.is_empty() {
        findings.published = super::published(bus, shard, cursor, &findings.missing).await?;
    }
    Ok((held, findings))
}

/// Adds a line for each hour over all shards; in how many hours the projection counts something else than the rows.
async fn projection(store: &Store, hours: &BTreeSet<i64>, lines: &mut Vec<Line>) -> anyhow::Result<usize> {
    let mut looks = 0;
    loop {
        looks += 1;
        let projected = store.hours(None, hours, true).await?;
        let counted = store.hours(None, hours, false).await?;
        let differs = |hour: &i64| {
            projected.get(hour).map_or(0, |count| count.rows)
                != counted.get(hour).map_or(0, |count| count.rows)
        };
        let drifted = hours.iter().filter(|hour| differs(hour)).count();
        if drifted > 0 && looks < LOOKS {
            continue;
        }
        lines.extend(counted.into_iter().map(|(hour, HourCount { rows, events })| Line {
            shard: None,
            projection: Some(projected.get(&hour).map_or(0, |count| count.rows)),
            hour: text(hour),
            stream: None,
            rows,
            events,
        }));
        return Ok(drifted);
    }
}

async fn repair(
    services: &Services<Servers>,
    found: &BTreeMap<u16, Findings>,
    erased: &Erased,
) -> anyhow::Result<BTreeMap<u16, Repaired>> {
    let mut repaired = BTreeMap::new();
    for (shard, findings) in found {
        let work = Box::pin(async {
            let mut lease = takeover::take(*shard, "audit", services).await?;
            let mut inserts = 0;
            let next = || {
                inserts += 1;
                inserts
            };
            let done = super::repair(&services.world, &mut lease, *shard, erased, findings, next).await?;
            lease.release().await;
            Ok::<_, Trouble>(done)
        });
        let done = takeover::in_one_connection(&services.world, work).await?;
        repaired.insert(*shard, done);
    }
    Ok(repaired)
}

fn print(
    json: bool,
    lines: &[Line],
    found: &BTreeMap<u16, Findings>,
    repaired: &BTreeMap<u16, Repaired>,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let of = |which: &BTreeSet<_>| {
            let runs = super::runs(which).into_iter();
            runs.map(|(edge_id, boot_epoch, (first_seq, last_seq))| {
                json!({ "edge_id": edge_id, "boot_epoch": boot_epoch, "first_seq": first_seq, "last_seq": last_seq })
            })
            .collect::<Vec<_>>()
        };
        let found: Vec<_> = found
            .iter()
            .map(|(shard, findings)| {
                let repaired = repaired.get(shard).map(|Repaired { restored, gone, single, archived }| {
                    json!({ "restored": restored, "gone": gone, "single": single, "archived": archived })
                });
                let (missing, doubled) = (of(&findings.missing), of(&findings.doubled));
                json!({ "shard": shard, "missing": missing, "doubled": doubled, "repaired": repaired })
            })
            .collect();
        return Ok(writeln!(out, "{}", json!({ "hours": lines, "found": found }))?);
    }
    writeln!(
        out,
        "{:>5}  {:20}  {:>12}  {:>12}  {:>12}  {:>12}",
        "SHARD", "HOUR", "STREAM", "ROWS", "EVENTS", "PROJECTION"
    )?;
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    for Line { shard, hour, stream, rows, events, projection } in lines {
        let shard = shard.map_or_else(|| "all".to_owned(), |shard| shard.to_string());
        let (stream, projection) = (number(*stream), number(*projection));
        writeln!(out, "{shard:>5}  {hour:20}  {stream:>12}  {rows:>12}  {events:>12}  {projection:>12}")?;
    }
    for (shard, findings) in found {
        for (what, which) in [("missing", &findings.missing), ("doubled", &findings.doubled)] {
            if !which.is_empty() {
                writeln!(out, "{what}: shard {shard}: {}", Said(which))?;
            }
        }
        if let Some(Repaired { restored, gone, single, archived }) = repaired.get(shard) {
            writeln!(
                out,
                "repaired: shard {shard}: {restored} restored, {gone} gone and noted as a gap, {single} made one, \
                 {archived} left as they are, since their day is in the archive"
            )?;
        }
    }
    if found.is_empty() {
        writeln!(out, "No row is missing or doubled.")?;
    }
    Ok(())
}

fn text(hour: i64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::seconds(hour);
    at.format(&Rfc3339).unwrap_or_default()
}
