//! Usage as its page shows it: from messages to texts and shapes, pure.

use domain::KeyId;
use proto::usage::{Breakdown, Counts, ListRequestsResponse, Outcome, Request};
use time::OffsetDateTime;

use super::keys_view::KeyView;
use crate::{
    columns::Column,
    donut::{self, Slice},
    filters::{CUSTOM, FieldError, Fields, Filters, PRESETS, Period, parse_time},
    format::{self, Moment, Show, count, percent},
};

/// Slices of a donut; smaller ones are one slice of others. Its table has them all.
const SLICES_MAX: usize = 7;
/// Methods that the filter always offers.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// One of the four numbers.
pub(crate) struct Card {
    /// `Completed`
    pub(crate) title: &'static str,
    /// Names its colour.
    pub(crate) hue: &'static str,
    /// With thousands.
    pub(crate) value: String,
    /// Its share of all calls; empty for the total.
    pub(crate) share: String,
}

impl Card {
    /// The four, in order.
    #[must_use]
    pub(crate) fn all(counts: &Counts) -> [Self; 4] {
        let total = counts.total_count;
        let part = |title, hue, value| Self { title, hue, value: count(value), share: percent(value, total) };
        [
            Self { title: "Total Requests", hue: "total", value: count(total), share: String::new() },
            part("Completed", "completed", counts.completed_count),
            part("Failed", "failed", counts.failed_count),
            part("Rate Limited", "limited", counts.rate_limited_count),
        ]
    }
}

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
    /// A method, code or route.
    pub(crate) label: String,
    /// With thousands.
    pub(crate) count: String,
    /// Of the whole breakdown.
    pub(crate) share: String,
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
    pub(crate) fn new(palette: Palette, breakdown: &Breakdown) -> Self {
        let all = values(breakdown);
        let total = all.iter().map(|(_, calls)| calls).sum();
        let row = |label: &str, calls| Row {
            label: label.to_owned(),
            count: count(calls),
            share: percent(calls, total),
        };
        let mut shown = all.clone();
        if shown.len() > SLICES_MAX {
            let rest = shown.split_off(SLICES_MAX - 1).iter().map(|(_, calls)| calls).sum();
            shown.push(("Other".to_owned(), rest));
        }
        let slices = donut::slices(&shown.iter().map(|(_, calls)| *calls).collect::<Vec<_>>());
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
        rest => values.push(("Other".to_owned(), rest)),
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
            Palette::Methods if METHODS[..5].contains(&label) => format!("m-{}", label.to_ascii_lowercase()),
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
    /// Its template and numbers.
    pub(crate) row: Row,
    /// Width of its bar: hundredths of the widest.
    pub(crate) width: String,
}

impl Endpoints {
    /// The list of a breakdown by route.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a drawing needs three digits")]
    pub(crate) fn new(breakdown: &Breakdown) -> Self {
        let calls = |counts: &Option<Counts>| counts.as_ref().map_or(0, |counts| counts.total_count);
        let other = calls(&breakdown.other);
        let total = breakdown.rows.iter().map(|row| calls(&row.counts)).sum::<u64>() + other;
        let most = breakdown.rows.iter().map(|row| calls(&row.counts)).max().unwrap_or(0).max(1);
        let endpoint = |value: &str, calls: u64| Endpoint {
            row: Row { label: value.to_owned(), count: count(calls), share: percent(calls, total) },
            width: format!("{:.2}", calls as f64 / most as f64 * 100.0),
        };
        Self {
            rows: breakdown.rows.iter().map(|row| endpoint(&row.value, calls(&row.counts))).collect(),
            others: breakdown.other_value_count,
            other_count: count(other),
        }
    }
}

/// How far the page can be trusted.
pub(crate) struct Freshness {
    /// Everything before is counted; `None` before anything was.
    pub(crate) complete_up_to: Option<Moment>,
    /// Edges that are silent, and since when.
    pub(crate) unaccounted: Vec<(String, Option<Moment>)>,
    /// Calls that are known to be missing, from the first moment to the last; `None` if none are.
    pub(crate) missing: Option<(Option<Moment>, Option<Moment>)>,
}

impl Freshness {
    /// From the message.
    #[must_use]
    pub(crate) fn new(freshness: &proto::usage::Freshness, now: OffsetDateTime) -> Self {
        let edges = freshness.unaccounted_edges.iter();
        let at = |at: Option<&prost_types::Timestamp>| Moment::of(at, Show::Full, now);
        let gaps = || freshness.known_gaps.iter();
        let first = gaps().filter_map(|gap| gap.from.as_ref()).min_by_key(|at| (at.seconds, at.nanos));
        let last = gaps().filter_map(|gap| gap.to.as_ref()).max_by_key(|at| (at.seconds, at.nanos));
        Self {
            missing: gaps().next().map(|_| (at(first), at(last))),
            complete_up_to: Moment::of(freshness.complete_up_to.as_ref(), Show::Clock, now),
            unaccounted: edges
                .map(|edge| (edge.edge_id.clone(), Moment::of(edge.since.as_ref(), Show::Full, now)))
                .collect(),
        }
    }
}

/// Calls that came with a deleted key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StillCalled {
    /// `412 times from 2 addresses`
    pub(crate) text: String,
}

impl StillCalled {
    /// From refused calls by address; `None` if there are none.
    #[must_use]
    pub(crate) fn new(by_address: &Breakdown) -> Option<Self> {
        let calls = |counts: &Option<Counts>| counts.as_ref().map_or(0, |counts| counts.total_count);
        let total =
            by_address.rows.iter().map(|row| calls(&row.counts)).sum::<u64>() + calls(&by_address.other);
        let addresses = by_address.rows.len() as u64 + by_address.other_value_count;
        let many = |number: u64, one: &str, more: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{} {more}", count(number)),
        };
        let text =
            format!("{} from {}", many(total, "time", "times"), many(addresses, "address", "addresses"));
        (total > 0).then_some(Self { text })
    }
}

/// Whose calls the page shows.
pub(crate) enum Scope {
    /// Its own key's.
    Own,
    /// Another key's.
    Other(Box<KeyView>),
    /// A key's that this workspace does not have, or that can not be looked up now.
    Unknown(KeyId),
    /// Every key's.
    Every,
}

/// A page of the request log.
pub(crate) struct Log {
    /// Newest first; a cell for each chosen column.
    pub(crate) rows: Vec<Vec<Cell>>,
    /// The query string of the next page.
    pub(crate) older: Option<String>,
    /// The query string of the first page, from a later one.
    pub(crate) newest: Option<String>,
}

/// One cell of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// An id, path or route, in monospace.
    Code(String),
    /// Words.
    Text(String),
    /// A number with its unit.
    Number(String),
    /// A time.
    Time(Moment),
    /// An outcome: colour and label.
    Badge(&'static str, &'static str),
    /// An HTTP status and its colour.
    Response(u32, &'static str),
    /// Nothing known.
    Nothing,
}

impl Log {
    /// The rows of a page of the log.
    #[must_use]
    pub(crate) fn new(
        page: &ListRequestsResponse,
        columns: &[Column],
        filters: &Filters,
        now: OffsetDateTime,
    ) -> Self {
        let row = |request: &Request| columns.iter().map(|column| cell(*column, request, now)).collect();
        let next = &page.next_page_token;
        Self {
            rows: page.requests.iter().map(row).collect(),
            older: (!next.is_empty()).then(|| filters.query_of_page(next, now)),
            newest: (!filters.page_token.is_empty()).then(|| filters.query()),
        }
    }
}

fn cell(column: Column, request: &Request, now: OffsetDateTime) -> Cell {
    let code = |text: &str| if text.is_empty() { Cell::Nothing } else { Cell::Code(text.to_owned()) };
    let text = |text: &str| if text.is_empty() { Cell::Nothing } else { Cell::Text(text.to_owned()) };
    let (hue, label) = match request.outcome() {
        Outcome::Completed => ("completed", "Completed"),
        Outcome::RateLimited => ("limited", "Rate limited"),
        Outcome::Failed => ("failed", "Failed"),
        Outcome::Unspecified => ("other", "Unknown"),
    };
    match column {
        Column::RequestId => code(request.name.rsplit('/').next().unwrap_or_default()),
        Column::Timestamp => {
            Moment::of(request.occurred_at.as_ref(), Show::Full, now).map_or(Cell::Nothing, Cell::Time)
        }
        Column::Method => code(&request.method),
        Column::Endpoint => code(&request.route),
        Column::Status => Cell::Badge(hue, label),
        Column::Response => Cell::Response(request.status_code, hue),
        Column::Latency => Cell::Number(format::latency(request.latency_us)),
        Column::ResourceId => code(&request.resource_id),
        Column::Path => code(&request.path),
        Column::KeyId => code(&request.key_id),
        Column::Origin => text(&request.origin),
        Column::Denial => text(&request.denial.replace('_', " ")),
        Column::Limit => match (request.limit_name.as_str(), request.limit_window_s) {
            ("", _) => Cell::Nothing,
            // From before windows were on record.
            (name, 0) => text(name),
            (name, window_s) => text(&format!("{name} ({window_s} s)")),
        },
        // Without a window no limit was asked.
        Column::LimitRemaining if request.limit_window_s == 0 => Cell::Nothing,
        Column::LimitRemaining => Cell::Number(count(request.limit_remaining)),
        Column::ClientIp => code(&request.client_ip),
        Column::UserAgent => text(&request.user_agent),
        Column::RequestBytes => Cell::Number(format::bytes(request.request_bytes)),
        Column::ResponseBytes => Cell::Number(format::bytes(request.response_bytes)),
    }
}

/// Values on the page, to be offered by its form.
#[derive(Default)]
pub(crate) struct Seen {
    /// HTTP methods.
    pub(crate) methods: Vec<String>,
    /// Route templates.
    pub(crate) routes: Vec<String>,
}

/// The filter's form, filled in.
pub(crate) struct FilterForm {
    /// As in the address.
    pub(crate) fields: Fields,
    /// What is wrong with it.
    pub(crate) errors: Vec<FieldError>,
    /// Name, label, chosen.
    pub(crate) ranges: Vec<(&'static str, &'static str, bool)>,
    /// Name, label, colour, chosen.
    pub(crate) outcomes: Vec<(&'static str, &'static str, &'static str, bool)>,
    /// Name, chosen.
    pub(crate) methods: Vec<(String, bool)>,
    /// Routes to suggest.
    pub(crate) routes: Vec<String>,
    /// Start of the period for `datetime-local`, UTC, with its exact time.
    pub(crate) from: (String, String),
    /// End of the period, likewise.
    pub(crate) to: (String, String),
}

impl FilterForm {
    /// The form for `fields` and what they mean on the page of `own`; `seen` are values to offer.
    #[must_use]
    pub(crate) fn new(
        mut fields: Fields,
        filters: &Result<Filters, Vec<FieldError>>,
        own: KeyId,
        seen: Seen,
        now: OffsetDateTime,
    ) -> Self {
        let range = match filters {
            Ok(Filters { period: Period::Last(preset, _), .. }) => preset.name,
            Ok(_) => CUSTOM,
            Err(_) if fields.range.is_empty() => PRESETS[3].name,
            Err(_) => fields.range.as_str(),
        };
        let ranges = PRESETS.iter().map(|preset| (preset.name, preset.label)).chain([(CUSTOM, "Custom…")]);
        let ranges = ranges.map(|(name, label)| (name, label, name == range)).collect();
        let chosen = |name: &str| fields.outcomes.iter().any(|outcome| outcome == name);
        let outcomes = [
            ("completed", "Completed", "completed"),
            ("failed", "Failed", "failed"),
            ("rate_limited", "Rate limited", "limited"),
        ];
        let outcomes = outcomes.map(|(name, label, hue)| (name, label, hue, chosen(name))).to_vec();
        let (from, to) = match filters {
            Ok(filters) => {
                let (from, to) = filters.range(now);
                (local_input(from), local_input(to))
            }
            Err(_) => (typed(&fields.from), typed(&fields.to)),
        };
        let methods = offered_methods(&fields.methods, &seen.methods);
        let errors = filters.as_ref().err().cloned().unwrap_or_default();
        fields.key_id.get_or_insert_with(|| own.to_string());
        Self { fields, errors, ranges, outcomes, methods, routes: seen.routes, from, to }
    }

    /// What is wrong with one field.
    #[must_use]
    pub(crate) fn error(&self, field: &str) -> Option<&str> {
        self.errors.iter().find(|error| error.field == field).map(|error| error.message.as_str())
    }
}

/// The usual methods, those chosen, and those seen.
fn offered_methods(chosen: &[String], seen: &[String]) -> Vec<(String, bool)> {
    let mut methods: Vec<String> = METHODS.iter().map(ToString::to_string).collect();
    for method in chosen.iter().chain(seen.iter().filter(|method| *method != "Other")) {
        if !methods.contains(method) {
            methods.push(method.clone());
        }
    }
    methods.into_iter().map(|method| (method.clone(), chosen.contains(&method))).collect()
}

/// As [`local_input`] for what was typed, or as it is if that is no time.
fn typed(text: &str) -> (String, String) {
    parse_time(text).map_or_else(|| (text.to_owned(), String::new()), local_input)
}

/// The value of a `datetime-local` field, in UTC, and the exact time.
fn local_input(at: OffsetDateTime) -> (String, String) {
    let exact = format::rfc3339(at);
    (exact[..19].to_owned(), exact)
}

#[cfg(test)]
#[path = "usage_view_tests.rs"]
mod tests;
