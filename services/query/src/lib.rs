//! Answers questions about usage over gRPC from ClickHouse: totals, breakdowns, series, the request log.
//!
//! Never writes, and never answers a caller about another workspace than its access token's.

mod bars;
mod breakdown;
mod call;
mod callers;
mod condition;
mod config;
mod counts;
mod error;
mod export;
mod filter;
mod grpc;
mod horizon;
mod key_usage;
mod latency;
mod log;
mod overview;
mod page_token;
mod plan;
mod series;
mod sql;
mod store;
mod summary;
mod tail;
mod turns;
mod windows;

use std::{sync::Mutex, time::Duration};

use access::Verifier;
use boot::{Health, Need};
use proto::usage::usage_service_server::{SERVICE_NAME, UsageServiceServer};
use tls::Listener;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};

pub use config::Config;

use crate::{grpc::Usage, store::Store};

const KEYS_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves on `listener` until `shutdown`, then lets running calls end.
///
/// Starts at once: until ClickHouse and the signing keys of the keys service are there, calls are answered with
/// `UNAVAILABLE` and `health` says what is missing.
///
/// # Errors
/// If the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let identity = config.identity.identity()?;
    let store = Store::new(&config)?;
    let verifier = Verifier::default();
    let following = tokio::spawn(access::follow(
        verifier.clone(),
        tls::channel("KEYMETER_QUERY_KEYS_URL", &config.keys_url, identity.as_ref(), |endpoint| {
            endpoint.connect_timeout(KEYS_CONNECT_TIMEOUT)
        })?,
        shutdown.clone(),
        report_to(health.need("signing keys")),
    ));
    let watching = tokio::spawn(store.clone().watch(health.need("clickhouse"), shutdown.clone()));
    let usage = Usage::new(store, config.workspace_streams_max.into());
    let routes = Routes::new(UsageServiceServer::new(usage));
    let served = grpc_server::serve(
        Listener::of(listener, identity.as_ref())?,
        routes,
        verifier,
        proto::DESCRIPTORS,
        health,
        &[SERVICE_NAME],
        shutdown,
    )
    .await;
    following.abort();
    watching.abort();
    served
}

/// Tells `need` about each fetch of the signing keys, and the log about each change.
fn report_to(need: Need) -> impl Fn(Result<(), &Status>) + Send {
    let said = Mutex::new(String::new());
    move |fetched| {
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match fetched {
            Ok(()) => {
                tracing::info!("signing keys fetched: access tokens can be checked");
                need.up();
            }
            Err(status) if *said == status.message() => {}
            Err(status) => {
                tracing::warn!(reason = status.message(), "waiting for the signing keys of the keys service");
                need.down(status.message());
                status.message().clone_into(&mut said);
            }
        }
    }
}
