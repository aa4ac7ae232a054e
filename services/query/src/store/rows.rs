//! The rows of answers, as ClickHouse sends them.

use std::net::Ipv6Addr;

use clickhouse::{Row, serde as column};
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::counts::Counts;

/// Counts over everything.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct SummaryRow {
    total_count: u64,
    completed_count: u64,
    failed_count: u64,
    rate_limited_count: u64,
}

/// Counts of one value or pair of values, or of all that are not listed.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct BreakdownRow {
    listed: u8,
    pub(crate) name: String,
    pub(crate) second_name: String,
    pub(crate) value_count: u64,
    total: u64,
    completed: u64,
    failed: u64,
    rate_limited: u64,
}

/// Counts of a bar, a method or a status code.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct OverviewRow {
    /// `bar`, `method` or `status_code`.
    pub(crate) kind: String,
    /// Of a bar.
    pub(crate) start_s: i64,
    /// Of what is no bar.
    pub(crate) name: String,
    total_count: u64,
    completed_count: u64,
    failed_count: u64,
    rate_limited_count: u64,
}

/// Usage of one key.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct KeyUsageRow {
    #[serde(with = "column::uuid")]
    pub(crate) key_id: Uuid,
    total_count: u64,
    completed_count: u64,
    failed_count: u64,
    rate_limited_count: u64,
    pub(crate) last_occurred_at_ms: i64,
    /// In any order; of those without calls there is nothing.
    pub(crate) bar_starts_s: Vec<i64>,
    pub(crate) bar_counts: Vec<u64>,
    pub(crate) bar_error_counts: Vec<u64>,
    /// Of all keys, also those beyond the limit.
    pub(crate) key_count: u64,
}

/// How long calls took.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct LatencyRow {
    pub(crate) call_count: u64,
    /// Of 50, 90, 95 and 99 in a hundred.
    pub(crate) percentiles_us: Vec<u32>,
    pub(crate) max_us: u32,
}

/// How long the calls of one value of a dimension took.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct P95Row {
    pub(crate) value: String,
    pub(crate) p95_us: u32,
}

/// Numbers of different callers.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct CallersRow {
    pub(crate) client_ip_count: u64,
    pub(crate) user_agent_count: u64,
    pub(crate) key_count: u64,
}

/// Calls of one quarter of an hour.
#[derive(Debug, Clone, Copy, Row, Deserialize)]
pub(crate) struct QuarterRow {
    /// Seconds since 1970.
    pub(crate) start_s: i64,
    pub(crate) call_count: u64,
}

/// A call's place in a file.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct PlaceRow {
    #[serde(with = "column::uuid")]
    pub(crate) key_id: Uuid,
    pub(crate) occurred_at_ms: i64,
    #[serde(with = "column::uuid")]
    pub(crate) request_id: Uuid,
}

/// What was written of one shard.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct TailEndRow {
    pub(crate) shard: u16,
    /// When the last call was.
    pub(crate) written_ms: i64,
    pub(crate) call_count: u64,
}

/// How long a workspace keeps its rows.
#[derive(Debug, Clone, Row, Deserialize)]
pub(crate) struct RetentionRow {
    #[serde(with = "column::uuid")]
    pub(crate) workspace_id: Uuid,
    pub(crate) days: u16,
    pub(crate) chosen_at_ms: i64,
}

#[derive(Debug, Row, Deserialize)]
pub(super) struct ArchiveRow {
    pub(super) closed_day: i64,
}

#[derive(Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub(super) struct GapsVersionRow {
    gap_count: u64,
    noted_at_ms: i64,
}

#[derive(Debug, Row, Deserialize)]
pub(super) struct ProbeRow {
    #[serde(rename = "tables")]
    _tables: u64,
}

/// Calls of one edge in about an hour that are known to be missing.
#[derive(Debug, Clone, Row, Deserialize)]
pub(crate) struct GapRow {
    #[serde(with = "column::uuid")]
    pub(crate) workspace_id: Uuid,
    pub(crate) edge_id: String,
    pub(crate) reason_name: String,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) call_count: u64,
}

/// Counts of one bar.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct BarRow {
    /// Seconds since 1970.
    pub(crate) start_s: i64,
    total_count: u64,
    completed_count: u64,
    failed_count: u64,
    rate_limited_count: u64,
}

/// One call of the log.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct CallRow {
    #[serde(with = "column::uuid")]
    pub(crate) key_id: Uuid,
    #[serde(with = "column::uuid")]
    pub(crate) secret_id: Uuid,
    #[serde(with = "column::uuid")]
    pub(crate) request_id: Uuid,
    pub(crate) client_request_id: String,
    #[serde(with = "column::time::datetime64::millis")]
    pub(crate) occurred_at: OffsetDateTime,
    #[serde(with = "column::time::datetime64::millis")]
    pub(crate) ingested_at: OffsetDateTime,
    pub(crate) clock_skewed: bool,
    pub(crate) interrupted: bool,
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) path: String,
    pub(crate) resource_id: String,
    pub(crate) status_code: u16,
    pub(crate) outcome_name: String,
    pub(crate) origin_name: String,
    pub(crate) denial: String,
    pub(crate) limit_name: String,
    pub(crate) latency_us: u32,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) client_ip: Ipv6Addr,
    pub(crate) user_agent: String,
    pub(crate) region: String,
    pub(crate) trace_id: [u8; 16],
    pub(crate) edge_id: String,
    pub(crate) limit_window_s: u32,
    pub(crate) limit_remaining: u64,
    pub(crate) shard: u16,
}

impl CallRow {
    /// Where it is in the log. ClickHouse orders UUIDs by their second half.
    pub(crate) fn place(&self) -> (OffsetDateTime, u64, u64) {
        let (first_half, second_half) = self.request_id.as_u64_pair();
        (self.occurred_at, second_half, first_half)
    }
}

/// How far one shard is complete.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct WatermarkRow {
    /// Milliseconds since 1970; 0 until something is known.
    pub(crate) complete_up_to_ms: i64,
    /// Silent edges, and in the same order since when, in milliseconds since 1970.
    pub(crate) edge_ids: Vec<String>,
    pub(crate) since_ms: Vec<i64>,
}

impl BreakdownRow {
    /// False for the one row with all other values.
    pub(crate) const fn is_listed(&self) -> bool {
        self.listed == 1
    }

    pub(crate) const fn counts(&self) -> Counts {
        Counts {
            total: self.total,
            completed: self.completed,
            failed: self.failed,
            rate_limited: self.rate_limited,
        }
    }
}

/// Rows with a column for each count.
macro_rules! counted {
    ($($row:ident),*) => {$(
        impl $row {
            pub(crate) const fn counts(&self) -> Counts {
                Counts {
                    total: self.total_count,
                    completed: self.completed_count,
                    failed: self.failed_count,
                    rate_limited: self.rate_limited_count,
                }
            }
        }
    )*};
}

counted!(SummaryRow, BarRow, OverviewRow, KeyUsageRow);
