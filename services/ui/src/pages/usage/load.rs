//! What a usage page asks of keys and query: all calls at once, each panel stands or falls alone.

use domain::{Denial, KeyId};
use proto::{
    keys::{GetKeyRequest, Key},
    resource::{key_name, workspace_name},
    usage::{
        Breakdown, BreakdownRow, Dimension, GetBreakdownRequest, GetLatencyRequest, GetOverviewRequest,
        GetSummaryRequest, Latency, ListRequestsRequest, ListRequestsResponse, Overview, Summary,
        UsageFilter,
    },
};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::{
    cards::Card,
    chart::Chart,
    donut::{Donut, Palette},
    endpoints::Endpoints,
    form::Seen,
    latency::Latencies,
    log::{Log, read_mask},
    place::Place,
    trust::{Scope, StillCalled, Trust},
};
use crate::{
    columns::Column,
    filters::{Filters, Keys},
    pages::keys_view::KeyView,
    problem::{Problem, Service},
    visit::Visit,
};

/// Rows on one page of the log.
const LOG_ROWS: i32 = 50;
/// Rows of the breakdowns behind the donuts.
const DONUT_ROWS: i32 = 100;
/// Endpoints listed.
const ENDPOINT_ROWS: i32 = 10;

/// One part of the page, or why it is not there.
pub(crate) type Panel<T> = Result<T, Problem>;

/// Everything below the filter.
pub(crate) struct Panels {
    pub(crate) cards: Panel<[Card; 4]>,
    pub(crate) chart: Panel<Chart>,
    pub(crate) methods: Panel<Donut>,
    pub(crate) statuses: Panel<Donut>,
    pub(crate) slow: Slow,
    pub(crate) log: Panel<Log>,
    pub(crate) trust: Option<Trust>,
    pub(crate) scope: Scope,
}

/// What reads single calls, and so may come after the page.
pub(crate) struct Slow {
    pub(crate) endpoints: Panel<Endpoints>,
    /// `None` if it was not asked for.
    pub(crate) latency: Option<Panel<Latencies>>,
}

impl Panels {
    /// Values to offer in the filter's form.
    #[must_use]
    pub(crate) fn seen(&self) -> Seen {
        let methods = self.methods.iter().flat_map(|donut| &donut.rows).map(|row| row.label.clone());
        let routes =
            self.slow.endpoints.iter().flat_map(|list| &list.rows).map(|endpoint| endpoint.route.clone());
        Seen { methods: methods.collect(), routes: routes.collect() }
    }

    /// Asks for everything, in the reader's time `zone`.
    pub(crate) async fn load(
        visit: &Visit,
        place: Place,
        filters: &Filters,
        columns: &[Column],
        (zone, has_latency): (&str, bool),
        now: OffsetDateTime,
    ) -> Self {
        let filter = filters.to_proto(now);
        // Of a single route the cards say all, but for how long its calls took.
        let slow = async {
            match filters.route() {
                Some(route) if !has_latency => Err(route),
                _ => Ok(Slow::load(visit, filters, has_latency, now).await),
            }
        };
        let (overview, slow, log, scope) = tokio::join!(
            get_overview(visit, &filter, zone),
            slow,
            list_requests(visit, &filter, columns, &filters.page_token, LOG_ROWS),
            get_scope(visit, filters.keys, now),
        );
        let problem = |status: &Status| visit.problem(Service::Query, status);
        let overview = overview.as_ref();
        let donut = |palette, of: fn(&Overview) -> &Option<Breakdown>| {
            let rows = overview.map(|overview| of(overview).clone().unwrap_or_default());
            rows.map(|rows| Donut::new(palette, &rows, filters)).map_err(problem)
        };
        let freshness = overview.ok().and_then(|overview| overview.summary.as_ref()?.freshness.as_ref());
        let of_one = |route| Slow {
            endpoints: overview
                .map(|overview| Endpoints::new(&only(route, overview), filters))
                .map_err(problem),
            latency: None,
        };
        Self {
            trust: freshness.map(|freshness| Trust::new(freshness, now)),
            cards: overview.map(|overview| cards(overview, filters)).map_err(problem),
            chart: overview
                .map(|overview| Chart::new(&overview.series.clone().unwrap_or_default(), filters, now))
                .map_err(problem),
            methods: donut(Palette::Methods, |overview| &overview.methods),
            statuses: donut(Palette::StatusCodes, |overview| &overview.status_codes),
            slow: slow.unwrap_or_else(of_one),
            log: log
                .map(|rows| Log::new(&rows, columns, filters, &place.path(), now))
                .map_err(|status| problem(&status)),
            scope,
        }
    }
}

/// The breakdown by route where all calls are of one.
fn only(route: &str, overview: &Overview) -> Breakdown {
    let counts = overview.summary.as_ref().and_then(|summary| summary.counts);
    let row = counts.filter(|counts| counts.total_count > 0).map(|counts| BreakdownRow {
        value: route.to_owned(),
        counts: Some(counts),
        ..Default::default()
    });
    Breakdown { rows: row.into_iter().collect(), ..Default::default() }
}

fn cards(overview: &Overview, filters: &Filters) -> [Card; 4] {
    let Summary { counts, previous_counts, .. } = overview.summary.clone().unwrap_or_default();
    Card::all(&counts.unwrap_or_default(), previous_counts.as_ref(), overview.series.as_ref(), filters)
}

impl Slow {
    /// Endpoints, and if asked for how long calls took.
    pub(crate) async fn load(
        visit: &Visit,
        filters: &Filters,
        has_latency: bool,
        now: OffsetDateTime,
    ) -> Self {
        let filter = filters.to_proto(now);
        let latency = async { if has_latency { Some(get_latency(visit, &filter).await) } else { None } };
        let routes = get_breakdown(visit, &filter, Dimension::Route, ENDPOINT_ROWS, has_latency);
        let (routes, latency) = tokio::join!(routes, latency);
        let problem = |status: Status| visit.problem(Service::Query, &status);
        Self {
            endpoints: routes.map(|rows| Endpoints::new(&rows, filters)).map_err(problem),
            latency: latency.map(|latency| latency.map(|latency| Latencies::new(&latency)).map_err(problem)),
        }
    }
}

pub(crate) async fn get_key(visit: &Visit, key_id: KeyId) -> Result<Key, Status> {
    let name = key_name(visit.access.workspace_id, key_id);
    Ok(visit.app.clients.keys.clone().get_key(visit.call(GetKeyRequest { name })).await?.into_inner())
}

/// Whose calls are shown, in words, where they are not the page's own.
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

pub(crate) async fn get_summary(visit: &Visit, filter: &UsageFilter) -> Result<Summary, Status> {
    let parent = workspace_name(visit.access.workspace_id);
    let request =
        visit.call(GetSummaryRequest { parent, filter: Some(filter.clone()), ..Default::default() });
    Ok(visit.app.clients.usage.clone().get_summary(request).await?.into_inner())
}

/// With bars by the clocks of `zone`, or in UTC if query knows no such zone.
async fn get_overview(visit: &Visit, filter: &UsageFilter, zone: &str) -> Result<Overview, Status> {
    let ask = async |time_zone: &str| {
        let request = visit.call(GetOverviewRequest {
            parent: workspace_name(visit.access.workspace_id),
            filter: Some(filter.clone()),
            with_previous: true,
            time_zone: time_zone.to_owned(),
            limit: DONUT_ROWS,
            ..Default::default()
        });
        visit.app.clients.usage.clone().get_overview(request).await
    };
    let answer = match ask(zone).await {
        Err(status) if status.code() == Code::InvalidArgument && !zone.is_empty() => ask("").await,
        answer => answer,
    };
    Ok(answer?.into_inner())
}

async fn get_latency(visit: &Visit, filter: &UsageFilter) -> Result<Latency, Status> {
    let parent = workspace_name(visit.access.workspace_id);
    let request = visit.call(GetLatencyRequest { parent, filter: Some(filter.clone()) });
    Ok(visit.app.clients.usage.clone().get_latency(request).await?.into_inner())
}

pub(crate) async fn get_breakdown(
    visit: &Visit,
    filter: &UsageFilter,
    dimension: Dimension,
    limit: i32,
    with_p95: bool,
) -> Result<Breakdown, Status> {
    let request = visit.call(GetBreakdownRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter.clone()),
        dimension: dimension.into(),
        limit,
        with_p95,
        ..Default::default()
    });
    Ok(visit.app.clients.usage.clone().get_breakdown(request).await?.into_inner())
}

/// Who calls with a key that is deleted, in the filter's range; `None` if it is not, if nobody does, or query does not
/// say.
pub(crate) async fn get_still_called(
    visit: &Visit,
    filters: &Filters,
    key: Option<&KeyView>,
    now: OffsetDateTime,
) -> Option<StillCalled> {
    let key_id = key.filter(|key| key.is_deleted())?.id;
    let range = filters.to_proto(now);
    let filter = UsageFilter {
        from: range.from,
        to: range.to,
        key_ids: vec![key_id.to_string()],
        denials: vec![Denial::Deleted.as_str().to_owned()],
        ..UsageFilter::default()
    };
    StillCalled::new(&get_breakdown(visit, &filter, Dimension::ClientIp, 1, false).await.ok()?)
}

pub(crate) async fn list_requests(
    visit: &Visit,
    filter: &UsageFilter,
    columns: &[Column],
    page_token: &str,
    page_size: i32,
) -> Result<ListRequestsResponse, Status> {
    let request = visit.call(ListRequestsRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter.clone()),
        page_size,
        page_token: page_token.to_owned(),
        read_mask: Some(read_mask(columns)),
        ..Default::default()
    });
    Ok(visit.app.clients.usage.clone().list_requests(request).await?.into_inner())
}
