//! The request log: pages of it, newest first, and one call by its id.

use domain::{Id, KeyId, Outcome, RequestId, SecretId, TimeRange, WorkspaceId};
use proto::{resource, status, status::invalid, timestamp, usage as pb};
use time::OffsetDateTime;
use tonic::Status;

use crate::{
    call::Call,
    filter::{Filter, row_limit},
    page_token::{self, Page, Question},
    plan::{Plan, Span},
    sql,
    sql::{Direction, Fields, Position},
    store::CallRow,
    windows::Search,
};

const PAGE_SIZE_DEFAULT: u32 = 50;
const PAGE_SIZE_MAX: u32 = 1_000;
/// How far a call's time may be from the time in its id: an edge's clock may be off.
const NEAR_MS: i64 = 24 * 60 * 60 * 1000;
/// All times that ClickHouse can hold: 1900 to 2299.
const ALWAYS: Span = Span { from_ms: -2_208_988_800_000, to_ms: 10_413_791_999_999 };

/// Answers `ListRequests`.
pub(crate) async fn list(
    call: Call,
    request: pb::ListRequestsRequest,
) -> Result<pb::ListRequestsResponse, Status> {
    let workspace_id = call.claims.workspace(&request.parent)?;
    let question = Question::of(&request.parent, request.filter.as_ref(), request.order);
    let Filter { range, condition } = Filter::parse(request.filter)?;
    let order = order(request.order)?;
    let page_size = page_size(request.page_size)?;
    let fields = fields(request.read_mask)?;
    let page = page_token::read(&request.page_token, question)?;
    if page.is_some_and(|page| !Span::of(&range).contains(page.position.occurred_at_ms)) {
        return Err(invalid("page_token", "is not a page token of this service"));
    }
    let is_backward = page.is_some_and(|page| page.is_backward);
    let horizon = call.horizon().await?;
    let plan = Plan::of_calls(&range, horizon.calls_from_ms(workspace_id, call.now));
    let search = Search {
        workspace_id,
        condition: &condition,
        fields: &fields,
        span: plan.live(),
        position: page.map(|page| page.position),
        direction: if is_backward { order.opposite() } else { order },
    };
    // One more than asked for tells whether there is another page.
    let mut rows = search.find(&call, page_size as usize + 1).await?;
    let has_more = rows.len() > page_size as usize;
    rows.truncate(page_size as usize);
    if is_backward {
        rows.reverse();
    }
    let token = |row: Option<&CallRow>, is_backward| {
        row.map_or_else(String::new, |row| {
            page_token::write(Page { position: position_of(row), is_backward }, question)
        })
    };
    // Where the page was come from, there is another one.
    let (has_next, has_previous) = if is_backward { (true, has_more) } else { (has_more, page.is_some()) };
    Ok(pb::ListRequestsResponse {
        next_page_token: token(rows.last().filter(|_| has_next), false),
        previous_page_token: token(rows.first().filter(|_| has_previous), true),
        requests: rows
            .into_iter()
            .map(|row| Ok(only(&fields, to_wire(workspace_id, row)?)))
            .collect::<Result<_, Status>>()?,
        freshness: Some(call.freshness(&horizon, workspace_id, &range, &plan)),
    })
}

/// Answers `GetRequest`.
pub(crate) async fn get(call: Call, request: pb::GetRequestRequest) -> Result<pb::Request, Status> {
    let (workspace_id, request_id) =
        resource::parse_request_name(&request.name).map_err(|error| invalid("name", error.to_string()))?;
    let not_found = || status::not_found("request", &request.name);
    if !call.claims.owns(workspace_id) {
        return Err(not_found());
    }
    let horizon = call.horizon().await?;
    // The time in the id spares looking everywhere, nearly always.
    for span in near(request_id).into_iter().chain([ALWAYS]) {
        let statement = sql::call(workspace_id, request_id, span);
        let Some(row) = call.rows::<CallRow>(workspace_id, statement).await?.pop() else { continue };
        let range = TimeRange::new(row.occurred_at, row.occurred_at + time::Duration::MILLISECOND);
        let range = range.map_err(|_| status::internal())?;
        let plan = Plan::of_calls(&range, i64::MIN);
        let freshness = Some(call.freshness(&horizon, workspace_id, &range, &plan));
        return Ok(pb::Request { freshness, ..to_wire(workspace_id, row)? });
    }
    Err(not_found())
}

fn fields(read_mask: Option<prost_types::FieldMask>) -> Result<Fields, Status> {
    let paths = read_mask.unwrap_or_default().paths;
    match paths.iter().find(|path| !Fields::is_known(path)) {
        Some(unknown) => {
            let why = format!(
                "has {unknown:?}, which is no field of a request in the log; use names such as route"
            );
            Err(invalid("read_mask", why))
        }
        None if paths.is_empty() => Ok(Fields::All),
        None => Ok(Fields::Only(paths)),
    }
}

/// What was not read is left empty, also where nothing looks like something.
fn only(fields: &Fields, request: pb::Request) -> pb::Request {
    let text = |name, text| if fields.has(name) { text } else { String::new() };
    pb::Request {
        key_id: text("key_id", request.key_id),
        secret_id: text("secret_id", request.secret_id),
        client_ip: text("client_ip", request.client_ip),
        ingested_at: request.ingested_at.filter(|_| fields.has("ingested_at")),
        ..request
    }
}

fn order(value: i32) -> Result<Direction, Status> {
    match pb::Order::try_from(value) {
        Ok(pb::Order::Unspecified | pb::Order::NewestFirst) => Ok(Direction::Falling),
        Ok(pb::Order::OldestFirst) => Ok(Direction::Rising),
        Err(_) => Err(invalid("order", "must be NEWEST_FIRST, OLDEST_FIRST or unset")),
    }
}

fn page_size(value: i32) -> Result<u32, Status> {
    row_limit("page_size", value, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
}

/// Times around the one in the id; `None` if the id has none.
fn near(request_id: RequestId) -> Option<Span> {
    let (seconds, nanos) = request_id.as_uuid().get_timestamp()?.to_unix();
    let ms = i64::try_from(seconds).ok()? * 1000 + i64::from(nanos / 1_000_000);
    Some(Span { from_ms: ms - NEAR_MS, to_ms: ms + NEAR_MS })
}

fn position_of(row: &CallRow) -> Position {
    Position { occurred_at_ms: ms(row.occurred_at), request_id: Id::from_uuid(row.request_id) }
}

pub(crate) fn ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1000 + i64::from(at.millisecond())
}

/// # Errors
/// `INTERNAL` if the outcome is one that this version does not know.
pub(crate) fn to_wire(workspace_id: WorkspaceId, row: CallRow) -> Result<pb::Request, Status> {
    let request_id = RequestId::from_uuid(row.request_id);
    let Ok(outcome) = row.outcome_name.parse::<Outcome>() else {
        tracing::error!(outcome = row.outcome_name, "a row has an unknown outcome");
        return Err(status::internal());
    };
    Ok(pb::Request {
        name: resource::request_name(workspace_id, request_id),
        key_id: KeyId::from_uuid(row.key_id).to_string(),
        secret_id: SecretId::from_uuid(row.secret_id).to_string(),
        client_request_id: row.client_request_id,
        occurred_at: Some(timestamp::to_proto(row.occurred_at)),
        ingested_at: Some(timestamp::to_proto(row.ingested_at)),
        clock_skewed: row.clock_skewed,
        interrupted: row.interrupted,
        method: row.method,
        route: row.route,
        path: row.path,
        resource_id: row.resource_id,
        status_code: row.status_code.into(),
        outcome: match outcome {
            Outcome::Completed => pb::Outcome::Completed,
            Outcome::Failed => pb::Outcome::Failed,
            Outcome::RateLimited => pb::Outcome::RateLimited,
        }
        .into(),
        origin: row.origin_name,
        denial: row.denial,
        limit_name: row.limit_name,
        latency_us: row.latency_us,
        request_bytes: row.request_bytes,
        response_bytes: row.response_bytes,
        client_ip: row.client_ip.to_canonical().to_string(),
        user_agent: row.user_agent,
        region: row.region,
        trace_id: trace_id(row.trace_id),
        edge_id: row.edge_id,
        limit_window_s: row.limit_window_s,
        limit_remaining: row.limit_remaining,
        freshness: None,
    })
}

/// Hexadecimal; empty for zeros, which stand for none.
fn trace_id(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] { String::new() } else { data_encoding::HEXLOWER.encode(&bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes() {
        let size = |value| page_size(value).ok();
        assert_eq!([size(0), size(1), size(1_000)], [Some(50), Some(1), Some(1_000)]);
        assert_eq!([size(1_001), size(-1)], [Some(1_000), None]);
        assert!(page_size(-1).unwrap_err().message().starts_with("page_size: "));
    }

    #[test]
    fn an_id_is_looked_for_around_its_own_time() {
        let id = "req_06d6dqo0000000000000000000".parse::<RequestId>().unwrap();
        assert_eq!(near(id), None, "not a UUIDv7");
        let before = ms(OffsetDateTime::now_utc());
        let span = near(RequestId::generate()).unwrap();
        let after = ms(OffsetDateTime::now_utc());
        assert!(((before - NEAR_MS)..=(after - NEAR_MS)).contains(&span.from_ms));
        assert_eq!(span.to_ms - span.from_ms, 2 * NEAR_MS);
    }
}
