//! Our own part of a size: every question alone, many callers, and the export. Knows nothing of others.

use std::time::{Duration, Instant};

use figures::{Figures, say};
use proto::usage::ExportFormat;

use crate::{
    measure::{Limit, Worst, crowd, head, line, repeat, row},
    ours::Ours,
    questions::{By, Key, Kind, Question, Range, all},
};

const ALONE: Limit = Limit { calls: 50, calls_min: 3, time: Duration::from_millis(250) };
/// Callers at once, and for how long each kind of question.
const CALLERS: usize = 32;
const CROWD: Duration = Duration::from_secs(2);
/// Calls that an export is read to.
const EXPORT_ROWS: u64 = 1_000_000;
/// How many of the worst questions are named.
const NAMED: usize = 5;

/// Asks everything, and notes figures with the suffix in their names.
pub(crate) async fn measure(
    figures: &Figures,
    ours: &Ours,
    keys: &[Key],
    suffix: &str,
) -> anyhow::Result<Worst> {
    let worst = alone(figures, ours, &all(keys, ours.loaded.end_ms), suffix).await?;
    many_callers(figures, ours, keys, suffix).await?;
    if suffix.is_empty() {
        export(figures, ours, &keys[0]).await?;
    }
    Ok(worst)
}

/// Asks one question after the other.
pub(crate) async fn alone(
    figures: &Figures,
    ours: &Ours,
    questions: &[Question],
    suffix: &str,
) -> anyhow::Result<Worst> {
    say(&format!("{} questions, one at a time", questions.len()));
    head()?;
    let mut worst = Worst::default();
    for (done, question) in questions.iter().enumerate() {
        let (size, times) = repeat(ALONE, async || ours.ask(question).await).await?;
        row(question, size, &times)?;
        if let Some(figure) = question.figure() {
            worst.add(figure, times.p99_ms, question.to_string());
        }
        if (done + 1) % 100 == 0 {
            say(&format!("{} of {} are asked", done + 1, questions.len()));
        }
    }
    let measured: Vec<_> = worst.figures().collect();
    for (figure, p99_ms) in measured {
        figures.note(&format!("{figure}_p99_ms{suffix}"), p99_ms);
        worst.print(figure, if figure == "log_page" { 2 * NAMED } else { NAMED })?;
    }
    Ok(worst)
}

async fn many_callers(figures: &Figures, ours: &Ours, keys: &[Key], suffix: &str) -> anyhow::Result<()> {
    say(&format!("{CALLERS} callers at once"));
    let [_, _, range] = Range::all(ours.loaded.end_ms, true);
    for (name, kind) in [
        ("summary", Kind::Summary),
        ("breakdown", Kind::Breakdown(By::StatusCode)),
        ("top_endpoints", Kind::Breakdown(By::Route)),
        ("series", Kind::Series("Europe/Berlin")),
        ("plain_log_page", Kind::Log),
        ("page", Kind::Page),
    ] {
        let of = |key: &Key| Question { kind, key: key.clone(), range, conditions: vec![] };
        let questions: Vec<_> = keys.iter().map(of).collect();
        let ask = async |at: usize| ours.ask(&questions[at % questions.len()]).await;
        let (per_s, times, failed) = crowd(CALLERS, CROWD, ask).await;
        row(format_args!("{name}, {CALLERS} callers, {per_s:.0} a second, {failed} failed"), 0, &times)?;
        figures.note(&format!("{name}_{CALLERS}_callers_p99_ms{suffix}"), times.p99_ms);
        figures.note(&format!("{name}_{CALLERS}_callers_per_s{suffix}"), per_s);
    }
    Ok(())
}

/// Reads a million calls of the workspace in each format.
pub(crate) async fn export(figures: &Figures, ours: &Ours, key: &Key) -> anyhow::Result<()> {
    let [_, _, range] = Range::all(ours.loaded.end_ms, true);
    let question = Question { kind: Kind::Log, key: key.clone(), range, conditions: vec![] };
    for (name, format) in [
        ("export", ExportFormat::Csv),
        ("export_ndjson", ExportFormat::Ndjson),
        ("export_parquet", ExportFormat::Parquet),
        ("export_arrow", ExportFormat::Arrow),
    ] {
        let began = Instant::now();
        let rows = ours.export(key, &question, format, EXPORT_ROWS).await?;
        let time_s = began.elapsed().as_secs_f64();
        line(format_args!("{name}: {rows} rows in {time_s:.2} s"))?;
        figures.note(&format!("{name}_rows_per_s"), rows as f64 / time_s);
    }
    Ok(())
}

/// How much longer the page of a key takes with ten times the calls.
pub(crate) fn growth(figures: &Figures, small: &Worst, large: &Worst) {
    figures.note("growth_10m_100m", large.of("page") / small.of("page"));
}

/// How a median comes about when others are asked too.
pub(crate) const BESIDE: Limit = Limit { calls: 9, calls_min: 3, time: Duration::from_millis(300) };

/// What was counted, and the median in milliseconds.
pub(crate) async fn beside(ours: &Ours, question: &Question) -> anyhow::Result<(u64, f64)> {
    let (size, times) = repeat(BESIDE, async || ours.ask(question).await).await?;
    Ok((size, times.p50_ms))
}
