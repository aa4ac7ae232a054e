//! Reads ClickHouse; the only file that names its driver. Each query has a deadline, a memory limit and a turn,
//! may not write, and ends with the call that asked for it.

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use boot::Need;
use clickhouse::{Client, Row, RowOwned, RowRead, error::Error, serde as column};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::Config,
    counts::Counts,
    error::StoreError,
    sql::{self, Statement, Value},
};

/// Longest wait for a turn while other queries run.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Time between two looks whether ClickHouse is there, and for each of them.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// ClickHouse. Clones share connections and turns.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    turns: Arc<Semaphore>,
}

/// Counts over everything.
#[derive(Debug, Row, Deserialize)]
struct SummaryRow {
    total_count: u64,
    completed_count: u64,
    failed_count: u64,
    rate_limited_count: u64,
}

/// Counts of one value, or of all that are not listed.
#[derive(Debug, Row, Deserialize)]
pub(crate) struct BreakdownRow {
    listed: u8,
    pub(crate) name: String,
    pub(crate) value_count: u64,
    total: u64,
    completed: u64,
    failed: u64,
    rate_limited: u64,
}

/// Calls of one edge in about an hour that are known to be missing.
#[derive(Debug, Clone, Row, Deserialize)]
pub(crate) struct GapRow {
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

#[derive(Debug, Row, Deserialize)]
struct ProbeRow {
    #[serde(rename = "tables")]
    _tables: u64,
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

impl BarRow {
    pub(crate) const fn counts(&self) -> Counts {
        Counts {
            total: self.total_count,
            completed: self.completed_count,
            failed: self.failed_count,
            rate_limited: self.rate_limited_count,
        }
    }
}

impl Store {
    /// Connects at the first query.
    pub(crate) fn new(config: &Config) -> Self {
        let mut client = Client::default()
            .with_url(config.clickhouse_url.to_string())
            .with_product_info("keymeter-query", env!("CARGO_PKG_VERSION"))
            // 2: reads only, but settings may come with the query.
            .with_setting("readonly", "2")
            // A dropped connection ends its query; ClickHouse does so for reads only.
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            .with_setting("max_memory_usage", config.query_bytes_max.to_string());
        if let Some(user) = &config.clickhouse_user {
            client = client.with_user(user);
        }
        if let Some(password) = &config.clickhouse_password {
            client = client.with_password(password.expose_secret());
        }
        Self { client, turns: Arc::new(Semaphore::new(config.queries_max.into())) }
    }

    /// Counts over everything.
    pub(crate) async fn summary(
        &self,
        statement: Statement,
        deadline: Instant,
    ) -> Result<Counts, StoreError> {
        let rows = self.rows::<SummaryRow>(statement, deadline).await?;
        Ok(rows.first().map_or_else(Counts::default, |row| Counts {
            total: row.total_count,
            completed: row.completed_count,
            failed: row.failed_count,
            rate_limited: row.rate_limited_count,
        }))
    }

    /// Listed values in order, then the rest if there is one.
    pub(crate) async fn breakdown(
        &self,
        statement: Statement,
        deadline: Instant,
    ) -> Result<Vec<BreakdownRow>, StoreError> {
        self.rows(statement, deadline).await
    }

    /// Bars with calls, in order.
    pub(crate) async fn bars(
        &self,
        statement: Statement,
        deadline: Instant,
    ) -> Result<Vec<BarRow>, StoreError> {
        self.rows(statement, deadline).await
    }

    /// Calls of the log.
    pub(crate) async fn calls(
        &self,
        statement: Statement,
        deadline: Instant,
    ) -> Result<Vec<CallRow>, StoreError> {
        self.rows(statement, deadline).await
    }

    /// How far each shard is complete.
    pub(crate) async fn watermarks(&self, deadline: Instant) -> Result<Vec<WatermarkRow>, StoreError> {
        self.rows(sql::watermarks(), deadline).await
    }

    /// Calls that are known to be missing.
    pub(crate) async fn gaps(
        &self,
        statement: Statement,
        deadline: Instant,
    ) -> Result<Vec<GapRow>, StoreError> {
        self.rows(statement, deadline).await
    }

    /// Keeps `need` up to date, until `shutdown`; the log has a line for each change.
    pub(crate) async fn watch(self, need: Need, shutdown: CancellationToken) {
        let mut known = None;
        loop {
            let state = match timeout(PROBE_TIMEOUT, self.probe()).await {
                Ok(probed) => probed.map_err(|error| error.to_string()),
                Err(_) => Err(format!("ClickHouse has not answered within {PROBE_TIMEOUT:?}")),
            };
            match &state {
                _ if known.as_ref() == Some(&state) => {}
                Ok(()) => {
                    tracing::info!("ClickHouse and its tables are there");
                    need.up();
                }
                Err(reason) => {
                    tracing::warn!(reason, "waiting for ClickHouse and its tables");
                    need.down(reason);
                }
            }
            known = Some(state);
            tokio::select! {
                () = sleep(PROBE_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Takes no turn: a crowd is no outage.
    async fn probe(&self) -> Result<(), StoreError> {
        let probed = self.query(sql::probe()).fetch_all::<ProbeRow>().await;
        probed.map(|_| ()).map_err(|error| sort(&error))
    }

    async fn rows<T>(&self, statement: Statement, deadline: Instant) -> Result<Vec<T>, StoreError>
    where
        T: RowOwned + RowRead,
    {
        let wait_until = deadline.min(Instant::now() + TURN_WAIT_MAX);
        let turn = timeout_at(wait_until, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| StoreError::Busy)?.expect("the semaphore is never closed");
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StoreError::TimedOut);
        }
        let query = self
            .query(statement)
            .with_setting("query_id", format!("keymeter-query-{}", Uuid::now_v7()))
            // 0 would be no limit.
            .with_setting("max_execution_time", format!("{:.3}", left.as_secs_f64().max(0.001)));
        match timeout_at(deadline, query.fetch_all::<T>()).await {
            Ok(rows) => rows.map_err(|error| sort(&error)),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    fn query(&self, statement: Statement) -> clickhouse::query::Query {
        let query = self.client.query_raw(&statement.text);
        statement.params.into_iter().fold(query, |query, (name, value)| match value {
            Value::Int(value) => query.param(&name, value),
            Value::Uuid(value) => query.param(&name, value),
            Value::Uuids(values) => query.param(&name, values),
            Value::Codes(values) => query.param(&name, values),
            Value::Texts(values) => query.param(&name, values),
        })
    }
}

/// The time of milliseconds since 1970; `None` if it is out of the years -9999 to 9999.
pub(crate) fn time_of_ms(ms: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

fn sort(error: &Error) -> StoreError {
    match error {
        Error::BadResponse(message) => StoreError::of_exception(message),
        Error::Network(_) | Error::TimedOut => StoreError::Away(chain(error)),
        _ => StoreError::Failed(chain(error)),
    }
}

/// An error and its causes; the driver's own text leaves them out.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
