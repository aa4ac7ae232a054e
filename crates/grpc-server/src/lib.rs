//! A gRPC server as all of ours are: one gate before everything, health by readiness, reflection, a drain on
//! shutdown. Knows no service.

use std::{convert::Infallible, time::Duration};

use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::server::HealthReporter;
use tower_http::trace::{DefaultOnFailure, TraceLayer};
use tracing::Level;

use access::{
    GateLayer, Verifier,
    table::{Who, who},
};
use boot::Health;
use tls::Listener;
use trace::rpc::{Named, ServerLayer};

mod measure;

use measure::MeasureLayer;

const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long running calls may still take after the signal.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Serves `routes` behind a gate that checks access tokens with `verifier`, until `shutdown`, then lets running calls end, for at most 30 s.
///
/// `service_names` are the full names that `grpc.health.v1` reports, beside the empty one.
///
/// # Errors
/// If the descriptors are damaged or the listener fails.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    verifier: Verifier,
    descriptors: &[u8],
    health: Health,
    service_names: &'static [&'static str],
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report(reporter, health, service_names));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .build_v1()?;
    let incoming = stream::unfold(listener, |mut listener| async {
        let (stream, _) = listener.accept().await;
        Some((Ok::<_, Infallible>(stream), listener))
    });
    let server = Server::builder()
        .layer(MeasureLayer::new())
        .layer(ServerLayer::new(name_of))
        .layer(TraceLayer::new_for_grpc().on_failure(DefaultOnFailure::new().level(Level::DEBUG)))
        .layer(GateLayer::new(verifier))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_routes(routes)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let served = tokio::select! {
        served = server => served.map_err(Into::into),
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN_MAX).await } => {
            tracing::warn!("calls were still running after {DRAIN_MAX:?}; they were cut off");
            Ok(())
        }
    };
    reporting.abort();
    served
}

/// The RPCs that are listed. What edges call are heartbeats and streams without an end; `grpc.…` looks at the server.
fn name_of(path: &str) -> Option<Named<'_>> {
    let name = path.trim_start_matches('/');
    match who(path) {
        Err(_) => None,
        Ok(Who::Edges) => Some(Named::WithCaller(name)),
        Ok(_) if name.starts_with("grpc.") => Some(Named::WithCaller(name)),
        Ok(_) => Some(Named::Always(name)),
    }
}

async fn report(reporter: HealthReporter, health: Health, service_names: &'static [&'static str]) {
    let mut ready = health.ready();
    loop {
        let status = if *ready.borrow_and_update() {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        for name in service_names.iter().chain(&[""]) {
            reporter.set_service_status(*name, status).await;
        }
        if ready.changed().await.is_err() {
            return;
        }
    }
}
