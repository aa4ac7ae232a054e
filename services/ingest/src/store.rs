//! ClickHouse: with `store/` the only files that name its driver. Applies the schema, raises the fence, inserts, reads back.
//! Every call is bounded in time; what an error left behind is for a takeover to find out.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use clickhouse::{Client, Compression, Row, query::Query};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use time::OffsetDateTime;
use trace::{Span, TRACEPARENT, Traceparent};

use crate::{
    config::Config,
    erasures::Erased,
    layout::Layout,
    schema::{self, Refusal},
    watermark::Standing,
};

mod archive;
mod audit;
mod gaps;

pub use audit::HourCount;

/// How long a statement may take; reading back a whole shard after NATS has lost its record is the longest.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a small question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an insert may take before its outcome counts as unknown.
const INSERT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long older queries may take to end after they were killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// ClickHouse's code for a row that a constraint refuses.
const VIOLATED_CONSTRAINT: &str = "Code: 469.";

/// A connection pool to one ClickHouse.
#[derive(Clone)]
pub struct Store {
    client: Client,
    layout: Layout,
}

/// Why a call did not go well.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer epoch has the shard; nothing was written.
    #[error("a newer writer has the shard")]
    Fenced,
    /// ClickHouse does not suit this ingest, and will not by waiting.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Everything else; whether anything was written is unknown.
    #[error("clickhouse: {0}")]
    Unknown(String),
}

impl StoreError {
    /// What an insert ended with.
    fn fenced(self) -> Self {
        match self {
            Self::Unknown(text) if text.contains(VIOLATED_CONSTRAINT) => Self::Fenced,
            error => error,
        }
    }
}

/// Sequences in ClickHouse, of one boot of an edge, without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub struct Found {
    /// The edge that numbered them.
    pub edge_id: String,
    /// Its start that did.
    pub boot_epoch: u32,
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The latest `ingested_at` among them, in milliseconds since 1970.
    pub newest_ms: i64,
}

impl Store {
    /// A store that connects when it is first asked.
    ///
    /// # Errors
    /// If the identity cannot be used, or the address is plain although there is one.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let client = match config.identity.identity()? {
            Some(identity) => Client::with_http_client(
                identity.http_client("KEYMETER_INGEST_CLICKHOUSE_URL", &config.clickhouse_url)?,
            ),
            None => Client::default(),
        };
        let mut client = client.with_url(&config.clickhouse_url).with_compression(Compression::None);
        if let Some(user) = &config.clickhouse_user {
            client = client.with_user(user);
        }
        if let Some(password) = &config.clickhouse_password {
            client = client.with_password(password.expose_secret());
        }
        let layout = Layout::new(config.clickhouse_cluster.clone());
        let settings = layout.settings().iter();
        let client = settings.fold(client, |client, (name, value)| client.with_setting(*name, *value));
        Ok(Self { client, layout })
    }

    /// Checks the server's version and applies what is missing of the schema.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if waiting will not help.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let version: String = question(self.client.query_raw("select version()").fetch_one()).await?;
        schema::check_version("ClickHouse", &version, schema::CLICKHOUSE_MIN)?;
        self.check_layout().await?;
        for sql in schema::statements(schema::NOTES).flat_map(|sql| self.layout.render(sql)) {
            self.execute(&sql).await?;
        }
        let applied = self.client.query_raw("select distinct version, name from keymeter.schema_migrations");
        let applied: Vec<(u32, String)> = question(applied.fetch_all()).await?;
        for migration in schema::pending(&applied)? {
            for sql in migration.statements().flat_map(|sql| self.layout.render(sql)) {
                self.execute(&sql).await?;
            }
            let note = "insert into keymeter.schema_migrations (version, name) select {version:UInt32}, {name:String}";
            let note =
                self.client.query_raw(note).param("version", migration.version).param("name", migration.name);
            statement(note).await?;
            tracing::info!(migration.version, migration.name, "schema changed");
        }
        Ok(())
    }

    async fn check_layout(&self) -> Result<(), StoreError> {
        let sql = "select engine from system.tables where database = 'keymeter' and name = 'request_events'";
        let found: Option<String> = question(self.client.query_raw(sql).fetch_optional()).await?;
        let wanted = self.layout.engine();
        match found.filter(|found| found != wanted) {
            Some(found) => Err(Refusal::OtherLayout { found, wanted }.into()),
            None => Ok(()),
        }
    }

    /// How many rows there are, of calls and of daily totals.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn rows(&self) -> Result<u64, StoreError> {
        let sql = "select sum(rows) from (select count() as rows from keymeter.request_events
                                       union all select count() from keymeter.daily_archive)";
        question(self.client.query_raw(sql).fetch_one()).await
    }

    /// The users whose names start so.
    ///
    /// # Errors
    /// If ClickHouse cannot say, or does not want to.
    pub async fn users(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let sql = "select name from system.users where startsWith(name, {prefix:String}) order by name";
        question(self.client.query_raw(sql).param("prefix", prefix).fetch_all()).await
    }

    /// The epoch below which writers of `shard` are refused; 0 if none was ever raised.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn fence(&self, shard: u16) -> Result<u32, StoreError> {
        let sql = "select max(epoch) from keymeter.writer_fence where shard = {shard:UInt16}";
        question(self.client.query_raw(sql).param("shard", shard).fetch_one()).await
    }

    /// Refuses writers of `shard` below `epoch` from now on.
    ///
    /// # Errors
    /// If it may not have been raised.
    pub async fn raise_fence(&self, shard: u16, epoch: u32) -> Result<(), StoreError> {
        let sql = "insert into keymeter.writer_fence (shard, epoch) select {shard:UInt16}, {epoch:UInt32}";
        statement(self.client.query_raw(sql).param("shard", shard).param("epoch", epoch)).await
    }

    /// Ends the inserts of `shard` below `epoch` and waits until none is left: those that passed the fence before
    /// it was raised.
    ///
    /// # Errors
    /// If any may still run.
    pub async fn end_older_inserts(&self, shard: u16, epoch: u32) -> Result<(), StoreError> {
        let id = self.layout.query_id_column();
        // A query may insert for several shards.
        let older = format!(
            "arrayExists(
                 one -> startsWith(one, 'ingest-{shard}-') and toUInt32OrZero(splitByChar('-', one)[3]) < {epoch},
                 splitByChar('+', {id}))"
        );
        let count = format!("select count() from {} where {older}", self.layout.system("processes"));
        let kill = format!("kill query{} where {older} async", self.layout.on_cluster());
        let drained = async {
            while question(self.client.query_raw(&count).fetch_one::<u64>()).await? > 0 {
                self.execute(&kill).await?;
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
            Ok(())
        };
        let late = || StoreError::Unknown(format!("inserts of shard {shard} do not end"));
        tokio::time::timeout(DRAIN_TIMEOUT, drained).await.map_err(|_| late())?
    }

    /// The sequences of `shard` in rows with an `ingested_at` after `after_ms`.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn found_after(&self, shard: u16, after_ms: i64) -> Result<Vec<Found>, StoreError> {
        // A gap-free run has the same difference between sequence and rank.
        let sql = "
            select edge_id, boot_epoch, min(edge_seq) as first, max(edge_seq) as last,
                toUnixTimestamp64Milli(max(ingested_at)) as newest_ms
            from (
                select toString(edge_id) as edge_id, boot_epoch, edge_seq, ingested_at,
                    edge_seq - dense_rank() over (partition by edge_id, boot_epoch order by edge_seq) as run
                from keymeter.request_events
                where shard = {shard:UInt16} and ingested_at > fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC')
            )
            group by edge_id, boot_epoch, run";
        long_question(
            self.client.query_raw(sql).param("shard", shard).param("after_ms", after_ms).fetch_all(),
        )
        .await
    }

    /// Deletes the rows of `shard` that were erased, and says how many there were.
    ///
    /// # Errors
    /// If some may be left.
    pub async fn erase(&self, shard: u16, erased: &Erased) -> Result<u64, StoreError> {
        let ids: Vec<String> = erased.iter().map(|(id, _)| id.as_uuid().to_string()).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let sql = "select distinct toString(workspace_id) from (
                       select workspace_id, shard from keymeter.request_events
                       union all select workspace_id, shard from keymeter.daily_archive
                       union all select workspace_id, shard from keymeter.gaps
                   )
                   where workspace_id in (select toUUID(arrayJoin({ids:Array(String)}))) and shard = {shard:UInt16}";
        let present =
            self.client.query_raw(sql).param("ids", ids).param("shard", shard).fetch_all::<String>();
        let present = long_question(present).await?;
        let mut rows = 0;
        for (workspace_id, up_to) in erased.iter() {
            let id = workspace_id.as_uuid().to_string();
            if present.contains(&id) {
                self.erase_gaps(shard, &id, up_to).await?;
                rows += self.erase_one(shard, &id, up_to).await?;
                if self.erase_archived(shard, &id, up_to).await? {
                    tracing::info!(shard, workspace.id = %workspace_id, "deleted totals of an erased workspace");
                }
            }
        }
        Ok(rows)
    }

    async fn erase_one(&self, shard: u16, id: &str, up_to: OffsetDateTime) -> Result<u64, StoreError> {
        let those = "workspace_id = {id:UUID} and shard = {shard:UInt16}
                     and occurred_at < fromUnixTimestamp64Milli({up_to:Int64}, 'UTC')";
        let ask = |sql: String| {
            let query = self.client.query_raw(&sql).param("id", id).param("shard", shard);
            query.param("up_to", millis(up_to))
        };
        let count = ask(format!("select count() from keymeter.request_events where {those}"));
        let rows: u64 = question(count.fetch_one()).await?;
        if rows > 0 {
            let note = ask(format!("{} {those} {}", gaps::NOTE_ERASED.0, gaps::NOTE_ERASED.1));
            statement(note).await?;
            let delete = ask(format!("{} delete where {those}", self.layout.alter("request_events")));
            statement(delete.with_setting("mutations_sync", self.layout.mutations_sync())).await?;
        }
        Ok(rows)
    }

    /// Inserts blocks in the format `Native`, which come in pieces; they are on disk when this returns. ClickHouse is told
    /// of the span.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if nothing was written; else nobody knows what was.
    pub async fn insert(
        &self,
        blocks: impl IntoIterator<Item = Bytes>,
        query_id: &str,
        span: Option<Span>,
    ) -> Result<(), StoreError> {
        let told = span.as_ref().map(|span| Traceparent::from(&span.ids()).to_string());
        let client = match told {
            Some(told) => Cow::Owned(self.client.clone().with_header(TRACEPARENT.as_str(), told)),
            None => Cow::Borrowed(&self.client),
        };
        let mut insert = client
            .insert_formatted_with("insert into keymeter.request_events format Native")
            .with_setting("query_id", query_id)
            .with_timeouts(Some(INSERT_TIMEOUT), Some(INSERT_TIMEOUT));
        let send = async {
            for piece in blocks {
                insert.send(piece).await?;
            }
            insert.end().await
        };
        let sent = send.await.map_err(|error| unknown(error).fenced());
        if let (Err(error), Some(span)) = (&sent, &span) {
            span.failed(if matches!(error, StoreError::Fenced) { "fenced" } else { "unknown" });
        }
        sent
    }

    /// What was said last of how far `shard` is complete.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn standing(&self, shard: u16) -> Result<Option<Standing>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Stored {
            complete_up_to_ms: i64,
            edges: Vec<String>,
            since_ms: Vec<i64>,
        }
        let sql = "
            select toUnixTimestamp64Milli(complete_up_to) as complete_up_to_ms, unaccounted.edge_id as edges,
                arrayMap(since -> toUnixTimestamp64Milli(since), unaccounted.since) as since_ms
            from keymeter.watermarks final where shard = {shard:UInt16}";
        let stored = self.client.query_raw(sql).param("shard", shard).fetch_optional::<Stored>();
        Ok(question(stored).await?.map(|stored| Standing {
            complete_up_to: Some(from_millis(stored.complete_up_to_ms))
                .filter(|at| *at > OffsetDateTime::UNIX_EPOCH),
            unaccounted: stored.edges.into_iter().zip(stored.since_ms.into_iter().map(from_millis)).collect(),
        }))
    }

    /// Says how far `shard` is complete.
    ///
    /// # Errors
    /// If it may not have been written.
    pub async fn set_standing(&self, shard: u16, standing: &Standing) -> Result<(), StoreError> {
        let (edges, since): (Vec<&str>, Vec<i64>) =
            standing.unaccounted.iter().map(|(edge_id, since)| (edge_id.as_str(), millis(*since))).unzip();
        let sql = "
            insert into keymeter.watermarks
            select {shard:UInt16}, fromUnixTimestamp64Milli({at:Int64}, 'UTC'),
                arrayMap((edge_id, since) -> (edge_id, fromUnixTimestamp64Milli(since, 'UTC')),
                    {edges:Array(String)}, {since:Array(Int64)}),
                now64(3)";
        let query = self
            .client
            .query_raw(sql)
            .param("shard", shard)
            .param("at", standing.complete_up_to.map_or(0, millis))
            .param("edges", edges)
            .param("since", since);
        statement(query).await
    }

    /// Runs a statement of ours that has no answer.
    ///
    /// # Errors
    /// If it may not have been run.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        statement(self.client.query_raw(sql)).await
    }
}

async fn statement(query: Query) -> Result<(), StoreError> {
    tokio::time::timeout(STATEMENT_TIMEOUT, query.execute()).await.map_err(|_| timed_out())?.map_err(unknown)
}

async fn question<T>(answer: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, StoreError> {
    tokio::time::timeout(QUESTION_TIMEOUT, answer).await.map_err(|_| timed_out())?.map_err(unknown)
}

/// One that reads much.
async fn long_question<T>(
    answer: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(STATEMENT_TIMEOUT, answer).await.map_err(|_| timed_out())?.map_err(unknown)
}

fn timed_out() -> StoreError {
    StoreError::Unknown("no answer in time".to_owned())
}

/// The driver keeps the cause of a network error out of its text.
fn unknown(error: clickhouse::error::Error) -> StoreError {
    StoreError::Unknown(format!("{:#}", anyhow::Error::from(error)))
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(0)
}

fn from_millis(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
