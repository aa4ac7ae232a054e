//! The list of keys with what happened to them in the last 24 hours. Shows the keys also while query is away.

use std::{collections::HashMap, time::Duration};

use askama::Template;
use axum::{
    extract::RawQuery,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use domain::Denial;
use proto::{
    keys::ListKeysRequest,
    resource::workspace_name,
    timestamp::to_proto,
    usage::{Breakdown, Dimension, Granularity, ListKeyUsageRequest, ListKeyUsageResponse, UsageFilter},
};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::{
    errors::FormErrors,
    form::KeyForm,
    list_query::ListQuery,
    mint_idempotency_key,
    spark::{BARS, Spark},
};
use crate::{
    format::count,
    pages::{Shell, keys_view::KeyView, usage::get_breakdown},
    problem::{Problem, Service, Stop, page},
    visit::Visit,
};

/// Keys on one page of the list; one question to query takes no more than 100.
const PAGE_SIZE: i32 = 50;
/// How long the list waits for query: people look for their keys first.
const USAGE_PATIENCE: Duration = Duration::from_secs(3);

/// The first bar of a drawing begins so long before the hour of its last.
const BEFORE_THIS_HOUR: time::Duration = time::Duration::hours(BARS as i64 - 1);

/// One key in the list.
struct Row {
    key: KeyView,
    /// `None` while query is away.
    spark: Option<Spark>,
    /// How many calls with this deleted key were refused in the last 24 hours.
    still_called: Option<String>,
}

/// The calls of the listed keys.
type Usage = (ListKeyUsageResponse, Breakdown);

#[derive(Template)]
#[template(path = "keys.html")]
struct ListPage {
    shell: Shell,
    rows: Vec<Row>,
    query: ListQuery,
    errors: FormErrors,
    /// The next page.
    next: Option<String>,
    /// Why there is nothing of the last 24 hours.
    usage_problem: Option<Problem>,
    form: KeyForm,
}

impl ListPage {
    fn new(visit: &Visit, query: ListQuery) -> Self {
        Self {
            shell: visit.shell(),
            rows: Vec::new(),
            query,
            errors: FormErrors::default(),
            next: None,
            usage_problem: None,
            form: KeyForm { idempotency_key: mint_idempotency_key(), ..KeyForm::default() },
        }
    }
}

/// `GET /keys`
pub(crate) async fn show(visit: Visit, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let query = ListQuery::read(query.as_deref().unwrap_or_default());
    let request = match query.to_request() {
        Ok(request) => request,
        Err(errors) => return Ok(refuse(&visit, query, errors)),
    };
    let request = visit.call(ListKeysRequest {
        parent: workspace_name(visit.access.workspace_id),
        page_size: PAGE_SIZE,
        ..request
    });
    let listed = match visit.app.clients.keys.clone().list_keys(request).await {
        Ok(listed) => listed.into_inner(),
        // A link to a page of the list from before a change of it: start over.
        Err(status) if status.code() == Code::InvalidArgument && !query.page_token.is_empty() => {
            return Ok(Redirect::to(&query.link("")).into_response());
        }
        Err(status) if status.code() == Code::InvalidArgument => {
            return Ok(refuse(&visit, query, FormErrors::of(&status)));
        }
        Err(status) => return Err(visit.stop(Service::Keys, &status)),
    };
    let now = OffsetDateTime::now_utc();
    let keys: Vec<_> = listed.keys.iter().filter_map(|key| KeyView::new(key, now)).collect();
    let usage = get_usage(&visit, &keys, now).await;
    let next = (!listed.next_page_token.is_empty()).then(|| query.link(&listed.next_page_token));
    let mut list = ListPage { next, ..ListPage::new(&visit, query) };
    list.usage_problem = usage.as_ref().err().map(|status| visit.problem(Service::Query, status));
    list.rows = rows(keys, usage.ok().as_ref());
    Ok(page(&list))
}

fn refuse(visit: &Visit, query: ListQuery, errors: FormErrors) -> Response {
    let list = ListPage { errors, ..ListPage::new(visit, query) };
    (StatusCode::BAD_REQUEST, page(&list)).into_response()
}

fn rows(keys: Vec<KeyView>, usage: Option<&Usage>) -> Vec<Row> {
    let by_key: HashMap<_, _> =
        usage.iter().flat_map(|(usage, _)| &usage.keys).map(|usage| (usage.key_id.as_str(), usage)).collect();
    let refused: HashMap<_, _> = usage
        .iter()
        .flat_map(|(_, refused)| &refused.rows)
        .map(|row| (row.value.as_str(), row.counts.unwrap_or_default().total_count))
        .collect();
    let row = |key: KeyView| {
        let id = key.id.to_string();
        Row {
            spark: usage.map(|_| Spark::new(by_key.get(id.as_str()).copied())),
            still_called: refused.get(id.as_str()).filter(|calls| **calls > 0).map(|calls| count(*calls)),
            key,
        }
    };
    keys.into_iter().map(row).collect()
}

/// One question for all keys, and one for those that were deleted.
async fn get_usage(visit: &Visit, keys: &[KeyView], now: OffsetDateTime) -> Result<Usage, Status> {
    if keys.is_empty() {
        return Ok(Usage::default());
    }
    let ids = |keep: &dyn Fn(&&KeyView) -> bool| {
        keys.iter().filter(keep).map(|key| key.id.to_string()).collect::<Vec<_>>()
    };
    let asked = async {
        tokio::try_join!(
            get_key_usage(visit, last_day(ids(&|_| true), now)),
            get_still_called(visit, last_day(ids(&|key| key.is_deleted()), now)),
        )
    };
    let answered = tokio::time::timeout(USAGE_PATIENCE, asked).await;
    answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("the list does not wait longer")))
}

/// The current hour and the 23 before it.
fn last_day(key_ids: Vec<String>, now: OffsetDateTime) -> UsageFilter {
    let hour =
        now.replace_minute(0).and_then(|at| at.replace_second(0)).and_then(|at| at.replace_nanosecond(0));
    let from = hour.unwrap_or(now) - BEFORE_THIS_HOUR;
    UsageFilter { from: Some(to_proto(from)), to: Some(to_proto(now)), key_ids, ..UsageFilter::default() }
}

async fn get_key_usage(visit: &Visit, filter: UsageFilter) -> Result<ListKeyUsageResponse, Status> {
    let request = visit.call(ListKeyUsageRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter),
        granularity: Granularity::Hour.into(),
        limit: PAGE_SIZE,
        ..ListKeyUsageRequest::default()
    });
    Ok(visit.app.clients.usage.clone().list_key_usage(request).await?.into_inner())
}

/// Refused calls of deleted keys, by key; of no key there are none.
async fn get_still_called(visit: &Visit, mut filter: UsageFilter) -> Result<Breakdown, Status> {
    if filter.key_ids.is_empty() {
        return Ok(Breakdown::default());
    }
    filter.denials = vec![Denial::Deleted.as_str().to_owned()];
    get_breakdown(visit, &filter, Dimension::Key, PAGE_SIZE, false).await
}
