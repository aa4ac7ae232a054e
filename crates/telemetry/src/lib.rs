//! Logs on stdout, metrics at `/metrics`, and spans over OTLP where the environment says to whom. Knows no part of the
//! product; what is a span is said by those who work, with `trace`.

use std::io::IsTerminal as _;

use axum::{Router, routing::get};
use opentelemetry::{global, metrics::Meter};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use prometheus::{Registry, TextEncoder, process_collector::ProcessCollector};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

mod log_line;
mod otlp;
mod statements;

use self::{log_line::Traced, otlp::Settings};

/// What is logged unless `RUST_LOG` says otherwise: of these libraries every step would be a line.
const LOGGED: &str = "info,async_nats=warn,sqlx::postgres::notice=warn";

/// What a process tells of itself, until [`Telemetry::finish`].
pub struct Telemetry {
    registry: Registry,
    metrics: Option<SdkMeterProvider>,
    traces: Option<SdkTracerProvider>,
}

/// Where instruments are made; they are named `keymeter_…` with base units and appear at `/metrics`.
#[must_use]
pub fn meter() -> Meter {
    global::meter("keymeter")
}

impl Telemetry {
    /// Starts logs, metrics and spans of `service`, `keymeter-query`. Within a runtime: spans are sent by it.
    ///
    /// # Errors
    /// If a variable `OTEL_*` has a value that cannot be used, or this was called before.
    pub fn start(service: &'static str) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "of all processes alike, by OpenTelemetry's own names")]
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let resource = settings.resource(service);
        let registry = Registry::new();
        let metrics = if settings.is_disabled { None } else { Some(metrics(&registry, resource.clone())?) };
        let traces = settings.exporter()?.map(|to| trace::start(resource, settings.sampling, to));
        let log_filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
        let logs = tracing_subscriber::fmt::layer();
        let logs = if std::io::stdout().is_terminal() {
            logs.map_event_format(Traced).with_filter(log_filter).boxed()
        } else {
            logs.json().flatten_event(true).map_event_format(Traced).with_filter(log_filter).boxed()
        };
        let statements = traces.as_ref().map(|_| statements::layer());
        tracing_subscriber::registry().with(logs).with(statements).try_init()?;
        Ok(Self { registry, metrics, traces })
    }

    /// `/metrics` in Prometheus' text format.
    pub fn router(&self) -> Router {
        let registry = self.registry.clone();
        let text = move || {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default();
            std::future::ready(([("content-type", "text/plain; version=0.0.4")], text))
        };
        Router::new().route("/metrics", get(text))
    }

    /// Sends what is left.
    pub async fn finish(self) {
        // Both block until the last export is through.
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(traces) = self.traces {
                traces.shutdown().ok();
            }
            self.metrics.map(|metrics| metrics.shutdown().ok());
        });
        ended.await.ok();
    }
}

fn metrics(registry: &Registry, resource: Resource) -> anyhow::Result<SdkMeterProvider> {
    // `process_cpu_seconds_total`, `process_resident_memory_bytes` and their like, as all exporters have them.
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let provider = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource).build();
    global::set_meter_provider(provider.clone());
    Ok(provider)
}
