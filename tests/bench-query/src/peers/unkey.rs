//! Unkey's published layout in the same engine: single verifications in order of workspace and time, and sums by
//! minute, hour and day that views keep. Columns that they lack are added, so that every question can be asked; states
//! of latencies, which no question here can use, are left out.

use figures::say;
use futures_util::future::try_join_all;
use parts::ClickHouse;

use super::{
    Answered,
    sql::{Dialect, statements},
};
use crate::{
    load::{RANGE_MS, run, settle},
    measure::repeat,
    questions::{Kind, Question},
    run::BESIDE,
};

const HOUR_S: i64 = 3_600;
/// Time between two slices of the load.
const SLICE_MS: i64 = 86_400_000;

struct Unkey;

impl Dialect for Unkey {
    const TABLE: &str = "unkey.verifications";
    const TIME: &str = "time";
    const PERCENTILES: &str = "quantilesTDigest(0.5, 0.9, 0.95, 0.99)(latency_us), max(latency_us)";

    fn moment(ms: i64) -> String {
        ms.to_string()
    }

    fn day(zone: &str) -> String {
        format!("toStartOfDay(fromUnixTimestamp64Milli(time), '{zone}')")
    }
}

/// Rows as they publish them, then our columns.
const TABLE: &str = "
    create table unkey.verifications
    (
        request_id String codec(ZSTD(1)),
        time Int64 codec(Delta, ZSTD(1)),
        inserted_at Int64 codec(Delta, ZSTD(1)),
        workspace_id String codec(ZSTD(1)),
        key_space_id String codec(ZSTD(1)),
        identity_id String codec(ZSTD(1)),
        external_id String codec(ZSTD(1)),
        key_id String codec(ZSTD(1)),
        region LowCardinality(String) codec(ZSTD(1)),
        outcome LowCardinality(String) codec(ZSTD(1)),
        tags Array(String) codec(ZSTD(1)),
        spent_credits Int64 codec(ZSTD(1)),
        latency Float64 codec(ZSTD(1)),
        secret_id String codec(ZSTD(1)),
        method LowCardinality(String) codec(ZSTD(1)),
        route LowCardinality(String) codec(ZSTD(1)),
        path String codec(ZSTD(1)),
        resource_id String codec(ZSTD(1)),
        status_code UInt16 codec(ZSTD(1)),
        origin LowCardinality(String) codec(ZSTD(1)),
        denial LowCardinality(String) codec(ZSTD(1)),
        limit_name LowCardinality(String) codec(ZSTD(1)),
        latency_us UInt32 codec(ZSTD(1)),
        request_bytes UInt64 codec(ZSTD(1)),
        response_bytes UInt64 codec(ZSTD(1)),
        client_ip String codec(ZSTD(1)),
        user_agent LowCardinality(String) codec(ZSTD(1)),
        edge_id LowCardinality(String) codec(ZSTD(1)),
        index request_id_bloom request_id type bloom_filter granularity 1,
        index identity_id_bloom identity_id type bloom_filter granularity 1,
        index key_id_bloom key_id type bloom_filter granularity 1,
        index tags_bloom tags type bloom_filter granularity 1
    )
    engine = MergeTree
    order by (workspace_id, time, key_space_id, outcome)";

/// Sums over a length of time, in order of workspace and time.
const ROLLUP: &str = "
    create table unkey.per_{length}
    (
        time DateTime('UTC'),
        workspace_id String,
        key_space_id String,
        identity_id String,
        external_id String,
        key_id String,
        outcome LowCardinality(String),
        tags Array(String),
        count SimpleAggregateFunction(sum, Int64),
        spent_credits SimpleAggregateFunction(sum, Int64),
        index identity_id_bloom identity_id type bloom_filter granularity 4,
        index key_id_bloom key_id type bloom_filter granularity 4,
        index tags_bloom tags type bloom_filter granularity 4
    )
    engine = AggregatingMergeTree
    partition by {partition}
    order by (workspace_id, time, key_space_id, identity_id, external_id, key_id, outcome, tags)";

/// What fills it, from rows or from the next finer sums.
const VIEW: &str = "
    create materialized view unkey.to_per_{length} to unkey.per_{length} as
    select
        {start} as time, workspace_id, key_space_id, identity_id, external_id, key_id, outcome, tags,
        sum({count}) as count, sum(finer.spent_credits) as spent_credits
    from unkey.{from} as finer
    group by time, workspace_id, key_space_id, identity_id, external_id, key_id, outcome, tags";

const INSERT: &str = "
    insert into unkey.verifications
    select
        toString(request_id), toUnixTimestamp64Milli(occurred_at), toUnixTimestamp64Milli(ingested_at),
        toString(workspace_id), concat('ks_', toString(workspace_id)), '', '', toString(key_id), region,
        toString(outcome), [], 1, latency_us / 1000, toString(secret_id), method, route, path, resource_id, status_code,
        toString(origin), denial, limit_name, latency_us, request_bytes, response_bytes,
        replaceOne(toString(client_ip), '::ffff:', ''), user_agent, edge_id
    from keymeter.request_events
    where occurred_at >= fromUnixTimestamp64Milli({from_ms}) and occurred_at < fromUnixTimestamp64Milli({to_ms})
    settings max_insert_block_size = 1000000, min_insert_block_size_rows = 1000000";

/// Fills their tables from ours, in order of time, and lets merges end.
pub(super) async fn load(clickhouse: &ClickHouse, end_ms: i64) -> anyhow::Result<()> {
    drop(clickhouse).await?;
    run(clickhouse, "create database unkey").await?;
    run(clickhouse, TABLE).await?;
    for (length, partition, start, count, from) in [
        (
            "minute",
            "toYYYYMMDD(time)",
            "toStartOfMinute(fromUnixTimestamp64Milli(finer.time))",
            "1",
            "verifications",
        ),
        ("hour", "toYYYYMMDD(time)", "toStartOfHour(finer.time)", "finer.count", "per_minute"),
        ("day", "toYYYYMM(time)", "toDateTime(toStartOfDay(finer.time))", "finer.count", "per_hour"),
    ] {
        for sql in [ROLLUP, VIEW] {
            let sql = sql.replace("{length}", length).replace("{partition}", partition);
            let sql = sql.replace("{start}", start).replace("{count}", count).replace("{from}", from);
            run(clickhouse, &sql).await?;
        }
    }
    for from_ms in (end_ms - RANGE_MS..end_ms).step_by(SLICE_MS as usize) {
        let sql = INSERT.replace("{from_ms}", &from_ms.to_string());
        run(clickhouse, &sql.replace("{to_ms}", &(from_ms + SLICE_MS).to_string())).await?;
        if (end_ms - from_ms) / SLICE_MS % 5 == 0 {
            say(&format!("Unkey's tables lack {} of 30 days", (end_ms - from_ms) / SLICE_MS - 1));
        }
    }
    settle(clickhouse).await
}

pub(super) async fn drop(clickhouse: &ClickHouse) -> anyhow::Result<()> {
    run(clickhouse, "drop database if exists unkey sync").await.map(|_| ())
}

/// Whether sums answer it: counts by outcome of a key or of all keys.
pub(super) fn is_in_rollup(question: &Question) -> bool {
    let is_plain = question.conditions.is_empty();
    is_plain && matches!(question.kind, Kind::Summary | Kind::Series(_) | Kind::KeyUsage)
}

pub(super) async fn ask(clickhouse: &ClickHouse, question: &Question) -> anyhow::Result<Answered> {
    let statements =
        if is_in_rollup(question) { vec![of_rollup(question)] } else { statements::<Unkey>(question) };
    let ask = async || {
        let answers = try_join_all(statements.iter().map(|sql| run(clickhouse, sql))).await?;
        anyhow::Ok(answers.iter().map(|answer| answer.lines().count() as u64).sum())
    };
    let (size, times) = repeat(BESIDE, ask).await?;
    Ok((size, times.p50_ms))
}

/// From sums by day where days in UTC are asked for, else by hour. Ends of the range are rounded, to their favour.
fn of_rollup(question: &Question) -> String {
    let (key, range) = (&question.key, &question.range);
    let is_daily = matches!(question.kind, Kind::Series("UTC") | Kind::KeyUsage) && range.is_whole();
    let table = if is_daily { "per_day" } else { "per_hour" };
    let step_s = if is_daily { 24 * HOUR_S } else { HOUR_S };
    let (from_s, to_s) = (range.from_ms / 1000 / step_s * step_s, range.to_ms / 1000);
    let workspace = key.workspace_id.as_uuid();
    let meant = format!("workspace_id = '{workspace}' and time >= {from_s} and time < {to_s}");
    let of_key = format!("{meant} and key_id = '{}'", key.key_id.as_uuid());
    let counts = "sum(count), sumIf(count, outcome = 'completed'), sumIf(count, outcome = 'failed'), \
         sumIf(count, outcome = 'rate_limited')";
    match question.kind {
        Kind::Series(zone) => format!(
            "select toStartOfDay(time, '{zone}'), {counts} from unkey.{table} where {of_key} group by 1 order by 1"
        ),
        Kind::KeyUsage => format!(
            "select key_id, toStartOfDay(time, 'UTC'), {counts}, max(time) from unkey.{table} where {meant} group by 1, 2"
        ),
        _ => format!("select {counts} from unkey.{table} where {of_key}"),
    }
}
