//! Usage, of a key or of the whole workspace: cards, charts, endpoints and the request log under one filter.

use std::future::{self, Future};

use askama::Template;
use axum::{
    body::Body,
    extract::{RawPathParams, RawQuery},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use tonic::Code;

use super::{Shell, keys_view::KeyView};
use crate::{
    columns::{self, Column},
    filters::{Chip, Fields, Filters},
    problem::{Problem, Service, Stop, page, page_of},
    views::{self, View},
    visit::Visit,
};

mod cards;
mod chart;
mod donut;
mod endpoints;
pub(crate) mod export;
mod form;
mod latency;
mod load;
mod log;
mod place;
pub(crate) mod request;
mod slices;
pub(crate) mod tail;
mod tar;
mod trust;

use form::{FilterForm, Seen};
pub(crate) use load::get_breakdown;
use load::{Panels, Slow, get_key, get_still_called};
use log::Cell;
use place::Place;
use trust::{Scope, StillCalled};

/// Where the contents of a page begin.
const CONTENTS: &str = "<main id=\"main\" tabindex=\"-1\">";
/// The cookie with the reader's time zone, which a script finds out.
const ZONE_COOKIE: &str = "keymeter_zone";
/// Longest name of a time zone, in bytes.
const ZONE_BYTES_MAX: usize = 64;

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    shell: Shell,
    place: Place,
    key: Option<KeyView>,
    form: FilterForm,
    /// `None` while the filter is not understood.
    panels: Option<Panels>,
    chips: Vec<Chip>,
    views: Vec<View>,
    /// This page with its filter, and its query string alone.
    here: String,
    query: String,
    /// The same with its period held, for files; empty without a filter.
    held: String,
    columns: Vec<Column>,
    zone: String,
    /// Milliseconds since 1970.
    rendered_ms: i64,
    edge_url: String,
    problem: Option<Problem>,
    /// Of a deleted key.
    still_called: Option<StillCalled>,
}

/// The page as far as its contents: they come later.
#[derive(Template)]
#[template(path = "usage_opening.html")]
struct Opening<'a> {
    shell: Shell,
    place: Place,
    key: Option<&'a KeyView>,
}

#[derive(Template)]
#[template(path = "usage_slow.html")]
struct SlowPanels {
    place: Place,
    slow: Slow,
    query: String,
}

impl UsagePage {
    /// The key, if it could be used but never was.
    fn unused(&self) -> Option<&KeyView> {
        self.key.as_ref().filter(|key| {
            key.last_used.is_none() && !key.is_deleted() && !key.is_disabled() && !key.is_expired()
        })
    }
}

/// `GET /keys/{key_id}/usage`, `GET /overview`
pub(crate) async fn show(
    visit: Visit,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let place = Place::of(&params, &visit)?;
    let query = query.unwrap_or_default();
    let fields = Fields::read(&query);
    let now = now_to_the_millisecond();
    let filters = Filters::parse(&fields, place.own);
    let (key, problem) = named(&visit, place, now).await?;
    let is_understood = filters.is_ok();
    let opening = Opening { shell: visit.shell(), place, key: key.as_ref() }.render();
    // Many calls at once: on the heap, so that what holds the page stays small.
    let whole = Box::pin(async move {
        let (columns, zone) = (columns_of(&visit), zone_of(&visit));
        let asked = (zone.as_str(), fields.has_latency);
        let (panels, still_called) = match &filters {
            Ok(filters) => {
                let panels = Panels::load(&visit, place, filters, &columns, asked, now);
                let still_called = get_still_called(&visit, filters, key.as_ref(), now);
                let (panels, still_called) = tokio::join!(panels, still_called);
                (Some(panels), still_called)
            }
            Err(_) => (None, None),
        };
        let path = place.path();
        let seen = panels.as_ref().map_or_else(Seen::default, Panels::seen);
        let usage = UsagePage {
            here: if query.is_empty() { path } else { format!("{path}?{query}") },
            held: filters.as_ref().map_or_else(|_| String::new(), |filters| filters.query_held(now)),
            chips: filters.as_ref().map_or_else(|_| Vec::new(), Filters::chips),
            form: FilterForm::new(fields, &filters, place.own, seen, now),
            views: views::of(&visit.jar),
            shell: visit.shell(),
            edge_url: visit.app.config.edge_url.to_string(),
            rendered_ms: i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
            place,
            key,
            panels,
            query,
            columns,
            zone,
            problem,
            still_called,
        };
        usage.render()
    });
    Ok(match opening {
        Ok(opening) if is_understood => opened(opening, whole),
        _ => (StatusCode::BAD_REQUEST, page_of(whole.await)).into_response(),
    })
}

/// Sends the frame of a page at once, and its contents when they are there: the reader sees that something comes, and
/// the browser fetches styles and scripts meanwhile.
fn opened(opening: String, whole: impl Future<Output = askama::Result<String>> + Send + 'static) -> Response {
    let start = opening.find(CONTENTS).map_or(0, |at| at + CONTENTS.len());
    let first = Bytes::from(opening).slice(..start);
    let rest = async move {
        let html =
            whole.await.inspect_err(|error| tracing::error!(%error, "a page could not be rendered"))?;
        let start = html.find(CONTENTS).map_or(0, |at| at + CONTENTS.len());
        Ok(Bytes::from(html).slice(start..))
    };
    let first = future::ready(Ok::<_, askama::Error>(first));
    let body = stream::once(first).chain(stream::once(rest));
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], Body::from_stream(body)).into_response()
}

/// `GET …/latency`: the panels that read single calls, for a page that is already shown.
pub(crate) async fn slow(
    visit: Visit,
    params: RawPathParams,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let query = query.unwrap_or_default();
    let (place, filters) = asked(&visit, &params, &query)?;
    let slow = Slow::load(&visit, &filters, true, now_to_the_millisecond()).await;
    Ok(page(&SlowPanels { place, slow, query }))
}

/// The page and the filter of an address that only our own pages lead to.
fn asked(visit: &Visit, params: &RawPathParams, query: &str) -> Result<(Place, Filters), Stop> {
    let place = Place::of(params, visit)?;
    let filters = Filters::parse(&Fields::read(query), place.own).map_err(|_| visit.not_found())?;
    Ok((place, filters))
}

/// The key whose page it is, and why it is not known; a key that is not there has no page.
async fn named(
    visit: &Visit,
    place: Place,
    now: OffsetDateTime,
) -> Result<(Option<KeyView>, Option<Problem>), Stop> {
    let Some(key_id) = place.own else { return Ok((None, None)) };
    match get_key(visit, key_id).await {
        Ok(key) => Ok((KeyView::new(&key, now), None)),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unauthenticated) => {
            Err(visit.stop(Service::Keys, &status))
        }
        Err(status) => Ok((None, Some(visit.problem(Service::Keys, &status)))),
    }
}

fn columns_of(visit: &Visit) -> Vec<Column> {
    columns::from_cookie(visit.jar.get(columns::COOKIE).map_or("", |cookie| cookie.value()))
}

/// The reader's time zone, or empty; query says whether there is such a one.
fn zone_of(visit: &Visit) -> String {
    let zone = visit.jar.get(ZONE_COOKIE).map_or("", |cookie| cookie.value());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte);
    if zone.len() <= ZONE_BYTES_MAX && zone.bytes().all(is_name) { zone.to_owned() } else { String::new() }
}

/// Now, to the precision that links keep, so that a link to a later page asks for the same range.
fn now_to_the_millisecond() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.nanosecond() / 1_000_000 * 1_000_000).unwrap_or(now)
}

#[cfg(test)]
mod tests;
