//! Reads ClickHouse; the only module that names its driver. Each query has a deadline, a memory and a row limit and a
//! turn, may not write, and ends with the call that asked for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use boot::Need;
use bytes::Bytes;
use clickhouse::{
    Client, RowOwned, RowRead,
    error::Error,
    query::{BytesCursor, Query},
};
use domain::WorkspaceId;
use secrecy::ExposeSecret as _;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use trace::{Span, TRACEPARENT, Traceparent};
use uuid::Uuid;

use crate::{
    call::Cost,
    config::Config,
    error::StoreError,
    horizon::Horizon,
    sql::{self, Statement, Value},
    turns::{Turn, Turns},
};

mod rows;
mod span;

use span::Server;

use rows::{ArchiveRow, GapsVersionRow, ProbeRow};
pub(crate) use rows::{
    BarRow, BreakdownRow, CallRow, CallersRow, GapRow, KeyUsageRow, LatencyRow, OverviewRow, P95Row,
    PlaceRow, QuarterRow, RetentionRow, SummaryRow, TailEndRow, WatermarkRow,
};

/// Longest wait for a turn while other queries run.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Time between two readings of the small tables, and the longest for one.
const HORIZON_EVERY: Duration = Duration::from_secs(1);
const HORIZON_TIMEOUT: Duration = Duration::from_secs(5);
/// A reading this old is not used any more.
const HORIZON_AGE_MAX: Duration = Duration::from_secs(3);

/// Rows of an answer.
pub(crate) trait Answer: RowOwned + RowRead + Send {}

impl<T: RowOwned + RowRead + Send> Answer for T {}

/// ClickHouse. Clones share connections, turns and the last reading of the small tables.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    server: Server,
    turns: Turns,
    last: Arc<Mutex<Option<Reading>>>,
}

#[derive(Clone)]
struct Reading {
    horizon: Arc<Horizon>,
    at: Instant,
}

/// A file on its way. Ends its query when it is dropped.
pub(crate) struct File {
    cursor: BytesCursor,
    deadline: Instant,
    _turn: Turn,
    /// Ends with the file.
    span: Option<Span>,
}

impl Store {
    /// Connects at the first query.
    ///
    /// # Errors
    /// If the identity cannot be used, or the address is plain although there is one.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let url = config.clickhouse_url.to_string();
        let client = match config.identity.identity()? {
            Some(identity) => {
                Client::with_http_client(identity.http_client("KEYMETER_QUERY_CLICKHOUSE_URL", &url)?)
            }
            None => Client::default(),
        };
        let mut client = client
            .with_url(url)
            .with_product_info("keymeter-query", env!("CARGO_PKG_VERSION"))
            // 2: reads only, but settings may come with the query.
            .with_setting("readonly", "2")
            // A dropped connection ends its query; ClickHouse does so for reads only.
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            // Most questions read a little of many columns in many parts, each of which has a buffer.
            .with_setting("max_read_buffer_size_local_fs", "16384")
            .with_setting("max_rows_to_read", config.query_rows_max.to_string())
            .with_setting("max_memory_usage", config.query_bytes_max.to_string());
        if let Some(user) = &config.clickhouse_user {
            client = client.with_user(user);
        }
        if let Some(password) = &config.clickhouse_password {
            client = client.with_password(password.expose_secret());
        }
        let turns = Turns::new(config.queries_max.into(), config.workspace_queries_max.into());
        Ok(Self { client, server: (&config.clickhouse_url).into(), turns, last: Arc::default() })
    }

    /// The rows of an answer, in the workspace's turn; what they cost is added to `cost`.
    pub(crate) async fn rows<T: Answer>(
        &self,
        workspace_id: WorkspaceId,
        statement: Statement,
        deadline: Instant,
        cost: &Cost,
    ) -> Result<Vec<T>, StoreError> {
        let _turn = self.turn(workspace_id, deadline).await?;
        self.read(statement, deadline, cost).await
    }

    /// The rows of an answer as a file.
    pub(crate) async fn file(
        &self,
        workspace_id: WorkspaceId,
        statement: Statement,
        format: &str,
        deadline: Instant,
    ) -> Result<File, StoreError> {
        let turn = self.turn(workspace_id, deadline).await?;
        let span = self.server.asked(statement.name);
        let query = self
            .limited(statement, deadline, span.as_ref())?
            // A column of a file may have the name of what it is made of.
            .with_setting("prefer_column_name_to_alias", "1")
            .with_setting("output_format_json_quote_64bit_integers", "0")
            .with_setting("output_format_parquet_string_as_string", "1")
            .with_setting("output_format_arrow_string_as_string", "1");
        let cursor = query.fetch_bytes(format).map_err(|error| sort(&error))?;
        Ok(File { cursor, deadline, _turn: turn, span })
    }

    /// The last reading of the small tables; a new one if that is old.
    pub(crate) async fn horizon(&self, deadline: Instant) -> Result<Arc<Horizon>, StoreError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match last {
            Some(reading) if reading.at.elapsed() <= HORIZON_AGE_MAX => Ok(reading.horizon),
            _ => self.read_horizon(deadline, &mut None).await,
        }
    }

    /// Keeps `need` and the reading of the small tables up to date, until `shutdown`; the log has a line for each change.
    pub(crate) async fn watch(self, need: Need, shutdown: CancellationToken) {
        let mut known = None;
        let mut gaps = None;
        loop {
            let state = self.look(&mut gaps).await.map_err(|error| error.to_string());
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
                () = sleep(HORIZON_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Takes no turn: a crowd is no outage.
    async fn look(&self, gaps: &mut Option<(GapsVersionRow, Vec<GapRow>)>) -> Result<(), StoreError> {
        let deadline = Instant::now() + HORIZON_TIMEOUT;
        self.read::<ProbeRow>(sql::probe(), deadline, &Cost::default()).await?;
        self.read_horizon(deadline, gaps).await.map(|_| ())
    }

    /// Reads the gaps only if they are others than those in `gaps`.
    async fn read_horizon(
        &self,
        deadline: Instant,
        gaps: &mut Option<(GapsVersionRow, Vec<GapRow>)>,
    ) -> Result<Arc<Horizon>, StoreError> {
        let (at, cost) = (Instant::now(), Cost::default());
        let shards = self.read(sql::watermarks(), deadline, &cost).await?;
        let retentions = self.read(sql::retentions(), deadline, &cost).await?;
        let archive = self.read::<ArchiveRow>(sql::archive(), deadline, &cost).await?;
        let version = self.read(sql::gaps_version(), deadline, &cost).await?.pop().unwrap_or_default();
        if gaps.as_ref().is_none_or(|(known, _)| *known != version) {
            *gaps = Some((version, self.read(sql::gaps(), deadline, &cost).await?));
        }
        let found = gaps.as_ref().map_or_else(Vec::new, |(_, gaps)| gaps.clone());
        let closed_day = archive.first().map_or(-1, |row| row.closed_day);
        let horizon = Arc::new(Horizon::new(&shards, found, retentions, closed_day));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Reading { horizon: horizon.clone(), at });
        Ok(horizon)
    }

    async fn turn(&self, workspace_id: WorkspaceId, deadline: Instant) -> Result<Turn, StoreError> {
        let until = deadline.min(Instant::now() + TURN_WAIT_MAX);
        self.turns.take(workspace_id, until).await.ok_or(StoreError::Busy)
    }

    async fn read<T: Answer>(
        &self,
        statement: Statement,
        deadline: Instant,
        cost: &Cost,
    ) -> Result<Vec<T>, StoreError> {
        let span = self.server.asked(statement.name);
        let answer = self.answer(statement, deadline, cost, span.as_ref()).await;
        span::answered(span.as_ref(), &answer);
        answer
    }

    async fn answer<T: Answer>(
        &self,
        statement: Statement,
        deadline: Instant,
        cost: &Cost,
        span: Option<&Span>,
    ) -> Result<Vec<T>, StoreError> {
        // Only with the whole answer does ClickHouse tell what it read.
        let query = self.limited(statement, deadline, span)?.with_setting("wait_end_of_query", "1");
        let reading = async {
            let mut cursor = query.fetch::<T>()?;
            let mut rows = Vec::new();
            while let Some(row) = cursor.next().await? {
                rows.push(row);
            }
            if let Some(summary) = cursor.summary() {
                cost.add(summary.read_rows().unwrap_or(0), summary.read_bytes().unwrap_or(0));
            }
            Ok(rows)
        };
        match timeout_at(deadline, reading).await {
            Ok(rows) => rows.map_err(|error: Error| sort(&error)),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    fn limited(
        &self,
        statement: Statement,
        deadline: Instant,
        span: Option<&Span>,
    ) -> Result<Query, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StoreError::TimedOut);
        }
        let query = match span {
            None => self.client.query_raw(&statement.text),
            // ClickHouse notes its own spans in it, where it is asked to.
            Some(span) => {
                let told = Traceparent::from(&span.ids()).to_string();
                self.client.clone().with_header(TRACEPARENT.as_str(), told).query_raw(&statement.text)
            }
        };
        let query = statement.params.into_iter().fold(query, |query, (name, value)| match value {
            Value::Int(value) => query.param(&name, value),
            Value::Ints(values) => query.param(&name, values),
            Value::Uuid(value) => query.param(&name, value),
            Value::Uuids(values) => query.param(&name, values),
            Value::Codes(values) => query.param(&name, values),
            Value::Ips(values) => query.param(&name, values),
            Value::Texts(values) => query.param(&name, values),
        });
        Ok(query
            .with_setting("query_id", format!("keymeter-query-{}", Uuid::now_v7()))
            // 0 would be no limit.
            .with_setting("max_execution_time", format!("{:.3}", left.as_secs_f64().max(0.001))))
    }
}

impl File {
    /// Its next bytes; none at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let next = match timeout_at(self.deadline, self.cursor.next()).await {
            Ok(bytes) => bytes.map_err(|error| sort(&error)),
            Err(_) => Err(StoreError::TimedOut),
        };
        if let (Err(error), Some(span)) = (&next, &self.span) {
            span.failed(error.label());
        }
        next
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
