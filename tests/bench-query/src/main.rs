//! Measures query: its answers over 1, 10 and 100 million calls, beside Unkey's tables and Postgres on the same machine.
//! Prints a table, progress to the standard error and one JSON object as its last line. Asserts no time.

mod keys;
mod load;
mod measure;
mod ours;
mod pages;
mod peers;
mod questions;
mod run;

use std::path::{Path, PathBuf};

use clap::Parser as _;
use figures::{Asked, Figures, say};
use measure::line;
use ours::Ours;

/// What is asked of figures.
const ASKED: &[(&str, Asked)] = &[
    ("summary_p99_ms", Asked::AtMost(30.0)),
    ("breakdown_p99_ms", Asked::AtMost(30.0)),
    ("top_endpoints_p99_ms", Asked::AtMost(30.0)),
    ("series_p99_ms", Asked::AtMost(30.0)),
    ("log_page_p99_ms", Asked::AtMost(50.0)),
    ("page_p99_ms", Asked::AtMost(150.0)),
    ("summary_32_callers_p99_ms", Asked::AtMost(250.0)),
    ("export_rows_per_s", Asked::AtLeast(300_000.0)),
    ("growth_10m_100m", Asked::AtMost(1.3)),
    ("unkey_rollup_ratio", Asked::AtLeast(1.0)),
    ("unkey_rows_ratio", Asked::AtLeast(5.0)),
    ("postgres_hot_ratio", Asked::AtLeast(10.0)),
    ("first_contentful_paint_max_ms", Asked::AtMost(500.0)),
    ("filter_change_max_ms", Asked::AtMost(300.0)),
];

/// How many calls there are, and what is added to names of figures.
const SIZES: [(u64, &str); 3] = [(1_000_000, "_at_1m"), (10_000_000, "_at_10m"), (100_000_000, "_at_100m")];
/// Others are loaded with no more than that.
const COMPARED_MAX: u64 = 10_000_000;

#[derive(clap::Parser)]
struct Settings {
    /// Where calls are kept between runs.
    #[arg(long, env = "KEYMETER_BENCH_DATA")]
    data: Option<PathBuf>,
    /// The largest size.
    #[arg(long, env = "KEYMETER_BENCH_EVENTS", default_value_t = 100_000_000)]
    events: u64,
    /// Ask only questions whose line of the table contains this, alone and of the largest size; `export` reads files only.
    #[arg(long, env = "KEYMETER_BENCH_ONLY")]
    only: Option<String>,
    /// Open the pages of ui over the largest size in Chromium, and ask nothing else.
    #[arg(long)]
    pages: bool,
    /// The folder for what can be made again.
    #[arg(long, env = "XDG_CACHE_HOME")]
    cache: Option<PathBuf>,
    #[arg(long, env = "HOME", default_value = "/tmp")]
    home: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let cache = settings.cache.unwrap_or_else(|| settings.home.join(".cache"));
    let data = settings.data.unwrap_or_else(|| cache.join("keymeter/bench-query"));
    let folder = load::folder(&data)?;
    let sizes: Vec<_> = SIZES.into_iter().filter(|(events, _)| *events <= settings.events).collect();
    let largest = sizes.last().map_or(0, |(events, _)| *events);
    let figures = Figures::new(ASKED);
    figures.note("events", largest as f64);
    if let Some(part) = settings.only {
        return some(&folder, largest, &part).await;
    }
    if settings.pages {
        let ours = Ours::start(load::load(&folder, largest).await?).await?;
        pages::measure(&figures, &ours).await?;
        return line(figures.json());
    }
    // The largest first: figures without a suffix are of it.
    let mut worst = Vec::new();
    for (events, suffix) in sizes.iter().rev() {
        say(&format!("{events} calls"));
        line(format_args!("{events} calls"))?;
        let suffix = if *events == largest { "" } else { suffix };
        let ours = Ours::start(load::load(&folder, *events).await?).await?;
        worst.push(run::measure(&figures, &ours, &ours.ranks().await?, suffix).await?);
    }
    if let [large, small, _] = &worst[..] {
        run::growth(&figures, small, large);
    }
    let compared: Vec<_> = sizes.into_iter().filter(|(events, _)| *events <= COMPARED_MAX).collect();
    let largest = compared.last().map_or(0, |(events, _)| *events);
    for (events, suffix) in compared.into_iter().rev() {
        say(&format!("{events} calls, beside others"));
        line(format_args!("{events} calls, beside others"))?;
        let suffix = if events == largest { "" } else { suffix };
        let ours = Ours::start(load::load(&folder, events).await?).await?;
        peers::compare(&figures, &ours, &ours.ranks().await?, suffix).await?;
    }
    line(figures.json())
}

/// Asks some of the questions about a number of calls, or reads its export.
async fn some(folder: &Path, events: u64, part: &str) -> anyhow::Result<()> {
    let ours = Ours::start(load::load(folder, events).await?).await?;
    let keys = ours.ranks().await?;
    if part == "export" {
        return run::export(&Figures::new(ASKED), &ours, &keys[0]).await;
    }
    let mut questions = questions::all(&keys, ours.loaded.end_ms);
    questions.retain(|question| question.to_string().contains(part));
    run::alone(&Figures::new(&[]), &ours, &questions, "").await?;
    Ok(())
}
