//! A key's usage: its calls to keys and query run at once, and each panel stands or falls alone.

use askama::Template;
use axum::{
    extract::{Path, RawQuery},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use domain::{Denial, KeyId};
use proto::{
    keys::{GetKeyRequest, Key},
    resource::{key_name, workspace_name},
    usage::{
        Breakdown, Dimension, GetBreakdownRequest, GetSummaryRequest, ListRequestsRequest,
        ListRequestsResponse, Summary, UsageFilter,
    },
};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::{
    Shell,
    keys_view::KeyView,
    usage_view::{
        Card, Cell, Donut, Endpoints, FilterForm, Freshness, Log, Palette, Scope, Seen, StillCalled,
    },
};
use crate::{
    columns::{self, Column},
    filters::{Fields, Filters, Keys},
    problem::{Problem, Service, Stop, page},
    visit::Visit,
};

/// Rows on one page of the log.
const LOG_ROWS: i32 = 50;
/// Rows of the breakdowns behind the donuts.
const DONUT_ROWS: i32 = 100;
/// Endpoints listed.
const ENDPOINT_ROWS: i32 = 10;

/// One part of the page, or why it is not there.
type Panel<T> = Result<T, Problem>;

/// Everything below the filter.
struct Panels {
    cards: Panel<[Card; 4]>,
    methods: Panel<Donut>,
    statuses: Panel<Donut>,
    endpoints: Panel<Endpoints>,
    log: Panel<Log>,
    freshness: Option<Freshness>,
    scope: Scope,
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    shell: Shell,
    key: Option<KeyView>,
    key_id: KeyId,
    form: FilterForm,
    /// `None` while the filter is not understood.
    panels: Option<Panels>,
    here: String,
    columns: Vec<Column>,
    edge_url: String,
    problem: Option<Problem>,
    /// Of a deleted key.
    still_called: Option<StillCalled>,
}

impl Panels {
    fn seen(&self) -> Seen {
        let methods = self.methods.iter().flat_map(|donut| &donut.rows).map(|row| row.label.clone());
        let routes =
            self.endpoints.iter().flat_map(|list| &list.rows).map(|endpoint| endpoint.row.label.clone());
        Seen { methods: methods.collect(), routes: routes.collect() }
    }
}

impl UsagePage {
    /// The key, if it could be used but never was.
    fn unused(&self) -> Option<&KeyView> {
        self.key.as_ref().filter(|key| {
            key.last_used.is_none() && !key.is_deleted() && !key.is_disabled() && !key.is_expired()
        })
    }
}

/// `GET /keys/{key_id}/usage`
pub(crate) async fn show(
    visit: Visit,
    Path(key_id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let key_id: KeyId = key_id.parse().map_err(|_| visit.not_found())?;
    let fields = Fields::read(query.as_deref().unwrap_or_default());
    let now = now_to_the_millisecond();
    let filters = Filters::parse(&fields, key_id);
    let columns = visit.jar.get(columns::COOKIE).map_or("", |cookie| cookie.value());
    let columns = columns::from_cookie(columns);
    let (key, panels) = match &filters {
        Ok(filters) => {
            let (key, panels) = tokio::join!(get_key(&visit, key_id), load(&visit, filters, &columns, now));
            (key, Some(panels))
        }
        Err(_) => (get_key(&visit, key_id).await, None),
    };
    let (key, problem) = match key {
        Ok(key) => (KeyView::new(&key, now), None),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unauthenticated) => {
            return Err(visit.stop(Service::Keys, &status));
        }
        Err(status) => (None, Some(visit.problem(Service::Keys, &status))),
    };
    let still_called = match (&key, &filters) {
        (Some(key), Ok(filters)) if key.is_deleted() => get_still_called(&visit, filters, key_id, now).await,
        _ => None,
    };
    let path = format!("/keys/{key_id}/usage");
    let code = if panels.is_some() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let here = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let edge_url = visit.app.config.edge_url.to_string();
    let seen = panels.as_ref().map_or_else(Seen::default, Panels::seen);
    let form = FilterForm::new(fields, &filters, key_id, seen, now);
    let shell = visit.shell();
    let html =
        page(&UsagePage { shell, key, key_id, form, panels, here, columns, edge_url, problem, still_called });
    Ok((code, html).into_response())
}

async fn load(visit: &Visit, filters: &Filters, columns: &[Column], now: OffsetDateTime) -> Panels {
    let filter = filters.to_proto(now);
    let breakdown = |dimension, limit| get_breakdown(visit, &filter, dimension, limit);
    let (summary, methods, statuses, routes, log, scope) = tokio::join!(
        get_summary(visit, &filter),
        breakdown(Dimension::Method, DONUT_ROWS),
        breakdown(Dimension::StatusCode, DONUT_ROWS),
        breakdown(Dimension::Route, ENDPOINT_ROWS),
        list_requests(visit, &filter, &filters.page_token),
        get_scope(visit, filters.keys, now),
    );
    let problem = |status: Status| visit.problem(Service::Query, &status);
    let fresh = summary.as_ref().ok().and_then(|summary| summary.freshness.as_ref());
    Panels {
        freshness: fresh.map(|freshness| Freshness::new(freshness, now)),
        cards: summary.map(|summary| Card::all(&summary.counts.unwrap_or_default())).map_err(problem),
        methods: methods.map(|rows| Donut::new(Palette::Methods, &rows)).map_err(problem),
        statuses: statuses.map(|rows| Donut::new(Palette::StatusCodes, &rows)).map_err(problem),
        endpoints: routes.map(|rows| Endpoints::new(&rows)).map_err(problem),
        log: log.map(|rows| Log::new(&rows, columns, filters, now)).map_err(problem),
        scope,
    }
}

async fn get_key(visit: &Visit, key_id: KeyId) -> Result<Key, Status> {
    let name = key_name(visit.access.workspace_id, key_id);
    Ok(visit.app.clients.keys.clone().get_key(visit.call(GetKeyRequest { name })).await?.into_inner())
}

/// Whose calls are shown, in words, where they are not the page's own key's.
async fn get_scope(visit: &Visit, keys: Keys, now: OffsetDateTime) -> Scope {
    match keys {
        Keys::Own(_) => Scope::Own,
        Keys::Every => Scope::Every,
        Keys::Other(key_id) => match get_key(visit, key_id).await {
            Ok(key) => {
                KeyView::new(&key, now).map_or(Scope::Unknown(key_id), |key| Scope::Other(Box::new(key)))
            }
            Err(_) => Scope::Unknown(key_id),
        },
    }
}

async fn get_summary(visit: &Visit, filter: &UsageFilter) -> Result<Summary, Status> {
    let parent = workspace_name(visit.access.workspace_id);
    let request =
        visit.call(GetSummaryRequest { parent, filter: Some(filter.clone()), ..Default::default() });
    Ok(visit.app.clients.usage.clone().get_summary(request).await?.into_inner())
}

async fn get_breakdown(
    visit: &Visit,
    filter: &UsageFilter,
    dimension: Dimension,
    limit: i32,
) -> Result<Breakdown, Status> {
    let parent = workspace_name(visit.access.workspace_id);
    let dimension = dimension.into();
    let request = visit.call(GetBreakdownRequest {
        parent,
        filter: Some(filter.clone()),
        dimension,
        limit,
        ..Default::default()
    });
    Ok(visit.app.clients.usage.clone().get_breakdown(request).await?.into_inner())
}

/// Who calls with a deleted key, in the filter's range; `None` if nobody does, or query does not say.
async fn get_still_called(
    visit: &Visit,
    filters: &Filters,
    key_id: KeyId,
    now: OffsetDateTime,
) -> Option<StillCalled> {
    let range = filters.to_proto(now);
    let filter = UsageFilter {
        from: range.from,
        to: range.to,
        key_ids: vec![key_id.to_string()],
        denials: vec![Denial::Deleted.as_str().to_owned()],
        ..UsageFilter::default()
    };
    StillCalled::new(&get_breakdown(visit, &filter, Dimension::ClientIp, 1).await.ok()?)
}

async fn list_requests(
    visit: &Visit,
    filter: &UsageFilter,
    page_token: &str,
) -> Result<ListRequestsResponse, Status> {
    let request = visit.call(ListRequestsRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter.clone()),
        page_size: LOG_ROWS,
        page_token: page_token.to_owned(),
        ..Default::default()
    });
    Ok(visit.app.clients.usage.clone().list_requests(request).await?.into_inner())
}

/// Now, to the precision that links keep, so that a link to a later page asks for the same range.
fn now_to_the_millisecond() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.nanosecond() / 1_000_000 * 1_000_000).unwrap_or(now)
}
