//! Which of a key's secrets its calls came with, as parts of a bar. Pure geometry and texts.

use proto::usage::{Breakdown, Counts};

use crate::format::{count, hundredths, percent};

/// Colours that secrets have, in the order of the key's secrets; more of them share the last.
const HUES: [&str; 6] = ["part-0", "part-1", "part-2", "part-3", "part-4", "part-5"];

/// One secret's part of the calls; `x` and `width` are hundredths of the bar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The secret's first characters; its id if the key has it no more.
    pub(crate) label: String,
    /// Whether `label` is the start of a secret.
    pub(crate) is_known: bool,
    /// Names its colour.
    pub(crate) hue: &'static str,
    /// Where it begins.
    pub(crate) x: String,
    /// How wide it is.
    pub(crate) width: String,
    /// How many calls.
    pub(crate) calls: String,
    /// How many of all.
    pub(crate) share: String,
    /// How many of them failed or were rate limited; `None` if none did.
    pub(crate) errors: Option<String>,
}

/// The calls of a key by secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// In the order of the key's secrets, also those without calls that still work; then those it has no more.
    pub(crate) parts: Vec<Part>,
    /// All calls; empty if there is none.
    pub(crate) total: String,
}

/// A secret as the split knows it.
pub(crate) struct Known {
    /// `sec_…`
    pub(crate) secret_id: String,
    /// Its first characters.
    pub(crate) start: String,
    /// It still works.
    pub(crate) is_live: bool,
}

impl Split {
    /// The split of `breakdown` among a key's secrets.
    #[must_use]
    pub(crate) fn new(secrets: &[Known], breakdown: &Breakdown) -> Self {
        let counts_of = |id: &str| {
            breakdown.rows.iter().find(|row| row.value == id).and_then(|row| row.counts).unwrap_or_default()
        };
        let known = secrets
            .iter()
            .map(|secret| (format!("{}…", secret.start), true, secret.is_live, counts_of(&secret.secret_id)));
        let strange = breakdown
            .rows
            .iter()
            .filter(|row| secrets.iter().all(|secret| secret.secret_id != row.value))
            .map(|row| {
                let label = if row.value.is_empty() { "no secret on record" } else { &row.value };
                (label.to_owned(), false, false, row.counts.unwrap_or_default())
            });
        let rows: Vec<_> =
            known.chain(strange).filter(|(_, _, is_live, c)| *is_live || c.total_count > 0).collect();
        let total: u64 = rows.iter().fold(0, |sum: u64, (.., counts)| sum.saturating_add(counts.total_count));
        let mut before = 0u64;
        let parts = rows.into_iter().enumerate().map(|(at, (label, is_known, _, counts))| {
            let x = hundredths(before.into(), total.into());
            before = before.saturating_add(counts.total_count);
            Part {
                label,
                is_known,
                hue: HUES[at.min(HUES.len() - 1)],
                width: format!("{:.2}", hundredths(before.into(), total.into()) - x),
                x: format!("{x:.2}"),
                calls: count(counts.total_count),
                share: percent(counts.total_count, total),
                errors: errors_of(&counts),
            }
        });
        Self { parts: parts.collect(), total: if total == 0 { String::new() } else { count(total) } }
    }

    /// The bar in words.
    #[must_use]
    pub(crate) fn label(&self) -> String {
        let parts = self.parts.iter().map(|part| format!("{}: {} ({})", part.label, part.calls, part.share));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn errors_of(counts: &Counts) -> Option<String> {
    let errors = counts.failed_count.saturating_add(counts.rate_limited_count);
    (errors > 0).then(|| percent(errors, counts.total_count))
}

#[cfg(test)]
mod tests {
    use proto::usage::BreakdownRow;

    use super::*;

    fn row(value: &str, total_count: u64, failed_count: u64) -> BreakdownRow {
        let counts = Some(Counts { total_count, failed_count, ..Counts::default() });
        BreakdownRow { value: value.into(), counts, ..BreakdownRow::default() }
    }

    fn known(id: &str, is_live: bool) -> Known {
        Known { secret_id: id.into(), start: format!("km_live_{id}"), is_live }
    }

    #[test]
    fn parts_add_up_to_the_bar_in_the_order_of_the_secrets() {
        let secrets = [known("new", true), known("old", true), known("gone", false)];
        let breakdown = Breakdown { rows: vec![row("old", 3, 1), row("lost", 1, 0)], ..Breakdown::default() };
        let split = Split::new(&secrets, &breakdown);
        let shown: Vec<_> = split
            .parts
            .iter()
            .map(|part| (part.label.as_str(), part.x.as_str(), part.width.as_str()))
            .collect();
        assert_eq!(
            shown,
            [("km_live_new…", "0.00", "0.00"), ("km_live_old…", "0.00", "75.00"), ("lost", "75.00", "25.00")],
            "a secret that works is shown without calls, a retired one is not"
        );
        assert_eq!(split.parts[1].errors.as_deref(), Some("33.3%"));
        assert_eq!(split.label(), "km_live_new…: 0 (0%), km_live_old…: 3 (75%), lost: 1 (25%)");
        assert_eq!(split.total, "4");
    }

    #[test]
    fn nothing_has_no_bar() {
        let split = Split::new(&[known("new", true)], &Breakdown::default());
        assert_eq!((split.total.as_str(), split.parts[0].share.as_str()), ("", "–"));
    }
}
