//! Times of calls: one after the other, and by many callers at once; the table, and the worst of each figure. Judges
//! nothing.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::Write as _,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

/// How often a question is asked: no more than `calls`, and no longer than `time` but for `calls_min`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) calls: usize,
    pub(crate) calls_min: usize,
    pub(crate) time: Duration,
}

/// How long calls took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) calls: usize,
}

/// The worst p99 of each figure, and what was asked there.
#[derive(Debug, Default)]
pub(crate) struct Worst(BTreeMap<&'static str, Vec<(f64, String)>>);

impl Worst {
    pub(crate) fn add(&mut self, figure: &'static str, p99_ms: f64, question: String) {
        self.0.entry(figure).or_default().push((p99_ms, question));
    }

    /// Each figure and its worst.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().map(|(figure, all)| (*figure, all.iter().map(|(ms, _)| *ms).fold(0.0, f64::max)))
    }

    pub(crate) fn of(&self, figure: &str) -> f64 {
        self.figures().find(|(name, _)| *name == figure).map_or(f64::NAN, |(_, ms)| ms)
    }

    /// Prints the worst questions of a figure.
    pub(crate) fn print(&mut self, figure: &'static str, count: usize) -> anyhow::Result<()> {
        let all = self.0.entry(figure).or_default();
        all.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        for (ms, question) in all.iter().take(count) {
            line(format_args!("  {figure}, among the worst: {ms:8.1} ms  {question}"))?;
        }
        Ok(())
    }
}

/// Asks once without counting, so that what is asked first is not worse off, then again and again.
pub(crate) async fn repeat<E>(
    limit: Limit,
    ask: impl AsyncFn() -> Result<u64, E>,
) -> Result<(u64, Times), E> {
    let size = ask().await?;
    let (began, mut times) = (Instant::now(), Vec::with_capacity(limit.calls));
    while times.len() < limit.calls && (times.len() < limit.calls_min || began.elapsed() < limit.time) {
        let asked = Instant::now();
        ask().await?;
        times.push(asked.elapsed());
    }
    Ok((size, Times::of(times)))
}

/// As many callers at once, each asking one question after the other; how many calls a second were answered, and how
/// many failed.
pub(crate) async fn crowd<E>(
    callers: usize,
    time: Duration,
    ask: impl AsyncFn(usize) -> Result<u64, E>,
) -> (f64, Times, usize) {
    let began = Instant::now();
    let callers = (0..callers).map(async |caller| {
        let (mut times, mut failed) = (Vec::new(), 0);
        while began.elapsed() < time {
            let asked = Instant::now();
            match ask(caller + times.len()).await {
                Ok(_) => times.push(asked.elapsed()),
                Err(_) => failed += 1,
            }
        }
        (times, failed)
    });
    let (times, failed): (Vec<_>, Vec<_>) = join_all(callers).await.into_iter().unzip();
    let times = times.concat();
    let per_s = times.len() as f64 / began.elapsed().as_secs_f64();
    (per_s, Times::of(times), failed.iter().sum())
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        Self { p50_ms: at(50), p99_ms: at(99), max_ms: at(100), calls: times.len() }
    }
}

/// A line of the table.
pub(crate) fn row(of: impl Display, size: u64, times: &Times) -> anyhow::Result<()> {
    let Times { p50_ms, p99_ms, max_ms, calls } = times;
    line(format_args!("{p50_ms:9.1} {p99_ms:9.1} {max_ms:9.1} {calls:5} {size:10}  {of}"))
}

/// Names of the columns.
pub(crate) fn head() -> anyhow::Result<()> {
    line(format_args!("{:>9} {:>9} {:>9} {:>5} {:>10}", "p50 ms", "p99 ms", "max ms", "calls", "counted"))
}

/// Prints a line.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_found_and_the_worst_is_kept() {
        let times = Times::of((1..=100).map(Duration::from_millis).collect());
        assert_eq!((times.p50_ms, times.p99_ms, times.max_ms, times.calls), (51.0, 100.0, 100.0, 100));
        let mut worst = Worst::default();
        worst.add("a", 1.0, "one".into());
        worst.add("a", 3.0, "three".into());
        assert!((worst.of("a") - 3.0).abs() < f64::EPSILON && worst.of("b").is_nan());
    }
}
