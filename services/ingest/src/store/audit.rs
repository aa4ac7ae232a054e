//! What an audit asks of ClickHouse, and how a doubled row is made one.

use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    STATEMENT_TIMEOUT, Store, StoreError, from_millis, gaps::THOSE, long_question, millis, question,
    statement, unknown,
};
use crate::{
    archive::Archived,
    audit::{BASELINE_EVERY, Baseline, Singled, Tally},
    intervals::Intervals,
    native::Common,
    record::Record,
    restore::Identity,
};

/// Most doubled rows of a boot that are told of.
const DOUBLED_MAX: u64 = 10_000;

/// Rows of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HourCount {
    /// All of them.
    pub rows: u64,
    /// How many events they are.
    pub events: u64,
}

impl Store {
    /// Rows by hour, of one shard or all, as the rows or as the projection for totals counts them; the latter knows no
    /// shards and no events.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn hours(
        &self,
        shard: Option<u16>,
        hours: &BTreeSet<i64>,
        projected: bool,
    ) -> Result<BTreeMap<i64, HourCount>, StoreError> {
        let events =
            if projected { "toUInt64(0)" } else { "uniqExact(shard, edge_id, boot_epoch, edge_seq)" };
        let of_shard = if shard.is_some() { "and shard = {shard:UInt16}" } else { "" };
        let sql = format!(
            "select toInt64(toUnixTimestamp(toStartOfFifteenMinutes(occurred_at))) as start, count() as rows, {events} as events
             from keymeter.request_events
             where toInt64(toUnixTimestamp(toStartOfFifteenMinutes(occurred_at))) >= {{from:Int64}}
                 and toInt64(toUnixTimestamp(toStartOfFifteenMinutes(occurred_at))) < {{to:Int64}} {of_shard}
             group by start"
        );
        let (Some(first), Some(last)) = (hours.first(), hours.last()) else { return Ok(BTreeMap::new()) };
        let use_projections = if projected { "1" } else { "0" };
        let query = self
            .client
            .query_raw(&sql)
            .param("shard", shard.unwrap_or(0))
            .param("from", *first)
            .param("to", *last + 3_600)
            .with_setting("optimize_use_projections", use_projections)
            .with_setting("force_optimize_projection", use_projections);
        let rows = long_question(query.fetch_all::<(i64, u64, u64)>()).await?;
        let mut counts: BTreeMap<i64, HourCount> = BTreeMap::new();
        for (start, rows, events) in rows {
            let count = counts.entry(start.div_euclid(3_600) * 3_600).or_default();
            count.rows += rows;
            count.events += events;
        }
        counts.retain(|hour, _| hours.contains(hour));
        Ok(counts)
    }

    /// The oldest baseline of `shard` that is not older than `since`.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn baseline(&self, shard: u16, since: OffsetDateTime) -> Result<Option<Baseline>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Stored {
            taken_at_ms: i64,
            closed_through_ms: i64,
            closed: String,
        }
        let sql = "
            select toUnixTimestamp64Milli(taken_at) as taken_at_ms, closed_through_ms, closed
            from keymeter.audit_baselines
            where shard = {shard:UInt16} and taken_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
            order by taken_at limit 1";
        let query = self.client.query_raw(sql).param("shard", shard).param("since", millis(since));
        let Some(stored) = question(query.fetch_optional::<Stored>()).await? else { return Ok(None) };
        let closed = serde_json::from_str(&stored.closed);
        Ok(Some(Baseline {
            taken_at: from_millis(stored.taken_at_ms),
            closed_through_ms: stored.closed_through_ms,
            closed: closed
                .map_err(|error| StoreError::Unknown(format!("a baseline cannot be read: {error}")))?,
        }))
    }

    /// Keeps `record` as a baseline, unless there is a young one.
    ///
    /// # Errors
    /// If it may not be kept.
    pub async fn keep_baseline(
        &self,
        shard: u16,
        record: &Record,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let sql = "
            select toUnixTimestamp64Milli(max(taken_at)) from keymeter.audit_baselines where shard = {shard:UInt16}";
        let newest = question(self.client.query_raw(sql).param("shard", shard).fetch_one::<i64>()).await?;
        if from_millis(newest) > now - BASELINE_EVERY {
            return Ok(());
        }
        let closed = serde_json::to_string(&record.closed)
            .map_err(|error| StoreError::Unknown(format!("a baseline cannot be written: {error}")))?;
        // As data, since a parameter may have 128 KiB only.
        let row = serde_json::json!({
            "shard": shard,
            "taken_at": millis(now),
            "closed_through_ms": record.closed_through_ms,
            "closed": closed,
        });
        let mut insert = self
            .client
            .insert_formatted_with("insert into keymeter.audit_baselines format JSONEachRow")
            .with_timeouts(Some(STATEMENT_TIMEOUT), Some(STATEMENT_TIMEOUT));
        insert.send(row.to_string().into()).await.map_err(unknown)?;
        insert.end().await.map_err(unknown)
    }

    /// Rows with an `ingested_at` after one moment and up to another, by edge and boot.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn tallies(
        &self,
        shard: u16,
        after_ms: i64,
        through_ms: i64,
    ) -> Result<BTreeMap<(String, u32), Tally>, StoreError> {
        let sql = "
            select toString(edge_id) as edge, boot_epoch, count() as rows, sum(edge_seq) as total
            from keymeter.request_events
            where shard = {shard:UInt16} and ingested_at > fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC')
                and ingested_at <= fromUnixTimestamp64Milli({through_ms:Int64}, 'UTC')
            group by edge, boot_epoch";
        let query = self.client.query_raw(sql).param("shard", shard);
        let query = query.param("after_ms", after_ms).param("through_ms", through_ms);
        let rows = query.fetch_all::<(String, u32, u64, u64)>();
        let rows = long_question(rows).await?;
        let rows = rows.into_iter();
        Ok(rows.map(|(edge_id, boot, rows, sum)| ((edge_id, boot), Tally { rows, sum })).collect())
    }

    /// The sequences of one boot of an edge in rows with an `ingested_at` after `after_ms`.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn sequences(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
        after_ms: i64,
    ) -> Result<Intervals, StoreError> {
        let sql = "
            select min(edge_seq), max(edge_seq)
            from (
                select edge_seq, edge_seq - dense_rank() over (order by edge_seq) as run
                from keymeter.request_events
                where shard = {shard:UInt16} and edge_id = {edge:String} and boot_epoch = {boot:UInt32}
                    and ingested_at > fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC')
            )
            group by run";
        let query = self.client.query_raw(sql).param("shard", shard).param("edge", edge_id);
        let query = query.param("boot", boot_epoch).param("after_ms", after_ms).fetch_all::<(u64, u64)>();
        let rows = long_question(query).await?;
        Ok(rows.into_iter().collect())
    }

    /// The sequences of one boot of an edge that are noted to have no row.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn gaps(&self, shard: u16, edge_id: &str, boot_epoch: u32) -> Result<Intervals, StoreError> {
        let sql = "
            select first_seq, last_seq from keymeter.gaps
            where shard = {shard:UInt16} and edge_id = {edge:String} and boot_epoch = {boot:UInt32}";
        let query = self.client.query_raw(sql).param("shard", shard).param("edge", edge_id);
        let rows = query.param("boot", boot_epoch).fetch_all::<(u64, u64)>();
        let rows = long_question(rows).await?;
        Ok(rows.into_iter().collect())
    }

    /// The sequences of one boot of an edge that have more rows than one.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn doubled(&self, shard: u16, edge_id: &str, boot_epoch: u32) -> Result<Vec<u64>, StoreError> {
        let sql = "
            select edge_seq from keymeter.request_events
            where shard = {shard:UInt16} and edge_id = {edge:String} and boot_epoch = {boot:UInt32}
            group by edge_seq having count() > 1 order by edge_seq limit {limit:UInt64}";
        let query = self.client.query_raw(sql).param("shard", shard).param("edge", edge_id);
        let rows = query.param("boot", boot_epoch).param("limit", DOUBLED_MAX).fetch_all::<u64>();
        long_question(rows).await
    }

    /// Writes each of `doubled` once more under `common`, then deletes the other copies; but none of days that are in
    /// the archive. No pass of it may run.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if nothing was written; else there may be more copies than before, and never none.
    pub async fn make_single(
        &self,
        doubled: &BTreeSet<Identity>,
        common: Common,
        query_id: &str,
    ) -> Result<Singled, StoreError> {
        let archived = self.archived(common.shard).await?;
        let open_from = archived.map_or(0, |archived: Archived| millis(archived.end()));
        let open = "occurred_at >= fromUnixTimestamp64Milli({open_from:Int64}, 'UTC')";
        let of =
            |sql: &str, some: &[&Identity]| self.of(sql, common.shard, some).param("open_from", open_from);
        let all: Vec<&Identity> = doubled.iter().collect();
        let mut singled = Singled::default();
        for (index, some) in all.chunks(1_000).enumerate() {
            let still = format!(
                "select countIf(open > 1), countIf(open <= 1)
                 from (select countIf({open}) as open from keymeter.request_events where {THOSE}
                       group by edge_id, boot_epoch, edge_seq having count() > 1)"
            );
            let count = of(&still, some).fetch_one::<(u64, u64)>();
            let (single, archived) = long_question(count).await?;
            singled.archived += archived;
            if single == 0 {
                continue;
            }
            singled.single += single;
            // Named as every insert of the writer, so that a takeover waits for it.
            let copy = format!(
                "insert into keymeter.request_events
                 select * replace (fromUnixTimestamp64Milli({{at:Int64}}, 'UTC') as ingested_at,
                     {{epoch:UInt32}} as writer_epoch)
                 from keymeter.request_events
                 where {THOSE} and {open} limit 1 by edge_id, boot_epoch, edge_seq"
            );
            let copy = of(&copy, some)
                .param("at", common.ingested_at_ms)
                .param("epoch", common.writer_epoch)
                .with_setting("query_id", format!("{query_id}-{index}"));
            statement(copy).await.map_err(StoreError::fenced)?;
            let delete = format!(
                "{} delete where {THOSE} and {open}
                 and ingested_at != fromUnixTimestamp64Milli({{at:Int64}}, 'UTC')",
                self.layout.alter("request_events")
            );
            let delete = of(&delete, some).param("at", common.ingested_at_ms);
            statement(delete.with_setting("mutations_sync", self.layout.mutations_sync())).await?;
        }
        Ok(singled)
    }
}
