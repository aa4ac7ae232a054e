//! A breakdown as a ring with its legend. Pure.

use proto::usage::{Breakdown, Counts};

use super::slices::{self, Slice};
use crate::{
    filters::Filters,
    format::{self, count, percent},
};

/// Slices of a donut; smaller ones are one slice of others. Its table has them all.
const SLICES_MAX: usize = 7;
/// Methods that have a colour of their own.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What stands for the values that are not listed.
pub(crate) const OTHER: &str = "Other";

/// What a donut's colours say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Palette {
    /// One for each method.
    Methods,
    /// Green for completed, red for failed, orange for rate limited.
    StatusCodes,
}

/// A breakdown as a ring with its legend.
pub(crate) struct Donut {
    /// Heading.
    pub(crate) title: &'static str,
    /// Heading of the table's first column.
    pub(crate) column: &'static str,
    /// Short form of the sum, for the middle.
    pub(crate) total: String,
    /// The ring and its legend.
    pub(crate) parts: Vec<Part>,
    /// Every value, for the table.
    pub(crate) rows: Vec<Row>,
}

/// One value with its share.
pub(crate) struct Row {
    /// A method or code.
    pub(crate) label: String,
    /// With thousands.
    pub(crate) count: String,
    /// Of the whole breakdown.
    pub(crate) share: String,
    /// The query string of only these calls; `None` for the rest.
    pub(crate) only: Option<String>,
}

/// One slice.
pub(crate) struct Part {
    /// What it shows.
    pub(crate) row: Row,
    /// Names its colour.
    pub(crate) hue: String,
    /// Where it lies.
    pub(crate) slice: Slice,
}

impl Donut {
    /// The donut of a breakdown.
    #[must_use]
    pub(crate) fn new(palette: Palette, breakdown: &Breakdown, filters: &Filters) -> Self {
        let all = values(breakdown);
        let total = all.iter().map(|(_, calls)| calls).sum();
        let row = |label: &str, calls| Row {
            label: label.to_owned(),
            count: count(calls),
            share: percent(calls, total),
            only: match palette {
                Palette::Methods => (label != OTHER).then(|| filters.query_of_method(label)),
                Palette::StatusCodes => filters.query_of_status(label),
            },
        };
        let mut shown = all.clone();
        if shown.len() > SLICES_MAX {
            let rest = shown.split_off(SLICES_MAX - 1).iter().map(|(_, calls)| calls).sum();
            shown.push((OTHER.to_owned(), rest));
        }
        let slices = slices::slices(&shown.iter().map(|(_, calls)| *calls).collect::<Vec<_>>());
        let mut hues = Hues::new(palette);
        let parts = shown.iter().zip(slices);
        let parts =
            parts.map(|((label, calls), slice)| Part { row: row(label, *calls), hue: hues.of(label), slice });
        let (title, column) = match palette {
            Palette::Methods => ("By HTTP Method", "Method"),
            Palette::StatusCodes => ("By Response Status", "Status"),
        };
        Self {
            title,
            column,
            total: format::compact(total),
            parts: parts.collect(),
            rows: all.iter().map(|(label, calls)| row(label, *calls)).collect(),
        }
    }
}

/// Values with their calls, and what the service left out as one value more.
fn values(breakdown: &Breakdown) -> Vec<(String, u64)> {
    let calls = |counts: &Option<Counts>| counts.as_ref().map_or(0, |counts| counts.total_count);
    let mut values: Vec<_> =
        breakdown.rows.iter().map(|row| (row.value.clone(), calls(&row.counts))).collect();
    match calls(&breakdown.other) {
        0 => {}
        rest => values.push((OTHER.to_owned(), rest)),
    }
    values
}

/// Colours; values of one class of statuses take turns in its shades.
struct Hues {
    palette: Palette,
    used: [usize; 6],
}

impl Hues {
    const fn new(palette: Palette) -> Self {
        Self { palette, used: [0; 6] }
    }

    fn of(&mut self, label: &str) -> String {
        match self.palette {
            Palette::Methods if METHODS.contains(&label) => format!("m-{}", label.to_ascii_lowercase()),
            Palette::StatusCodes if label == "429" => "s-429".to_owned(),
            Palette::StatusCodes => match label.as_bytes() {
                [class @ b'1'..=b'5', _, _] => {
                    let class = usize::from(class - b'0');
                    let shade = self.used[class] % 3;
                    self.used[class] += 1;
                    format!("s-{class}xx-{shade}")
                }
                _ => "other".to_owned(),
            },
            Palette::Methods => "other".to_owned(),
        }
    }
}
