//! Every metric of the service.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, UpDownCounter},
};
use tonic::Code;

/// Upper bounds of the duration's buckets, in seconds.
const BOUNDARIES_S: [f64; 12] = [0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0, 30.0];

/// The instruments.
pub(crate) struct Metrics {
    /// `keymeter_query_call_duration_seconds{rpc, code}`: answered calls and how long each took.
    call_duration: Histogram<f64>,
    /// `keymeter_query_running_calls`: calls that are being answered.
    running_calls: UpDownCounter<i64>,
}

/// A call that is being answered, until it is dropped.
pub(crate) struct Running<'m>(&'m Metrics);

impl Metrics {
    pub(crate) fn new() -> Self {
        let call_duration = boot::meter()
            .f64_histogram("keymeter_query_call_duration")
            .with_description("Time from a call's arrival to its answer.")
            .with_unit("s")
            .with_boundaries(BOUNDARIES_S.to_vec())
            .build();
        let running_calls = boot::meter()
            .i64_up_down_counter("keymeter_query_running_calls")
            .with_description("Calls that are being answered.")
            .build();
        Self { call_duration, running_calls }
    }

    /// A call has come; it may also end by being cancelled.
    pub(crate) fn running(&self) -> Running<'_> {
        self.running_calls.add(1, &[]);
        Running(self)
    }

    /// A call was answered.
    pub(crate) fn answered(&self, rpc: &'static str, code: Code, took: Duration) {
        let attributes = [KeyValue::new("rpc", rpc), KeyValue::new("code", format!("{code:?}"))];
        self.call_duration.record(took.as_secs_f64(), &attributes);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running_calls.add(-1, &[]);
    }
}
