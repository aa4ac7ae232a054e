//! Which address leads to which page, and what every answer has in common.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{self, Next},
    response::{IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use boot::Health;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    csrf::{CsrfLayer, ProtectionError},
};
use tracing::Instrument as _;

use crate::{
    App, assets, headers, metrics,
    pages::{columns, keys, sign_in, usage},
    problem::Problem,
    visit::{HOME, Reference, Visit},
};

/// Longest form, in bytes.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// All pages, `/healthz` and `/readyz`.
///
/// # Errors
/// If the public address is no origin.
pub fn router(app: Arc<App>, health: &Health) -> anyhow::Result<Router> {
    let https = app.config.public_url.is_https();
    let csrf = CsrfLayer::new()
        .add_trusted_origin(app.config.public_url.origin())?
        .with_rejection_response(|_: ProtectionError| Problem::foreign().into_response_as(false, None));
    let pages = Router::new()
        .route("/", get(|| std::future::ready(Redirect::to(HOME))))
        .route("/sign-in", get(sign_in::form).post(sign_in::submit))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/new", get(keys::new))
        .route("/keys/{key_id}/delete", get(keys::confirm_delete).post(keys::delete))
        .route("/keys/{key_id}/reveal", post(keys::reveal))
        .route("/keys/{key_id}/usage", get(usage::show))
        .route("/columns", post(columns::choose))
        .fallback(nothing_here)
        .with_state(app)
        .route("/assets/{hash}/{name}", get(assets::serve))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(csrf)
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(move |request, next| headers::protect(https, request, next)))
        .layer(middleware::from_fn(observe));
    Ok(pages.merge(health.router()))
}

async fn nothing_here(visit: Visit) -> Response {
    visit.not_found().into_response()
}

/// Names, counts and logs one request.
async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let reference = Reference::mint();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", http.request.method = %request.method(), http.route = route, request.reference = %reference);
    request.extensions_mut().insert(reference);
    let response = next.run(request).instrument(span.clone()).await;
    let took = started.elapsed();
    metrics::request(&route, response.status().as_u16(), took);
    span.in_scope(|| {
        tracing::debug!(http.response.status_code = response.status().as_u16(), ?took, "answered");
    });
    response
}
