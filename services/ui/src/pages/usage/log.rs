//! A page of the request log: from messages to cells. Pure.

use prost_types::FieldMask;
use proto::usage::{ListRequestsResponse, Outcome, Request};
use time::OffsetDateTime;

use crate::{
    columns::Column,
    filters::Filters,
    format::{self, Moment, Show, count},
};

/// A page of the request log.
pub(crate) struct Log {
    /// Newest first.
    pub(crate) rows: Vec<LogRow>,
    /// The query string of the next page.
    pub(crate) older: Option<String>,
    /// The query string of the page before, from a later one.
    pub(crate) newer: Option<String>,
    /// The query string of the first page, from a later one.
    pub(crate) newest: Option<String>,
}

/// One call.
pub(crate) struct LogRow {
    /// `req_…`
    pub(crate) id: String,
    /// Where all of it is shown.
    pub(crate) link: String,
    /// One for each chosen column.
    pub(crate) cells: Vec<Cell>,
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
        path: &str,
        now: OffsetDateTime,
    ) -> Self {
        let of_page = |token: &String| (!token.is_empty()).then(|| filters.query_of_page(token, now));
        Self {
            rows: LogRow::all(&page.requests, columns, path, &filters.query_held(now), now),
            older: of_page(&page.next_page_token),
            newer: of_page(&page.previous_page_token),
            newest: (!filters.page_token.is_empty()).then(|| filters.query()),
        }
    }
}

impl LogRow {
    /// Rows of calls; `query` leads from one of them back to the page at `path`.
    #[must_use]
    pub(crate) fn all(
        requests: &[Request],
        columns: &[Column],
        path: &str,
        query: &str,
        now: OffsetDateTime,
    ) -> Vec<Self> {
        let row = |request: &Request| {
            let id = id(request).to_owned();
            let link = format!("{path}/requests/{id}?{query}");
            Self { id, link, cells: columns.iter().map(|column| cell(*column, request, now)).collect() }
        };
        requests.iter().map(row).collect()
    }
}

/// `req_…`
fn id(request: &Request) -> &str {
    request.name.rsplit('/').next().unwrap_or_default()
}

/// The fields of calls that are shown in the columns, for a page to read no others.
pub(crate) fn read_mask(columns: &[Column]) -> FieldMask {
    let paths = columns.iter().flat_map(|column| fields(*column)).map(|&field| field.to_owned());
    // A mask without any would read all.
    FieldMask { paths: paths.chain(["name".to_owned()]).collect() }
}

/// What `cell` looks at, beside name, time and outcome.
const fn fields(column: Column) -> &'static [&'static str] {
    match column {
        Column::RequestId | Column::Timestamp | Column::Status => &[],
        Column::Method => &["method"],
        Column::Endpoint => &["route"],
        Column::Response => &["status_code"],
        Column::Latency => &["latency_us"],
        Column::ResourceId => &["resource_id"],
        Column::Path => &["path"],
        Column::KeyId => &["key_id"],
        Column::Origin => &["origin"],
        Column::Denial => &["denial"],
        Column::Limit => &["limit_name", "limit_window_s"],
        Column::LimitRemaining => &["limit_remaining", "limit_window_s"],
        Column::SecretId => &["secret_id"],
        Column::Region => &["region"],
        Column::ClientRequestId => &["client_request_id"],
        Column::TraceId => &["trace_id"],
        Column::EdgeId => &["edge_id"],
        Column::ClientIp => &["client_ip"],
        Column::UserAgent => &["user_agent"],
        Column::RequestBytes => &["request_bytes"],
        Column::ResponseBytes => &["response_bytes"],
    }
}

/// What a column shows of a call.
pub(crate) fn cell(column: Column, request: &Request, now: OffsetDateTime) -> Cell {
    let code = |text: &str| if text.is_empty() { Cell::Nothing } else { Cell::Code(text.to_owned()) };
    let text = |text: &str| if text.is_empty() { Cell::Nothing } else { Cell::Text(text.to_owned()) };
    let (hue, label) = match request.outcome() {
        Outcome::Completed => ("completed", "Completed"),
        Outcome::RateLimited => ("limited", "Rate limited"),
        Outcome::Failed => ("failed", "Failed"),
        Outcome::Unspecified => ("other", "Unknown"),
    };
    match column {
        Column::RequestId => code(id(request)),
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
        Column::SecretId => code(&request.secret_id),
        Column::Region => text(&request.region),
        Column::ClientRequestId => code(&request.client_request_id),
        Column::TraceId => code(&request.trace_id),
        Column::EdgeId => code(&request.edge_id),
        Column::ClientIp => code(&request.client_ip),
        Column::UserAgent => text(&request.user_agent),
        Column::RequestBytes => Cell::Number(format::bytes(request.request_bytes)),
        Column::ResponseBytes => Cell::Number(format::bytes(request.response_bytes)),
    }
}
