//! Postgres with one table of calls and the indexes that the questions want, tuned for this machine. It is no subject
//! of a crash, so it logs nothing ahead.

use figures::say;
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use parts::{ClickHouse, Postgres};
use sqlx::{
    AssertSqlSafe, PgPool, Row as _,
    postgres::{PgPoolCopyExt as _, PgPoolOptions},
};

use super::{
    Answered,
    sql::{COLUMNS, Dialect, statements},
};
use crate::{
    load::{RANGE_MS, run},
    measure::repeat,
    questions::{Kind, Question},
    run::BESIDE,
};

const SETTINGS: &[&str] = &[
    "shared_buffers=4GB",
    "effective_cache_size=12GB",
    "work_mem=64MB",
    "maintenance_work_mem=1GB",
    "max_wal_size=8GB",
    "random_page_cost=1.1",
    "jit=off",
];
/// As many questions of a page at once.
const CONNECTIONS: u32 = 5;
/// Loads at a time, and time that each takes in.
const LANES: usize = 2;
const SLICE_MS: i64 = 43_200_000;

const TABLE: &str = "
    create unlogged table calls
    (
        request_id uuid not null,
        key_id uuid not null,
        secret_id uuid not null,
        method text not null,
        route text not null,
        path text not null,
        resource_id text not null,
        status_code smallint not null,
        outcome text not null,
        origin text not null,
        denial text not null,
        limit_name text not null,
        latency_us integer not null,
        request_bytes bigint not null,
        response_bytes bigint not null,
        client_ip inet not null,
        user_agent text not null,
        region text not null,
        edge_id text not null,
        workspace_id uuid not null,
        occurred_at timestamptz not null
    )";
const INDEXES: [&str; 4] = [
    "create index on calls (key_id, occurred_at desc, request_id desc)",
    "create index on calls (workspace_id, occurred_at desc, request_id desc)",
    "create unique index on calls (request_id)",
    "create index on calls using brin (occurred_at)",
];

struct Dialected;

impl Dialect for Dialected {
    const TABLE: &str = "calls";
    const TIME: &str = "occurred_at";
    const PERCENTILES: &str = "percentile_disc(array[0.5, 0.9, 0.95, 0.99]) within group (order by latency_us), \
         max(latency_us)";

    fn moment(ms: i64) -> String {
        format!("to_timestamp({}.{:03})", ms / 1000, ms % 1000)
    }

    fn day(zone: &str) -> String {
        format!("date_trunc('day', occurred_at, '{zone}')")
    }
}

/// A running Postgres with the calls. Its data go with it.
pub(super) struct Peer {
    pool: PgPool,
    _server: Postgres,
}

impl Peer {
    /// Copies the calls out of the engine, makes indexes and statistics.
    pub(super) async fn load(clickhouse: &ClickHouse, end_ms: i64) -> anyhow::Result<Self> {
        let server = Postgres::start_with(SETTINGS).await;
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&server.url()).await?;
        sqlx::raw_sql(TABLE).execute(&pool).await?;
        say("Copying the calls to Postgres");
        let slices = stream::iter((end_ms - RANGE_MS..end_ms).step_by(SLICE_MS as usize));
        let slices = slices.map(async |from_ms| copy(clickhouse, &pool, from_ms).await);
        slices.buffer_unordered(LANES).try_collect::<()>().await?;
        say("Indexes and statistics of Postgres");
        for index in INDEXES {
            sqlx::raw_sql(index).execute(&pool).await?;
        }
        sqlx::raw_sql("vacuum analyze calls").execute(&pool).await?;
        Ok(Self { pool, _server: server })
    }

    pub(super) async fn ask(&self, question: &Question) -> anyhow::Result<Answered> {
        let statements = statements::<Dialected>(question);
        let is_counted = question.kind == Kind::Summary;
        let ask = async || {
            let answers = statements.iter().map(|sql| async move {
                let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(&self.pool).await?;
                let counted = rows.first().filter(|_| is_counted);
                anyhow::Ok(match counted {
                    Some(row) => row.try_get::<i64, _>(0)? as u64,
                    None => rows.len() as u64,
                })
            });
            anyhow::Ok(try_join_all(answers).await?.iter().sum())
        };
        let (size, times) = repeat(BESIDE, ask).await?;
        Ok((size, times.p50_ms))
    }
}

async fn copy(clickhouse: &ClickHouse, pool: &PgPool, from_ms: i64) -> anyhow::Result<()> {
    let columns = COLUMNS.replace("client_ip", "replaceOne(toString(client_ip), '::ffff:', '')");
    let to_ms = from_ms + SLICE_MS;
    let rows = run(
        clickhouse,
        &format!(
            "select {columns}, workspace_id, concat(toString(occurred_at), '+00') from keymeter.request_events \
             where occurred_at >= fromUnixTimestamp64Milli({from_ms}) \
                 and occurred_at < fromUnixTimestamp64Milli({to_ms}) \
             order by occurred_at, request_id"
        ),
    )
    .await?;
    let statement = format!("copy calls ({COLUMNS}, workspace_id, occurred_at) from stdin");
    let mut sink = pool.copy_in_raw(&statement).await?;
    sink.send(rows.as_bytes()).await?;
    sink.finish().await?;
    Ok(())
}
