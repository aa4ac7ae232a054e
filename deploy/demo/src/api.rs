//! The API behind the edge: answers what the catalogue says, after a small pause. Keeps no data and knows no keys.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    catalogue::{self, Endpoint},
    dice::Dice,
    pressure::Pressure,
    stop_signal,
};

/// Longest request body, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Settings of the demonstrated API.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// Where it listens.
    #[arg(long, env = "KEYMETER_DEMO_ADDR", default_value = "127.0.0.1:8082")]
    addr: SocketAddr,
    #[command(flatten)]
    identity: tls::Settings,
}

/// Serves until SIGTERM or SIGINT, then lets running calls end.
///
/// # Errors
/// If the address is taken.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.addr)
        .await
        .with_context(|| format!("cannot listen on {}; set --addr to a free one", config.addr))?;
    tracing::info!(addr = %config.addr, "the demonstrated API listens");
    let listener = tls::Listener::of(listener, config.identity.identity()?.as_ref())?;
    axum::serve(listener, router())
        .with_graceful_shutdown(async { stop_signal().await.unwrap_or(()) })
        .await?;
    Ok(())
}

/// Its routes: `/healthz`, and the catalogue's.
pub fn router() -> Router {
    let limits = Limits { started: Instant::now(), exports: Arc::default() };
    Router::new().route("/healthz", get(|| std::future::ready("ok\n"))).fallback(answer).with_state(limits)
}

/// How often the limited endpoints were called.
#[derive(Clone)]
struct Limits {
    started: Instant,
    exports: Arc<Mutex<Pressure>>,
}

async fn answer(State(limits): State<Limits>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let endpoint = match catalogue::find(head.method.as_str(), head.uri.path()) {
        Ok(endpoint) => endpoint,
        Err(code) => return problem(code),
    };
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else { return problem(413) };
    let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if endpoint.limited {
        let admitted =
            limits.exports.lock().unwrap_or_else(PoisonError::into_inner).admit(limits.started.elapsed());
        if let Err(wait) = admitted {
            return ([(header::RETRY_AFTER, seconds(wait))], problem(429)).into_response();
        }
    }
    let mut dice = Dice::of(path_and_query.as_bytes());
    tokio::time::sleep(Duration::from_millis(endpoint.latency_ms + dice.below(endpoint.latency_ms))).await;
    match catalogue::status(endpoint, path_and_query, &body) {
        503 => ([(header::RETRY_AFTER, "1".to_owned())], problem(503)).into_response(),
        code @ 400.. => problem(code),
        code => success(endpoint, code, head.uri.path()),
    }
}

fn success(endpoint: &Endpoint, code: u16, path: &str) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        return status.into_response();
    }
    let body = match (endpoint.method, endpoint.route.contains("{id}")) {
        ("GET", false) => json!({ "items": (1000..1010).map(item).collect::<Vec<_>>() }),
        _ => item(path.split('/').nth(3).and_then(|id| id.parse().ok()).unwrap_or(1000)),
    };
    (status, Json(body)).into_response()
}

fn item(id: u64) -> Value {
    json!({ "id": id, "total_cents": 100 * (id % 90) + 999, "currency": "EUR" })
}

fn problem(code: u16) -> Response {
    const PROBLEM_JSON: (HeaderName, &str) = (header::CONTENT_TYPE, "application/problem+json");
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({ "title": status.canonical_reason(), "status": code });
    (status, [PROBLEM_JSON], body.to_string()).into_response()
}

/// Whole seconds, rounded up, so that a caller who waits that long is admitted.
fn seconds(wait: Duration) -> String {
    wait.as_millis().div_ceil(1000).to_string()
}
