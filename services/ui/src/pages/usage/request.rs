//! One call with everything that is known of it, and its neighbours: calls of the same resource around it.

use askama::Template;
use axum::{
    extract::{RawPathParams, RawQuery},
    response::Response,
};
use domain::RequestId;
use proto::{
    resource::request_name,
    timestamp,
    usage::{GetRequestRequest, Request, UsageFilter},
};
use time::{Duration, OffsetDateTime};
use tonic::Status;

use super::{
    load::list_requests,
    log::{Cell, LogRow, cell},
    place::Place,
};
use crate::{
    columns::Column,
    filters::{Fields, Filters},
    format::{Moment, Show},
    pages::Shell,
    problem::{Service, Stop, page},
    visit::Visit,
};

/// How far around the call its neighbours may be.
const NEIGHBOUR_MAX: Duration = Duration::hours(24);
/// Neighbours listed.
const NEIGHBOUR_ROWS: i32 = 20;
/// What is told of a neighbour.
const NEIGHBOUR_COLUMNS: [Column; 5] =
    [Column::Timestamp, Column::Method, Column::Endpoint, Column::Status, Column::Response];

#[derive(Template)]
#[template(path = "request.html")]
struct RequestPage {
    shell: Shell,
    place: Place,
    id: String,
    facts: Vec<(&'static str, Cell)>,
    /// When it was written to the database.
    written: Option<Moment>,
    clock_skewed: bool,
    interrupted: bool,
    key_id: String,
    curl: String,
    resource_id: String,
    neighbours: Vec<LogRow>,
    /// The query string of all calls of the resource; empty if it has none.
    of_resource: String,
    query: String,
}

/// `GET …/requests/{request_id}`
pub(crate) async fn show(
    visit: Visit,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let place = Place::of(&params, &visit)?;
    let id = params.iter().find(|(name, _)| *name == "request_id").and_then(|(_, id)| id.parse().ok());
    let id: RequestId = id.ok_or_else(|| visit.not_found())?;
    let name = request_name(visit.access.workspace_id, id);
    let request = visit.app.clients.usage.clone().get_request(visit.call(GetRequestRequest { name })).await;
    let request = request.map_err(|status| visit.stop(Service::Query, &status))?.into_inner();
    let now = OffsetDateTime::now_utc();
    let query = query.unwrap_or_default();
    // A page without its neighbours is better than none.
    let neighbours = neighbours(&visit, &request).await.unwrap_or_default();
    let neighbours: Vec<_> = neighbours.into_iter().filter(|other| other.name != request.name).collect();
    let of_resource = Filters::parse(&Fields::read(&query), place.own)
        .ok()
        .filter(|_| !request.resource_id.is_empty())
        .map_or_else(String::new, |filters| filters.query_of_resource(&request.resource_id));
    Ok(page(&RequestPage {
        shell: visit.shell(),
        id: id.to_string(),
        facts: Column::ALL.iter().map(|column| (column.title(), cell(*column, &request, now))).collect(),
        written: Moment::of(request.ingested_at.as_ref(), Show::Full, now),
        clock_skewed: request.clock_skewed,
        interrupted: request.interrupted,
        curl: curl(&request, &visit.app.config.edge_url.origin()),
        neighbours: LogRow::all(&neighbours, &NEIGHBOUR_COLUMNS, &place.path(), &query, now),
        key_id: request.key_id,
        resource_id: request.resource_id,
        place,
        of_resource,
        query,
    }))
}

async fn neighbours(visit: &Visit, request: &Request) -> Result<Vec<Request>, Status> {
    let at = request.occurred_at.as_ref().and_then(timestamp::from_proto);
    let (Some(at), false) = (at, request.resource_id.is_empty()) else { return Ok(Vec::new()) };
    let filter = UsageFilter {
        from: Some(timestamp::to_proto(at - NEIGHBOUR_MAX)),
        to: Some(timestamp::to_proto(at + NEIGHBOUR_MAX)),
        resource_ids: vec![request.resource_id.clone()],
        ..UsageFilter::default()
    };
    Ok(list_requests(visit, &filter, &NEIGHBOUR_COLUMNS, "", NEIGHBOUR_ROWS).await?.requests)
}

/// The same call as a line for a shell; bodies and query strings are not kept.
fn curl(request: &Request, origin: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let method =
        if request.method == "GET" { String::new() } else { format!("-X {} ", quoted(&request.method)) };
    let address = quoted(&format!("{origin}{}", request.path));
    format!("curl {method}-H \"Authorization: Bearer $API_KEY\" {address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_as_a_line_for_a_shell_runs_nothing_else() {
        let line = |method: &str, path: &str| {
            let request = Request { method: method.into(), path: path.into(), ..Request::default() };
            curl(&request, "https://api.example.com")
        };
        let bearer = "-H \"Authorization: Bearer $API_KEY\"";
        assert_eq!(
            line("GET", "/v1/orders/7"),
            format!("curl {bearer} 'https://api.example.com/v1/orders/7'")
        );
        assert_eq!(
            line("PUT", "/it's$(id)`id`"),
            format!("curl -X 'PUT' {bearer} 'https://api.example.com/it'\\''s$(id)`id`'")
        );
    }
}
