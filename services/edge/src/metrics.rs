//! Every metric of the proxy. Labels are bounded by the settings: the addresses of the API.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

/// The instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Calls that were sent a second time, by why.
    retries: Counter<u64>,
    /// Failed connections to the API, by address.
    connect_failures: Counter<u64>,
}

impl Metrics {
    /// Makes all instruments.
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            retries: meter
                .u64_counter("keymeter_edge_upstream_retries")
                .with_description("Calls sent to the API a second time, since their connection was closed before any answer.")
                .build(),
            connect_failures: meter
                .u64_counter("keymeter_edge_upstream_connect_failures")
                .with_description("Connections to the API that failed, by address.")
                .build(),
        }
    }

    /// A call is sent again.
    pub(crate) fn retried(&self) {
        self.retries.add(1, &[]);
    }

    /// A connection failed.
    pub(crate) fn connect_failed(&self, upstream: &str) {
        self.connect_failures.add(1, &[KeyValue::new("upstream", upstream.to_owned())]);
    }
}
