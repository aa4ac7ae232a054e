//! The daily archive in ClickHouse: its passes, the erasures in it, and when rows may expire since they are in it.

use std::fmt::Write as _;

use clickhouse::Row;
use serde::Deserialize;
use time::{Date, OffsetDateTime};

use super::{Store, StoreError, from_millis, millis, question, statement};
use crate::{
    archive::{Archived, Pass, RETENTION_DAYS_DEFAULT},
    retentions::Retention,
};

/// Bytes of groups in memory, above which ClickHouse goes on with them on its disk.
const GROUPS_BYTES_MAX: &str = "1073741824";
/// The text of the statement that says which rows expire when: some 20,000 workspaces with times of their own.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

#[derive(Row, Deserialize)]
struct Noted {
    shard: u16,
    end_ms: i64,
    through_ms: i64,
}

impl Noted {
    fn archived(&self) -> Archived {
        let closed_day = from_millis(self.end_ms).date().previous_day().unwrap_or(Date::MIN);
        Archived { closed_day, through_ms: self.through_ms }
    }
}

impl Store {
    /// How far `shard` is archived; `None` if there was no pass yet.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn archived(&self, shard: u16) -> Result<Option<Archived>, StoreError> {
        let noted = self.noted().await?;
        Ok(noted.iter().find(|noted| noted.shard == shard).map(Noted::archived))
    }

    async fn noted(&self) -> Result<Vec<Noted>, StoreError> {
        let sql = "
            select shard, toInt64(max(closed_day) + 1) * 86400000 as end_ms,
                toUnixTimestamp64Milli(max(through)) as through_ms
            from keymeter.archive_passes group by shard order by shard";
        question(self.client.query_raw(sql).fetch_all()).await
    }

    /// Adds a pass to the archive, then notes it. One that was not noted counts for nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if it was not noted; else nobody knows whether it was.
    pub async fn archive(&self, pass: Pass) -> Result<(), StoreError> {
        let new = "occurred_at >= fromUnixTimestamp64Milli({from_end:Int64}, 'UTC')
            and occurred_at < fromUnixTimestamp64Milli({to_end:Int64}, 'UTC')
            and ingested_at <= fromUnixTimestamp64Milli({through:Int64}, 'UTC')";
        let late = "occurred_at < fromUnixTimestamp64Milli({from_end:Int64}, 'UTC')
            and ingested_at > fromUnixTimestamp64Milli({from_through:Int64}, 'UTC')
            and ingested_at <= fromUnixTimestamp64Milli({through:Int64}, 'UTC')";
        let closes = pass.from.is_none_or(|from| from.closed_day < pass.to.closed_day);
        if closes {
            self.add_totals(pass, new, "new").await?;
        }
        if pass.has_late && pass.from.is_some() {
            let is_late = self.of_pass(
                &format!(
                    "select count() from keymeter.request_events where shard = {{shard:UInt16}} and {late}"
                ),
                pass,
            );
            let rows: u64 = super::long_question(is_late.fetch_one()).await?;
            if rows > 0 {
                self.add_totals(pass, late, "late").await?;
            } else if !closes {
                return Ok(());
            }
        }
        let note = "
            insert into keymeter.archive_passes (shard, writer_epoch, pass, closed_day, through)
            select {shard:UInt16}, {epoch:UInt32}, {pass:UInt32},
                toDate(fromUnixTimestamp64Milli({to_end:Int64}, 'UTC')) - 1,
                fromUnixTimestamp64Milli({through:Int64}, 'UTC')";
        let note = self.of_pass(note, pass).with_setting("query_id", query_id(pass, "note"));
        statement(note).await.map_err(StoreError::fenced)
    }

    async fn add_totals(&self, pass: Pass, which: &str, name: &str) -> Result<(), StoreError> {
        let sql = format!(
            "insert into keymeter.daily_archive
             select workspace_id, key_id, toDate(occurred_at, 'UTC') as day, method, route, status_code, outcome,
                 origin, denial, count(), sum(latency_us), sum(request_bytes), sum(response_bytes), max(occurred_at),
                 {{shard:UInt16}}, {{epoch:UInt32}}, {{pass:UInt32}}
             from keymeter.request_events
             where shard = {{shard:UInt16}} and {which}
             group by workspace_id, key_id, day, method, route, status_code, outcome, origin, denial"
        );
        let add = self.of_pass(&sql, pass).with_setting("query_id", query_id(pass, name));
        let add = add.with_setting("max_bytes_before_external_group_by", GROUPS_BYTES_MAX);
        statement(add).await.map_err(StoreError::fenced)
    }

    fn of_pass(&self, sql: &str, pass: Pass) -> clickhouse::query::Query {
        let before = Archived { closed_day: Date::MIN, through_ms: i64::MIN };
        let from = pass.from.unwrap_or(before);
        let query = self.client.query_raw(sql).param("shard", pass.shard).param("epoch", pass.writer_epoch);
        query
            .param("pass", pass.number)
            .param("from_end", millis(from.end()).max(0))
            .param("from_through", from.through_ms.max(0))
            .param("to_end", millis(pass.to.end()))
            .param("through", pass.to.through_ms)
    }

    /// Deletes what the archive has of a workspace in a shard, of days that began before `up_to`, and says whether
    /// there was anything.
    pub(super) async fn erase_archived(
        &self,
        shard: u16,
        id: &str,
        up_to: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let those = "workspace_id = {id:UUID} and shard = {shard:UInt16}
                     and toDateTime64(day, 3, 'UTC') < fromUnixTimestamp64Milli({up_to:Int64}, 'UTC')";
        let ask = |sql: String| {
            let query = self.client.query_raw(&sql).param("id", id).param("shard", shard);
            query.param("up_to", millis(up_to))
        };
        let count = ask(format!("select count() from keymeter.daily_archive where {those}"));
        if question(count.fetch_one::<u64>()).await? == 0 {
            return Ok(false);
        }
        let delete = ask(format!("{} delete where {those}", self.layout.alter("daily_archive")));
        statement(delete.with_setting("mutations_sync", self.layout.mutations_sync())).await?;
        Ok(true)
    }

    /// Keeps what a workspace has chosen.
    ///
    /// # Errors
    /// If it may not have been kept.
    pub async fn keep_for(&self, retention: Retention) -> Result<(), StoreError> {
        let sql = "insert into keymeter.retentions
                   select {id:UUID}, {days:UInt16}, fromUnixTimestamp64Milli({chosen_at:Int64}, 'UTC')";
        let query = self.client.query_raw(sql).param("id", retention.workspace_id.as_uuid().to_string());
        statement(query.param("days", retention.days).param("chosen_at", millis(retention.chosen_at))).await
    }

    /// Gives every row that is archived the end that its workspace has chosen; ClickHouse deletes it then, some time
    /// after this has returned. Whether there was anything to give.
    ///
    /// # Errors
    /// If it may not have been asked for.
    pub async fn expire(&self) -> Result<bool, StoreError> {
        #[derive(Row, Deserialize)]
        struct Kept {
            days: u16,
            ids: Vec<String>,
        }
        let running = format!(
            "select count() from {} where database = 'keymeter' and table = '{}' and not is_done
                 and command like '%expires_at%'",
            self.layout.system("mutations"),
            self.layout.rows_of("request_events")
        );
        if question(self.client.query_raw(&running).fetch_one::<u64>()).await? > 0 {
            return Ok(false);
        }
        let kept = "select days, groupArray(toString(workspace_id)) as ids from keymeter.retentions final
                    where days != {default:UInt16} group by days order by days";
        let kept = self.client.query_raw(kept).param("default", RETENTION_DAYS_DEFAULT).fetch_all::<Kept>();
        let kept: Vec<(u16, Vec<String>)> =
            question(kept).await?.into_iter().map(|Kept { days, ids }| (days, ids)).collect();
        let noted: Vec<(u16, Archived)> =
            self.noted().await?.iter().map(|noted| (noted.shard, noted.archived())).collect();
        let Some((end, those)) = ends(&noted, &kept) else { return Ok(false) };
        let count = format!("select count() from keymeter.request_events where {those}");
        let count =
            self.client.query_raw(&count).with_setting("max_query_size", STATEMENT_BYTES_MAX.to_string());
        let rows: u64 = super::long_question(count.fetch_one()).await?;
        if rows > 0 {
            let alter = self.layout.alter("request_events");
            let sql = format!("{alter} update expires_at = {end} where {those}");
            let alter = self.client.query_raw(&sql).with_setting("mutations_sync", "0");
            statement(alter.with_setting("max_query_size", STATEMENT_BYTES_MAX.to_string())).await?;
            tracing::info!(rows, "gave rows that are archived their end");
        }
        Ok(rows > 0)
    }
}

/// The end of a row, and which rows do not have it yet: those of every shard that are in its archive.
fn ends(noted: &[(u16, Archived)], kept: &[(u16, Vec<String>)]) -> Option<(String, String)> {
    if noted.is_empty() {
        return None;
    }
    let mut days = String::new();
    for (days_kept, ids) in kept {
        let _ = write!(days, "workspace_id in ('{}'), {days_kept}, ", ids.join("', '"));
    }
    let days = if days.is_empty() {
        RETENTION_DAYS_DEFAULT.to_string()
    } else {
        format!("multiIf({days}{RETENTION_DAYS_DEFAULT})")
    };
    let end = format!("toDateTime(toDate(occurred_at, 'UTC') + 1 + {days}, 'UTC')");
    let archived = noted.iter().map(|(shard, archived)| {
        format!(
            "shard = {shard} and occurred_at < fromUnixTimestamp64Milli({}, 'UTC') \
             and ingested_at <= fromUnixTimestamp64Milli({}, 'UTC')",
            millis(archived.end()),
            archived.through_ms
        )
    });
    let archived = archived.collect::<Vec<_>>().join(" or ");
    Some((end.clone(), format!("({archived}) and expires_at != {end}")))
}

fn query_id(pass: Pass, name: &str) -> String {
    format!("ingest-{}-{}-archive-{}-{name}", pass.shard, pass.writer_epoch, pass.number)
}
