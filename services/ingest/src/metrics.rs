//! Every metric of ingest.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};
use time::OffsetDateTime;

use crate::{
    audit::{Findings, Repaired},
    batch::{Batch, Fates},
};

/// The instruments; all carry the label `shard`.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `keymeter_ingest_events_total{fate}`: where events ended, see [`Fates`].
    events: Counter<u64>,
    /// `keymeter_ingest_clock_skewed_total`: events counted under the broker's time.
    clock_skewed: Counter<u64>,
    /// `keymeter_ingest_unknown_fields_total`: rows of edges that say more than this version knows of.
    unknown_fields: Counter<u64>,
    /// `keymeter_ingest_messages_total`: messages read.
    messages: Counter<u64>,
    /// `keymeter_ingest_insert_seconds`: from a batch that is ready to ClickHouse's answer, also while it waits for others.
    insert: Histogram<f64>,
    /// `keymeter_ingest_insert_rows`: rows of a batch.
    insert_rows: Histogram<u64>,
    /// `keymeter_ingest_takeovers_total{reason}`: `start`, `nats`, `clickhouse` or `lost`.
    takeovers: Counter<u64>,
    /// `keymeter_ingest_rows_found_total`: rows that a takeover found written but not recorded.
    rows_found: Counter<u64>,
    /// `keymeter_ingest_rows_erased_total`: rows that were deleted since their workspace was erased.
    rows_erased: Counter<u64>,
    /// `keymeter_ingest_audits_total{result}`: audits that ended `clean`, with something `found`, or that `failed`.
    audits: Counter<u64>,
    /// `keymeter_ingest_audit_findings_total{kind}`: rows that were `missing` or `doubled`.
    audit_findings: Counter<u64>,
    /// `keymeter_ingest_audit_repairs_total{fate}`: of those, the missing that were `restored`, the missing that are
    /// `gone` and noted as gaps, the doubled that are `single` now, or stay since the archive has them (`archived`).
    audit_repairs: Counter<u64>,
    /// `keymeter_ingest_dead_letters_erased_total`: dead letters that were removed since they name an erased workspace.
    letters_erased: Counter<u64>,
    /// `keymeter_ingest_owned`: 1 while this process owns the shard.
    owned: Gauge<u64>,
    /// `keymeter_ingest_stream_bytes`: size of the shard's stream.
    stream_bytes: Gauge<u64>,
    /// `keymeter_ingest_stream_bytes_max`: the size above which it takes no message.
    stream_bytes_max: Gauge<u64>,
    /// `keymeter_ingest_lag_messages`: messages of the shard's stream that are not in ClickHouse yet.
    lag_messages: Gauge<u64>,
    /// `keymeter_ingest_complete_up_to_seconds`: the shard's watermark since 1970.
    complete_up_to: Gauge<f64>,
}

impl Metrics {
    /// Makes the instruments; once a process, after telemetry has started.
    #[must_use]
    pub fn new() -> Self {
        let meter = boot::meter();
        Self {
            events: meter.u64_counter("keymeter_ingest_events").build(),
            clock_skewed: meter.u64_counter("keymeter_ingest_clock_skewed").build(),
            unknown_fields: meter.u64_counter("keymeter_ingest_unknown_fields").build(),
            messages: meter.u64_counter("keymeter_ingest_messages").build(),
            insert: meter.f64_histogram("keymeter_ingest_insert").with_unit("s").build(),
            insert_rows: meter
                .u64_histogram("keymeter_ingest_insert_rows")
                .with_boundaries(vec![1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0])
                .build(),
            takeovers: meter.u64_counter("keymeter_ingest_takeovers").build(),
            rows_found: meter.u64_counter("keymeter_ingest_rows_found").build(),
            rows_erased: meter.u64_counter("keymeter_ingest_rows_erased").build(),
            audits: meter.u64_counter("keymeter_ingest_audits").build(),
            audit_findings: meter.u64_counter("keymeter_ingest_audit_findings").build(),
            audit_repairs: meter.u64_counter("keymeter_ingest_audit_repairs").build(),
            letters_erased: meter.u64_counter("keymeter_ingest_dead_letters_erased").build(),
            owned: meter.u64_gauge("keymeter_ingest_owned").build(),
            stream_bytes: meter.u64_gauge("keymeter_ingest_stream_bytes").build(),
            stream_bytes_max: meter.u64_gauge("keymeter_ingest_stream_bytes_max").build(),
            lag_messages: meter.u64_gauge("keymeter_ingest_lag_messages").build(),
            complete_up_to: meter.f64_gauge("keymeter_ingest_complete_up_to").with_unit("s").build(),
        }
    }

    /// A batch is closed.
    pub fn committed(&self, shard: u16, batch: &Batch) {
        let Fates {
            rows,
            duplicate,
            dead_lettered,
            lost,
            deferred,
            erased,
            clock_skewed,
            with_unknown_fields,
        } = batch.fates;
        let fates = [
            ("row", rows),
            ("duplicate", duplicate),
            ("dead_lettered", dead_lettered),
            ("lost", lost),
            ("deferred", deferred),
            ("erased", erased),
        ];
        for (fate, count) in fates {
            self.events.add(count, &[label(shard), KeyValue::new("fate", fate)]);
        }
        self.clock_skewed.add(clock_skewed, &[label(shard)]);
        self.unknown_fields.add(with_unknown_fields, &[label(shard)]);
        self.messages.add(batch.messages as u64, &[label(shard)]);
    }

    /// ClickHouse has answered an insert.
    pub fn inserted(&self, shard: u16, rows: u64, seconds: f64) {
        self.insert.record(seconds, &[label(shard)]);
        self.insert_rows.record(rows, &[label(shard)]);
    }

    /// A shard was taken over, with so many rows found.
    pub fn took_over(&self, shard: u16, reason: &'static str, rows_found: u64) {
        self.takeovers.add(1, &[label(shard), KeyValue::new("reason", reason)]);
        self.rows_found.add(rows_found, &[label(shard)]);
    }

    /// Rows of erased workspaces were deleted.
    pub fn erased(&self, shard: u16, rows: u64) {
        self.rows_erased.add(rows, &[label(shard)]);
    }

    /// Dead letters of erased workspaces were removed.
    pub fn letters_erased(&self, shard: u16, letters: u64) {
        self.letters_erased.add(letters, &[label(shard)]);
    }

    /// An audit ended: `clean`, `found` or `failed`.
    pub fn audited(&self, shard: u16, result: &'static str) {
        self.audits.add(1, &[label(shard), KeyValue::new("result", result)]);
    }

    /// What an audit found was repaired.
    pub fn repaired(&self, shard: u16, findings: &Findings, repaired: Repaired) {
        let of = |name, value| [label(shard), KeyValue::new(name, value)];
        self.audit_findings.add(findings.missing.len() as u64, &of("kind", "missing"));
        self.audit_findings.add(findings.doubled.len() as u64, &of("kind", "doubled"));
        self.audit_repairs.add(repaired.restored, &of("fate", "restored"));
        self.audit_repairs.add(repaired.gone, &of("fate", "gone"));
        self.audit_repairs.add(repaired.single, &of("fate", "single"));
        self.audit_repairs.add(repaired.archived, &of("fate", "archived"));
    }

    /// Whether this process owns the shard.
    pub fn owned(&self, shard: u16, is_owned: bool) {
        self.owned.record(is_owned.into(), &[label(shard)]);
    }

    /// The stream's size, the most that it may have, and how many of its messages wait.
    pub fn stream(&self, shard: u16, bytes: u64, bytes_max: u64, lag_messages: u64) {
        self.stream_bytes.record(bytes, &[label(shard)]);
        self.stream_bytes_max.record(bytes_max, &[label(shard)]);
        self.lag_messages.record(lag_messages, &[label(shard)]);
    }

    /// The watermark moved.
    pub fn complete_up_to(&self, shard: u16, at: OffsetDateTime) {
        self.complete_up_to.record(at.unix_timestamp_nanos() as f64 / 1e9, &[label(shard)]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn label(shard: u16) -> KeyValue {
    KeyValue::new("shard", i64::from(shard))
}
