//! Calls as they come, for a log that is already shown: rows as server-sent events. Ends with the reader or the process.

use std::convert::Infallible;

use askama::Template;
use axum::{
    extract::{RawPathParams, RawQuery},
    http::HeaderMap,
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use proto::{
    resource::workspace_name,
    timestamp,
    usage::{TailRequestsRequest, TailRequestsResponse, UsageFilter},
};
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Streaming;

use super::{
    asked, columns_of,
    log::{Cell, LogRow},
};
use crate::{
    columns::Column,
    filters::field,
    problem::{Service, Stop},
    visit::Visit,
};

/// How long before the page was shown a call may have begun, and how long a page stays live.
const BEFORE: Duration = Duration::hours(1);
const LIVE_MAX: Duration = Duration::hours(12);
/// Calls written so long before the page was shown come too; the page knows those that it has.
const OVERLAP: Duration = Duration::seconds(5);

#[derive(Template)]
#[template(path = "log_rows.html")]
struct Rows {
    rows: Vec<LogRow>,
}

/// One event.
#[derive(Serialize)]
struct News {
    /// Rows of the table, the latest call first.
    html: String,
    /// Calls that were left out, since too many came at once.
    dropped_count: u64,
}

/// `GET …/tail`, with the filter and `since`, when the page was shown, in milliseconds since 1970.
pub(crate) async fn follow(
    visit: Visit,
    params: RawPathParams,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let query = query.unwrap_or_default();
    let (place, filters) = asked(&visit, &params, &query)?;
    let since = since(&query).ok_or_else(|| visit.not_found())?;
    // A browser that lost the connection says where it was.
    let resume = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let filter = UsageFilter {
        from: Some(timestamp::to_proto(since - BEFORE)),
        to: Some(timestamp::to_proto(since + LIVE_MAX)),
        ..filters.to_proto(since)
    };
    let request = visit.call(TailRequestsRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter),
        ingested_from: resume.is_empty().then(|| timestamp::to_proto(since - OVERLAP)),
        resume_token: resume.to_owned(),
    });
    let answers = visit.app.clients.usage.clone().tail_requests(request).await;
    let answers = answers.map_err(|status| visit.stop(Service::Query, &status))?.into_inner();
    let shutdown = visit.app.shutdown.clone();
    let events = events(answers, columns_of(&visit), place.path(), filters.query());
    let events = tokio_stream::StreamExt::take_while(events, move |_| !shutdown.is_cancelled());
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

fn since(query: &str) -> Option<OffsetDateTime> {
    let ms: i64 = field(query, "since").parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .filter(|at| (1971..=9998).contains(&at.year()))
}

/// An event for each answer; none after the first that fails, so that the browser asks again.
fn events(
    answers: Streaming<TailRequestsResponse>,
    columns: Vec<Column>,
    path: String,
    query: String,
) -> impl Stream<Item = Result<Event, Infallible>> {
    answers.map_while(Result::ok).filter_map(move |answer| {
        let mut requests = answer.requests;
        requests.reverse();
        let rows = LogRow::all(&requests, &columns, &path, &query, OffsetDateTime::now_utc());
        let html = if rows.is_empty() { String::new() } else { Rows { rows }.render().ok()? };
        let news = News { html, dropped_count: answer.dropped_count };
        Event::default().id(answer.resume_token).json_data(news).ok().map(Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_page_was_shown_is_read() {
        assert_eq!(
            since("range=1h&since=1000000000000").map(OffsetDateTime::unix_timestamp),
            Some(1_000_000_000)
        );
        for bad in ["", "since=", "since=soon", "since=-1", "since=9223372036854775807"] {
            assert_eq!(since(bad), None, "{bad}");
        }
    }
}
