//! Reports of leaked secrets over HTTP, in the form of GitHub secret scanning: the request is signed by a key from
//! a file, the answer says which tokens were ours. Never answers about a token whose reporter is not proven.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Json, Response},
    routing::post,
};
use domain::{Secret, SecretHash};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    caller::Caller,
    error::Error,
    fields::to_micros,
    lifecycle::{Exposure, Keys},
    metrics::{Change, Metrics},
};

mod signature;

pub use signature::Reporters;

/// Longest report taken.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest time for one report; the reporter waits 30 s.
const REPORT_TIMEOUT: Duration = Duration::from_secs(25);
/// What is kept of a place's kind and of its URL.
const SOURCE_CHARS_MAX: usize = 64;
const URL_CHARS_MAX: usize = 2_048;
/// Who changes keys by this way, in events.
const ACTOR: &str = "leak_report";

/// What takes reports.
#[derive(Clone)]
struct Desk {
    keys: Keys,
    reporters: std::sync::Arc<Reporters>,
    metrics: Metrics,
}

/// One token that was found somewhere.
#[derive(Deserialize)]
struct Report {
    token: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    source: Option<String>,
}

/// What it was.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    token_hash: String,
    token_type: String,
    label: &'static str,
}

/// Takes reports on `address` at `/leak-reports` until `shutdown`.
///
/// # Errors
/// If the address is taken.
pub async fn serve(
    address: SocketAddr,
    reporters: Reporters,
    keys: Keys,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("leak reports address {address} can not be used; choose another one"))?;
    let desk = Desk { keys, reporters: reporters.into(), metrics };
    let app = Router::new()
        .route("/leak-reports", post(take))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk);
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

async fn take(
    State(desk): State<Desk>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge,
        _ => Problem::Unreadable,
    })?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (identifier, signature) =
        (header("github-public-key-identifier"), header("github-public-key-signature"));
    if !desk.reporters.signed(identifier, signature, &body) {
        tracing::warn!("a leak report without a good signature was refused");
        return Err(Problem::Unsigned);
    }
    let reports: Vec<Report> = serde_json::from_slice(&body).map_err(|_| Problem::Unreadable)?;
    let findings = tokio::time::timeout(REPORT_TIMEOUT, desk.look_into(reports));
    match findings.await {
        Ok(Ok(findings)) => Ok(Json(findings).into_response()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a leak report has to come again");
            Err(Problem::Away)
        }
        Err(_) => Err(Problem::Away),
    }
}

impl Desk {
    /// One report after the other; what was marked before an error stays, and is only found again.
    async fn look_into(&self, reports: Vec<Report>) -> Result<Vec<Finding>, Error> {
        let caller = Caller { actor: ACTOR.to_owned(), address: None };
        let mut findings = Vec::with_capacity(reports.len());
        for Report { token, kind, url, source } in reports {
            let exposure = match Secret::parse(&token) {
                Err(_) => Exposure::Unknown,
                Ok(secret) => {
                    let source = short(&source.unwrap_or_default(), SOURCE_CHARS_MAX);
                    let url = short(&url.unwrap_or_default(), URL_CHARS_MAX);
                    let now = to_micros(OffsetDateTime::now_utc());
                    self.keys.expose(&secret, source, url, &caller, now).await?
                }
            };
            if let Exposure::Marked = exposure {
                self.metrics.changed(Change::Exposed);
            }
            let label = if exposure == Exposure::Unknown { "false_positive" } else { "true_positive" };
            findings.push(Finding {
                token_hash: SecretHash::of(&token).to_string(),
                token_type: kind,
                label,
            });
        }
        Ok(findings)
    }
}

/// What fits of a text that somebody else wrote: a report is never refused for it.
fn short(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

/// Why a report was not taken.
#[derive(Debug, Clone, Copy)]
enum Problem {
    Unsigned,
    TooLarge,
    Unreadable,
    Away,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, slug, detail) = match self {
            Self::Unsigned => (
                StatusCode::UNAUTHORIZED,
                "not_signed",
                "Github-Public-Key-Identifier must name a configured public key, and \
                 Github-Public-Key-Signature must be its ECDSA signature of the body, in base64",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "the body must have at most 1 MiB; send it in parts",
            ),
            Self::Unreadable => (
                StatusCode::BAD_REQUEST,
                "unreadable",
                r#"the body must be a JSON array of {"token", "type", "url", "source"}"#,
            ),
            Self::Away => (
                StatusCode::SERVICE_UNAVAILABLE,
                "away",
                "the report could not be looked into in time; send it again",
            ),
        };
        let body = serde_json::json!({
            "type": format!("urn:keymeter:problem:{slug}"),
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": detail,
        });
        (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_cut_and_kept_on_one_line() {
        assert_eq!(short("a\nb\0c", 64), "abc");
        assert_eq!(short(&"é".repeat(70), 64), "é".repeat(64));
    }
}
