//! The log: calls that were written, the newest first.

use proto::usage::{ListRequestsRequest, Outcome, Request};
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::format_description};

use crate::{
    arguments::List,
    clients::Clients,
    failure::{Failure, Service},
    json,
    screen::Screen,
    table::Table,
    usage::trust,
    words::{latency, time},
};

const PAGE_SIZE: u32 = 1_000;
/// A call's name among the messages.
pub(crate) const REQUEST: &str = "keymeter.usage.v1.Request";

/// Prints the newest calls.
pub(crate) async fn list(clients: &mut Clients, asked: &List, screen: &Screen) -> Result<(), Failure> {
    let range = asked.period.range(OffsetDateTime::now_utc());
    let mut list = ListRequestsRequest {
        parent: clients.workspace().await?,
        filter: Some(asked.which.filter(clients, range).await?),
        ..ListRequestsRequest::default()
    };
    let limit = asked.limit as usize;
    let mut requests: Vec<Request> = Vec::new();
    let freshness = loop {
        let missing = u32::try_from(limit - requests.len()).unwrap_or(PAGE_SIZE);
        list.page_size = i32::try_from(missing.min(PAGE_SIZE)).unwrap_or(0);
        let client = clients.usage.clone();
        let page = clients
            .read(Service::Query, list.clone(), async |call| client.clone().list_requests(call).await)
            .await?;
        requests.extend(page.requests);
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() || requests.len() >= limit {
            break page.freshness;
        }
    };
    if screen.is_json {
        let all = requests.iter().map(|request| json::of(REQUEST, request)).collect::<Value>();
        let freshness = freshness.map(|freshness| json::of("keymeter.usage.v1.Freshness", &freshness));
        let has_more = !list.page_token.is_empty();
        return screen.document(&json!({ "requests": all, "freshness": freshness, "has_more": has_more }));
    }
    screen.table(&table(&requests, true))?;
    trust(freshness.as_ref(), screen);
    Ok(())
}

/// A row for each call; without heads where rows before had them.
pub(crate) fn table(requests: &[Request], has_heads: bool) -> Table {
    const HEADS: [&str; 7] = ["TIME (UTC)", " STATUS", "METHOD", "PATH", " TOOK", "KEY", "REFUSED FOR"];
    const NONE: [&str; 7] = ["", " ", "", "", " ", "", ""];
    let mut table = Table::new(if has_heads { &HEADS } else { &NONE });
    for request in requests {
        table.row([
            time(request.occurred_at.as_ref()).map(clock).unwrap_or_default(),
            request.status_code.to_string(),
            request.method.clone(),
            request.path.clone(),
            latency(request.latency_us.into()),
            request.key_id.clone(),
            refusal(request),
        ]);
    }
    table
}

/// Why the edge refused, or which limit did.
fn refusal(request: &Request) -> String {
    let is_limited = request.outcome() == Outcome::RateLimited && !request.limit_name.is_empty();
    if is_limited { format!("limit {}", request.limit_name) } else { request.denial.clone() }
}

/// To the millisecond, as calls are told apart.
fn clock(at: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
    at.format(form).unwrap_or_default()
}
