//! Calls in an engine's folder that stays between runs: made once by the engine itself, in order of time, then found
//! again by a mark. Never touches folders that do not bear a hash, as its own do.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use figures::say;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parts::ClickHouse;
use time::OffsetDateTime;

/// The time over which the calls are spread.
pub(crate) const RANGE_MS: i64 = 30 * 86_400_000;

/// Makes a slice.
const CALLS: &str = include_str!("calls.sql");
/// Calls of a slice.
const SLICE: u64 = 1_000_000;
/// Slices at a time.
const LANES: usize = 2;
const QUARTER_S: i64 = 900;
/// How long merges after a load are waited for, and time between two looks.
const MERGES_S: u64 = 300;
const LOOK: Duration = Duration::from_millis(500);

/// An engine over calls.
pub(crate) struct Loaded {
    pub(crate) clickhouse: ClickHouse,
    /// The quarter hour at which the calls end, in milliseconds since 1970.
    pub(crate) end_ms: i64,
}

/// A folder for the data that these migrations and this generator make; removes those of others before.
pub(crate) fn folder(parent: &Path) -> anyhow::Result<PathBuf> {
    let mut hash = 0_u64;
    let mut add = |bytes: &[u8]| {
        hash = bytes.iter().fold(hash, |hash, byte| hash.wrapping_mul(31).wrapping_add((*byte).into()));
    };
    for file in parts::migrations() {
        add(&fs::read(file)?);
    }
    add(CALLS.as_bytes());
    let name = format!("{hash:016x}");
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let other = entry.file_name().to_string_lossy().into_owned();
        let is_hash = other.len() == name.len() && other.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash && other != name {
            say(&format!("Removing {}", entry.path().display()));
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(parent.join(name))
}

/// An engine over that many calls, which are made if they are not there.
pub(crate) async fn load(folder: &Path, events: u64) -> anyhow::Result<Loaded> {
    let folder = folder.join(events.to_string());
    let mark = folder.join("loaded");
    if let Ok(end_ms) = fs::read_to_string(&mark) {
        let clickhouse = ClickHouse::start_over(&folder.join("engine")).await;
        return Ok(Loaded { clickhouse, end_ms: end_ms.trim().parse()? });
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let clickhouse = ClickHouse::start_over(&folder.join("engine")).await;
    clickhouse.create_tables().await;
    let end_ms = OffsetDateTime::now_utc().unix_timestamp() / QUARTER_S * QUARTER_S * 1_000;
    let (began, done) = (Instant::now(), AtomicU64::new(0));
    let slices = stream::iter((0..events).step_by(SLICE as usize)).map(|from| {
        let (clickhouse, done) = (&clickhouse, &done);
        async move {
            let count = SLICE.min(events - from);
            run(clickhouse, &slice(from, count, events, end_ms)).await?;
            let done = done.fetch_add(count, Ordering::Relaxed) + count;
            let per_s = done as f64 / began.elapsed().as_secs_f64();
            say(&format!("{done} of {events} calls are loaded, {per_s:.0} a second"));
            anyhow::Ok(())
        }
    });
    slices.buffer_unordered(LANES).try_collect::<()>().await?;
    settle(&clickhouse).await?;
    close_months(&clickhouse).await?;
    fs::write(mark, end_ms.to_string())?;
    Ok(Loaded { clickhouse, end_ms })
}

/// Merges the months before the last one as ClickHouse does when they are a day old, and keeps it from doing so with the
/// last one, which is open for those who ask.
async fn close_months(clickhouse: &ClickHouse) -> anyhow::Result<()> {
    let months = "select distinct partition from system.parts where active and database = 'keymeter' \
                  and table = 'request_events' order by partition";
    let months = run(clickhouse, months).await?;
    let months: Vec<_> = months.lines().collect();
    for month in months.iter().rev().skip(1) {
        say(&format!("Merging the month {month}"));
        run(clickhouse, &format!("optimize table keymeter.request_events partition {month} final")).await?;
    }
    let stay = "alter table keymeter.request_events modify setting min_age_to_force_merge_seconds = 0";
    run(clickhouse, stay).await?;
    Ok(())
}

/// Waits until the engine merges nothing any more, for a while.
pub(crate) async fn settle(clickhouse: &ClickHouse) -> anyhow::Result<()> {
    let began = Instant::now();
    while run(clickhouse, "select count() from system.merges").await?.trim() != "0" {
        if began.elapsed().as_secs() > MERGES_S {
            say("Merges are still under way; going on beside them");
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What the engine answers, as lines with tabs.
pub(crate) async fn run(clickhouse: &ClickHouse, sql: &str) -> anyhow::Result<String> {
    clickhouse.try_query(sql).await.map_err(|error| anyhow!("{sql}: {error}"))
}

fn slice(from: u64, count: u64, events: u64, end_ms: i64) -> String {
    CALLS
        .replace("{from}", &from.to_string())
        .replace("{count}", &count.to_string())
        .replace("{events}", &events.to_string())
        .replace("{range_ms}", &RANGE_MS.to_string())
        .replace("{end_ms}", &end_ms.to_string())
}
