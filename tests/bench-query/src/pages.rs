//! The usage page of the hottest key as a person meets it: ui and query as processes, Chromium, and a clock. What keys
//! would say is said by the bench.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use figures::{Figures, say};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::{load::RANGE_MS, measure::line, ours::Ours, questions::favourite_route};

const CHROMIUM: &str = "/usr/bin/chromium";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pages.cjs");

/// One page.
#[derive(Deserialize)]
struct Page {
    kind: String,
    what: String,
    paint_ms: f64,
    done_ms: f64,
}

/// Opens pages and changes their filters, and notes how long that takes.
pub(crate) async fn measure(figures: &Figures, ours: &Ours) -> anyhow::Result<()> {
    ensure!(Path::new(CHROMIUM).exists(), "Chromium is missing: apt-get install chromium");
    let keys = ours.ranks().await?;
    let hottest = keys.first().context("no key was ever called")?;
    ours.show(hottest.workspace_id);
    let (_ui, ui_url) = ours.start_ui().await;
    let at = |ms: i64| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let mut browser = Command::new("node")
        .arg(SCRIPT)
        .env("NODE_PATH", parts::node_modules())
        .env("CHROMIUM", CHROMIUM)
        .env("UI_URL", ui_url)
        .env("KEY", hottest.key_id.to_string())
        .env("ROUTE", favourite_route(hottest))
        .env("FROM", at(ours.loaded.end_ms - RANGE_MS)?.format(&Rfc3339)?)
        .env("TO", at(ours.loaded.end_ms)?.format(&Rfc3339)?)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(browser.stdout.take().context("no output")?).lines();
    let mut pages: BTreeMap<(String, String), Vec<Page>> = BTreeMap::new();
    while let Some(text) = lines.next_line().await? {
        let page: Page = serde_json::from_str(&text)?;
        pages.entry((page.kind.clone(), page.what.clone())).or_default().push(page);
        say(&text);
    }
    ensure!(browser.wait().await?.success(), "the browser failed");
    line("| what | first paint, longest ms | done, median ms | longest ms |\n|---|---|---|---|")?;
    for ((kind, what), of) in &pages {
        let done: Vec<_> = of.iter().map(|page| page.done_ms).collect();
        let (paint, longest) = (longest(of, |page| page.paint_ms), longest(of, |page| page.done_ms));
        line(format_args!("| {kind}: {what} | {paint:.0} | {:.0} | {longest:.0} |", figures::median(done)))?;
    }
    let of = |kind: &str| pages.values().flatten().filter(|page| page.kind == kind).collect::<Vec<_>>();
    let (loads, changes) = (of("load"), of("change"));
    figures.note("first_contentful_paint_max_ms", longest(&loads, |page| page.paint_ms));
    figures.note("filter_change_p50_ms", figures::median(changes.iter().map(|page| page.done_ms).collect()));
    figures.note("filter_change_max_ms", longest(&changes, |page| page.done_ms));
    Ok(())
}

fn longest<P: std::borrow::Borrow<Page>>(pages: &[P], of: impl Fn(&Page) -> f64) -> f64 {
    pages.iter().map(|page| of(page.borrow())).fold(0.0, f64::max)
}
