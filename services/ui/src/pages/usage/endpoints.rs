//! The most called routes, with what came of them. Pure.

use proto::usage::{Breakdown, BreakdownRow, Counts};

use crate::{
    filters::Filters,
    format::{count, latency, percent},
};

/// The most called routes.
pub(crate) struct Endpoints {
    /// The most called first.
    pub(crate) rows: Vec<Endpoint>,
    /// How many routes are not listed.
    pub(crate) others: u64,
    /// Their calls.
    pub(crate) other_count: String,
}

/// One route.
pub(crate) struct Endpoint {
    /// Its template.
    pub(crate) route: String,
    /// With thousands.
    pub(crate) count: String,
    /// Of all calls.
    pub(crate) share: String,
    /// Which part of its calls failed or was rate limited.
    pub(crate) errors: String,
    /// Whether any was.
    pub(crate) has_errors: bool,
    /// How long 95 of 100 calls took; `None` if it was not asked for.
    pub(crate) p95: Option<String>,
    /// The query string of only these calls.
    pub(crate) only: String,
    /// Width of its bar: hundredths of the widest.
    pub(crate) width: String,
}

impl Endpoints {
    /// The list of a breakdown by route.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a drawing needs three digits")]
    pub(crate) fn new(breakdown: &Breakdown, filters: &Filters) -> Self {
        let calls = |counts: &Option<Counts>| counts.as_ref().map_or(0, |counts| counts.total_count);
        let other = calls(&breakdown.other);
        let total = breakdown.rows.iter().map(|row| calls(&row.counts)).sum::<u64>() + other;
        let most = breakdown.rows.iter().map(|row| calls(&row.counts)).max().unwrap_or(0).max(1);
        let endpoint = |row: &BreakdownRow| {
            let counts = row.counts.unwrap_or_default();
            let errors = counts.failed_count + counts.rate_limited_count;
            Endpoint {
                route: row.value.clone(),
                count: count(counts.total_count),
                share: percent(counts.total_count, total),
                errors: percent(errors, counts.total_count),
                has_errors: errors > 0,
                p95: (row.p95_us > 0).then(|| latency(row.p95_us)),
                only: filters.query_of_route(&row.value),
                width: format!("{:.2}", counts.total_count as f64 / most as f64 * 100.0),
            }
        };
        Self {
            rows: breakdown.rows.iter().map(endpoint).collect(),
            others: breakdown.other_value_count,
            other_count: count(other),
        }
    }
}
