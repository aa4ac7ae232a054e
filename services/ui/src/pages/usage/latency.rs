//! How long calls took, as lines of a list. Pure.

use proto::usage::Latency;

use crate::format;

/// Percentiles, the shortest first; none if nothing was called.
pub(crate) struct Latencies {
    /// One for each percentile, and the longest.
    pub(crate) lines: Vec<LatencyLine>,
    /// How far percentiles may be off; empty if they are exact.
    pub(crate) error: String,
}

/// One of them.
pub(crate) struct LatencyLine {
    /// `p95`
    pub(crate) label: &'static str,
    /// What it says, for people.
    pub(crate) meaning: &'static str,
    /// With its unit.
    pub(crate) value: String,
    /// Width of its bar: hundredths of the 99th percentile, at most 100.
    pub(crate) width: String,
}

impl Latencies {
    /// From the message.
    #[must_use]
    pub(crate) fn new(latency: &Latency) -> Self {
        let lines = [
            ("p50", "half of the calls took at most this long", latency.p50_us),
            ("p90", "90 of 100 calls", latency.p90_us),
            ("p95", "95 of 100 calls", latency.p95_us),
            ("p99", "99 of 100 calls", latency.p99_us),
            ("max", "the longest call", latency.max_us),
        ];
        let whole = f64::from(latency.p99_us.max(1));
        let line = |(label, meaning, us): (_, _, u32)| LatencyLine {
            label,
            meaning,
            value: format::latency(us),
            width: format!("{:.2}", (f64::from(us) / whole * 100.0).min(100.0)),
        };
        let lines = if latency.call_count == 0 { Vec::new() } else { lines.map(line).into() };
        let error = latency.error_max * 100.0;
        Self { lines, error: if error > 0.0 { format!("±{error:.1}%") } else { String::new() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_measured_against_the_99th() {
        let latency = Latency {
            call_count: 9,
            p50_us: 1_000,
            p90_us: 2_000,
            p95_us: 3_000,
            p99_us: 4_000,
            max_us: 9_000_000,
            error_max: 1.0 / 32.0,
            ..Latency::default()
        };
        let list = Latencies::new(&latency);
        let widths: Vec<_> = list.lines.iter().map(|line| line.width.as_str()).collect();
        assert_eq!(widths, ["25.00", "50.00", "75.00", "100.00", "100.00"]);
        assert_eq!((list.lines[4].value.as_str(), list.error.as_str()), ("9.00 s", "±3.1%"));
        assert!(Latencies::new(&Latency::default()).lines.is_empty());
    }
}
