//! Which address leads to which page, and what every answer has in common.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
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
use trace::{
    InSpan, KeyValue, Span, SpanBuilder, SpanKind,
    attribute::{HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE},
};
use tracing::Instrument as _;

use crate::{
    App, assets, headers, metrics,
    pages::{
        audit, columns, invitations, keys, members, provider, service_tokens, settings, sign_in, theme,
        usage, views, workspace_end, workspaces,
    },
    problem::Problem,
    theme as chosen_theme,
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
        .route("/sign-in/oidc", get(provider::start))
        .route("/sign-in/oidc/callback", get(provider::callback))
        .route("/sign-out", post(sign_in::sign_out))
        .merge(key_pages())
        .merge(usage_at("/overview"))
        .merge(usage_at("/keys/{key_id}/usage"))
        .route("/exports/{name}", get(usage::export::progress))
        .route("/columns", post(columns::choose))
        .route("/views", post(views::change))
        .merge(team())
        .fallback(nothing_here)
        .with_state(app)
        .route("/assets/{hash}/{name}", get(assets::serve))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(csrf)
        .layer(middleware::from_fn(chosen_theme::apply))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(move |request, next| headers::protect(https, request, next)))
        .layer(middleware::from_fn(observe));
    Ok(pages.merge(health.router()))
}

/// The pages about the workspace and its people.
fn team() -> Router<Arc<App>> {
    Router::new()
        .route("/theme", post(theme::choose))
        .route("/workspace", post(workspaces::switch))
        .route("/workspaces", post(workspaces::create))
        .route("/workspaces/new", get(workspaces::new))
        .route("/invitations/{token}", get(invitations::open).post(invitations::accept))
        .route("/members", get(members::list))
        .route("/members/invite", get(invitations::new).post(invitations::create))
        .route("/members/invitations/{invitation_id}/withdraw", post(invitations::withdraw))
        .route("/members/{account_id}", get(members::role).post(members::change_role))
        .route("/members/{account_id}/remove", get(members::confirm_remove).post(members::remove))
        .route("/audit", get(audit::list))
        .route("/audit/export", get(audit::export))
        .route("/settings", get(settings::show).post(settings::save))
        .route("/settings/service-tokens", get(service_tokens::list).post(service_tokens::create))
        .route("/settings/service-tokens/new", get(service_tokens::new))
        .route(
            "/settings/service-tokens/{service_token_id}/revoke",
            get(service_tokens::confirm_revoke).post(service_tokens::revoke),
        )
        .route("/settings/suspend", get(workspace_end::confirm_suspend).post(workspace_end::suspend))
        .route("/settings/export", post(workspace_end::export))
        .route("/settings/delete", get(workspace_end::confirm_delete).post(workspace_end::delete))
}

/// The usage page at `path`, and what belongs to it.
fn usage_at(path: &str) -> Router<Arc<App>> {
    Router::new()
        .route(path, get(usage::show))
        .route(&format!("{path}/latency"), get(usage::slow))
        .route(&format!("{path}/requests/{{request_id}}"), get(usage::request::show))
        .route(&format!("{path}/tail"), get(usage::tail::follow))
        .route(&format!("{path}/export"), get(usage::export::file))
}

/// The list of keys, and what can be done with one.
fn key_pages() -> Router<Arc<App>> {
    use keys::{create, delete, edit, list, reveal, rotate, secrets, switch};
    Router::new()
        .route("/keys", get(list::show).post(create::submit))
        .route("/keys/new", get(create::form))
        .route("/keys/{key_id}/edit", get(edit::form).post(edit::submit))
        .route("/keys/{key_id}/rotate", get(rotate::form).post(rotate::submit))
        .route("/keys/{key_id}/disable", get(switch::confirm_disable).post(switch::disable))
        .route("/keys/{key_id}/enable", get(switch::confirm_enable).post(switch::enable))
        .route("/keys/{key_id}/delete", get(delete::confirm).post(delete::submit))
        .route("/keys/{key_id}/reveal", post(reveal::reveal))
        .route("/keys/{key_id}/secrets", get(secrets::show))
        .route(
            "/keys/{key_id}/secrets/{secret_id}/retire",
            get(secrets::confirm_retire).post(secrets::retire),
        )
}

async fn nothing_here(visit: Visit) -> Response {
    visit.not_found().into_response()
}

/// Names, counts and logs one request.
async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let reference = Reference::mint();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let traced = Span::begin(trace::extract(request.headers()), || {
        let (method, named) = trace::method(request.method());
        SpanBuilder::from_name(format!("{named} {route}")).with_kind(SpanKind::Server).with_attributes([
            KeyValue::new(HTTP_REQUEST_METHOD, method),
            KeyValue::new(HTTP_ROUTE, route.clone()),
            KeyValue::new("keymeter.request.reference", reference.as_str().to_owned()),
        ])
    });
    let span = tracing::info_span!("request", http.request.method = %request.method(), http.route = route, request.reference = %reference);
    request.extensions_mut().insert(reference);
    let answer = async {
        let response = next.run(request).await;
        tracing::debug!(http.response.status_code = response.status().as_u16(), took = ?started.elapsed(), "answered");
        response
    };
    let response = trace::within(traced.as_ref(), answer.instrument(span)).await;
    let status = response.status();
    metrics::request(&route, status.as_u16(), started.elapsed());
    let Some(traced) = traced else { return response };
    traced.set(HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
    if status.is_server_error() {
        traced.failed(status.as_str().to_owned());
    }
    // Most of a page is asked for once its beginning is out.
    response.map(|body| Body::new(InSpan::new(body, traced)))
}
