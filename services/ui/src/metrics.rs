//! Every metric of the ui.

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

/// Seconds from a request to its answer's head, by `route` (template) and `status_code`.
static REQUEST_SECONDS: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    boot::meter()
        .f64_histogram("keymeter_ui_request_duration")
        .with_unit("s")
        .with_description("Time from a request to the head of its answer.")
        .with_boundaries(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
        .build()
});

/// Failed calls to other services, by `service` and gRPC `code`.
static CALL_FAILURES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    boot::meter()
        .u64_counter("keymeter_ui_call_failures")
        .with_description("Calls to keys or query that failed.")
        .build()
});

/// A request was answered.
pub(crate) fn request(route: &str, status_code: u16, took: Duration) {
    let labels =
        [KeyValue::new("route", route.to_owned()), KeyValue::new("status_code", i64::from(status_code))];
    REQUEST_SECONDS.record(took.as_secs_f64(), &labels);
}

/// A call to `service` failed.
pub(crate) fn call_failed(service: &'static str, code: tonic::Code) {
    CALL_FAILURES.add(1, &[KeyValue::new("service", service), KeyValue::new("code", format!("{code:?}"))]);
}
