//! Logs on stdout, metrics at `/metrics`, traces over OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::io::IsTerminal as _;

use axum::{Router, routing::get};
use opentelemetry::{global, metrics::Meter, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use prometheus::{Registry, TextEncoder};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What is logged unless `RUST_LOG` says otherwise: of these libraries every step would be a line.
const LOGGED: &str = "info,async_nats=warn,sqlx::postgres::notice=warn";
/// Spans of these would trace the exporter's own calls.
const NOT_TRACED: &str = "info,h2=off,hyper=off,tonic=off,tower=off";

pub(crate) struct Telemetry {
    registry: Registry,
    metrics: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
}

/// Where instruments are made; they are named `keymeter_…` with base units and appear at `/metrics`.
#[must_use]
pub fn meter() -> Meter {
    global::meter("keymeter")
}

impl Telemetry {
    pub(crate) fn start(service: &'static str) -> anyhow::Result<Self> {
        let resource = Resource::builder().with_service_name(service).build();
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let metrics =
            SdkMeterProvider::builder().with_reader(exporter).with_resource(resource.clone()).build();
        global::set_meter_provider(metrics.clone());
        let traces = traces(resource)?;
        let log_filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
        let logs = if std::io::stdout().is_terminal() {
            tracing_subscriber::fmt::layer().with_filter(log_filter).boxed()
        } else {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_filter(log_filter).boxed()
        };
        let spans = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(service))
                .with_filter(EnvFilter::new(NOT_TRACED))
        });
        tracing_subscriber::registry().with(logs).with(spans).try_init()?;
        Ok(Self { registry, metrics, traces })
    }

    /// `/metrics` in Prometheus' text format.
    pub(crate) fn router(&self) -> Router {
        let registry = self.registry.clone();
        let text = move || {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default();
            std::future::ready(([("content-type", "text/plain; version=0.0.4")], text))
        };
        Router::new().route("/metrics", get(text))
    }

    pub(crate) async fn finish(self) {
        // Both block until the last export is through.
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(traces) = self.traces {
                traces.shutdown().ok();
            }
            self.metrics.shutdown().ok();
        });
        ended.await.ok();
    }
}

fn traces(resource: Resource) -> anyhow::Result<Option<SdkTracerProvider>> {
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
        return Ok(None);
    }
    global::set_text_map_propagator(opentelemetry_sdk::propagation::TraceContextPropagator::new());
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
}
