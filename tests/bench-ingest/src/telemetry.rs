//! What telemetry costs ingest: the same backlog with all of it off, as it is by default (metrics and no traces), and with
//! one of a hundred calls traced, whose spans go to a collector on this machine. In turns.

use std::time::Instant;

use figures::{Asked, Figures, median, process::cpu_s, say};
use parts::Collector;

use crate::{edges, stage::Stage};

/// What is asked of figures.
pub(crate) const ASKED: &[(&str, Asked)] = &[
    ("ingest_default_slower_percent", Asked::AtMost(5.0)),
    ("ingest_traced_slower_percent", Asked::AtMost(5.0)),
];
const MODES: [&str; 3] = ["off", "default", "traced"];
/// One call of so many is sampled.
const ONE_OF: usize = 100;

/// Measures with backlogs of so many calls, so many times.
pub(crate) async fn measure(figures: &Figures, calls: usize, rounds: usize) -> anyhow::Result<()> {
    say(&format!("telemetry: {calls} calls, {rounds} rounds, one call of {ONE_OF} traced"));
    let collector = Collector::start().await;
    let traced = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())];
    let settings = [vec![("OTEL_SDK_DISABLED", "true".to_owned())], Vec::new(), traced];
    let mut turns: [Vec<(f64, f64)>; 3] = Default::default();
    for round in 0..rounds {
        for place in 0..MODES.len() {
            let mode = (place + round) % MODES.len();
            turns[mode].push(turn(calls, &settings[mode]).await?);
        }
    }
    let of = |mode: usize, value: fn(&(f64, f64)) -> f64| median(turns[mode].iter().map(value).collect());
    for (mode, name) in MODES.iter().enumerate() {
        figures.note(&format!("ingest_{name}_events_per_s"), of(mode, |turn| turn.0));
        figures.note(&format!("ingest_{name}_cpu_s_per_million"), of(mode, |turn| turn.1));
    }
    for (mode, name) in MODES.iter().enumerate().skip(1) {
        let slower = (1.0 - of(mode, |turn| turn.0) / of(0, |turn| turn.0)) * 100.0;
        figures.note(&format!("ingest_{name}_slower_percent"), slower);
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    figures.note("ingest_spans_received", collector.count() as f64);
    Ok(())
}

/// Events a second, and ingest's own seconds for a million.
async fn turn(calls: usize, settings: &[(&'static str, String)]) -> anyhow::Result<(f64, f64)> {
    let stage = Stage::start().await?;
    stage.publish(edges::sampled_messages(calls, ONE_OF)).await?;
    let ingest = stage.spawn_ingest_with(settings).await;
    let first = stage.wait_for_rows(1).await?;
    let (began, cpu_before) = (Instant::now(), cpu_s(ingest.pid())?);
    stage.wait_for_rows(calls).await?;
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let timed = (calls - first) as f64;
    let cpu = (cpu_s(ingest.pid())? - cpu_before) * 1e6 / timed;
    Ok((timed / began.elapsed().as_secs_f64(), cpu))
}
