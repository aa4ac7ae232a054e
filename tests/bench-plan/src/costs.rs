//! What a call costs, as it was measured; beside each the command that measures it. CPU in microseconds of one core of the
//! machine of docs/scaling.md: another machine wants its own figures here.

/// Of the edge, for each call: what nginx takes as a plain proxy (25 µs), by `ratio_to_nginx` of `tests/bench edge` (0.88).
pub(crate) const EDGE_US: f64 = 29.0;
/// Of ingest, for each event: `tests/bench ingest`, `ingest_cpu_s_per_million`.
pub(crate) const INGEST_US: f64 = 1.3;
/// Of each of three servers of NATS for each event that all three store, 500 a message; of one alone
/// `tests/bench ingest` says it, `nats_cpu_s_per_million`.
pub(crate) const NATS_US: f64 = 0.6;
/// Of ClickHouse for each insert, however small.
pub(crate) const INSERT_US: f64 = 15_000.0;
/// Of ClickHouse for each row that is inserted, and for each time that its part is merged.
pub(crate) const ROW_US: f64 = 1.0;
pub(crate) const MERGE_US: f64 = 2.3;
/// How many parts become one: the base of merges in the table's settings.
pub(crate) const MERGE_BASE: f64 = 10.0;
/// Rows of a part that is merged no more, 150 GB at [`ROW_BYTES`].
pub(crate) const PART_ROWS_MAX: f64 = 3e9;
/// On ClickHouse's disk for each row, projections included: `tests/bench ingest`, `bytes_per_event`.
pub(crate) const ROW_BYTES: f64 = 49.0;
/// In a message for each event, and so in a stream.
pub(crate) const EVENT_BYTES: f64 = 173.0;
/// In an edge's spool for each call, both of its records.
pub(crate) const SPOOL_BYTES: f64 = 240.0;
/// Servers that hold each stream.
pub(crate) const REPLICAS: f64 = 3.0;
