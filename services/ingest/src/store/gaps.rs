//! Gaps in ClickHouse: noted, forgotten once they have a row, rid of what they tell of erased workspaces.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use super::{Store, StoreError, from_millis, long_question, millis, question, statement};
use crate::{gaps::Gap, restore::Identity, time_rule};

/// Before and behind the condition on rows that are about to be deleted since they were erased.
pub(super) const NOTE_ERASED: (&str, &str) = (
    "insert into keymeter.gaps (shard, edge_id, boot_epoch, first_seq, last_seq, reason, from_at, to_at)
     select {shard:UInt16}, edge, boot_epoch, min(edge_seq), max(edge_seq), 'erased',
         fromUnixTimestamp64Milli(toInt64(0), 'UTC'), fromUnixTimestamp64Milli(toInt64(0), 'UTC')
     from (
         select toString(edge_id) as edge, boot_epoch, edge_seq,
             edge_seq - dense_rank() over (partition by edge_id, boot_epoch order by edge_seq) as run
         from keymeter.request_events where",
    ") group by edge, boot_epoch, run",
);

/// Those of the asked identities that this condition is about.
pub(super) const THOSE: &str = "shard = {shard:UInt16} and (toString(edge_id), boot_epoch, edge_seq) in (
    select edge, boot, seq from (select 1)
    array join {edges:Array(String)} as edge, {boots:Array(UInt32)} as boot, {seqs:Array(UInt64)} as seq)";

impl Store {
    /// Notes closed sequences without rows. When they began is taken from the calls before, where it is not known.
    ///
    /// # Errors
    /// If they may not have been noted.
    pub async fn note_gaps(&self, shard: u16, gaps: &[Gap]) -> Result<(), StoreError> {
        let sql = "
            insert into keymeter.gaps
                (shard, edge_id, boot_epoch, first_seq, last_seq, reason, workspace_id, from_at, to_at)
            select {shard:UInt16}, edge, boot, first, last, reason, toUUID(workspace),
                fromUnixTimestamp64Milli(from_ms, 'UTC'), fromUnixTimestamp64Milli(to_ms, 'UTC')
            from (select 1)
            array join {edges:Array(String)} as edge, {boots:Array(UInt32)} as boot,
                {firsts:Array(UInt64)} as first, {lasts:Array(UInt64)} as last, {reasons:Array(String)} as reason,
                {workspaces:Array(String)} as workspace, {froms:Array(Int64)} as from_ms,
                {tos:Array(Int64)} as to_ms";
        // A parameter may have 128 KiB.
        for gaps in gaps.chunks(1_000) {
            let mut froms = Vec::with_capacity(gaps.len());
            for gap in gaps {
                froms.push(millis(match gap.from {
                    Some(from) => from,
                    None => self.latest_before(shard, gap).await?,
                }));
            }
            let of = |gap: &Gap| gap.workspace_id.map_or(uuid::Uuid::nil(), |id| id.as_uuid()).to_string();
            let query = self
                .client
                .query_raw(sql)
                .param("shard", shard)
                .param("edges", gaps.iter().map(|gap| gap.edge_id.as_str()).collect::<Vec<_>>())
                .param("boots", gaps.iter().map(|gap| gap.boot_epoch).collect::<Vec<_>>())
                .param("firsts", gaps.iter().map(|gap| gap.interval.0).collect::<Vec<_>>())
                .param("lasts", gaps.iter().map(|gap| gap.interval.1).collect::<Vec<_>>())
                .param("reasons", gaps.iter().map(|gap| gap.reason.as_str()).collect::<Vec<_>>())
                .param("workspaces", gaps.iter().map(of).collect::<Vec<_>>())
                .param("froms", froms)
                .param("tos", gaps.iter().map(|gap| millis(gap.to)).collect::<Vec<_>>());
            statement(query).await?;
        }
        Ok(())
    }

    /// When the last call before the gap began, as its edge numbered them.
    async fn latest_before(&self, shard: u16, gap: &Gap) -> Result<OffsetDateTime, StoreError> {
        let sql = "
            select toUnixTimestamp64Milli(max(occurred_at)) from keymeter.request_events
            where shard = {shard:UInt16} and edge_id = {edge:String} and boot_epoch = {boot:UInt32}
                and edge_seq < {first:UInt64}";
        let query = self.client.query_raw(sql).param("shard", shard).param("edge", gap.edge_id.as_str());
        let query = query.param("boot", gap.boot_epoch).param("first", gap.interval.0);
        let latest = from_millis(question(query.fetch_one::<i64>()).await?);
        Ok(latest.max(gap.to - time_rule::BEHIND_MAX).min(gap.to - Duration::MILLISECOND))
    }

    /// Forgets those of `settled` that were noted.
    ///
    /// # Errors
    /// If some may be left.
    pub async fn forget_gaps(&self, shard: u16, settled: &BTreeSet<Identity>) -> Result<(), StoreError> {
        let those = format!("first_seq = last_seq and {}", THOSE.replace("edge_seq", "first_seq"));
        for settled in chunks(settled) {
            let count = format!("select count() from keymeter.gaps where {those}");
            if question(self.of(&count, shard, &settled).fetch_one::<u64>()).await? > 0 {
                let delete = format!("alter table keymeter.gaps delete where {those}");
                let delete = self
                    .of(&delete, shard, &settled)
                    .with_setting("mutations_sync", self.layout.mutations_sync());
                statement(delete).await?;
            }
        }
        Ok(())
    }

    /// Those of `asked` that have a row.
    ///
    /// # Errors
    /// If ClickHouse cannot say.
    pub async fn present(&self, shard: u16, asked: &BTreeSet<Identity>) -> Result<Vec<Identity>, StoreError> {
        let sql = format!(
            "select distinct toString(edge_id) as edge, boot_epoch, edge_seq from keymeter.request_events where {THOSE}"
        );
        let mut present = Vec::new();
        for asked in chunks(asked) {
            let rows = self.of(&sql, shard, &asked).fetch_all::<Identity>();
            present.extend(long_question(rows).await?);
        }
        Ok(present)
    }

    /// Rids the gaps of `shard` of what they tell of an erased workspace.
    pub(super) async fn erase_gaps(
        &self,
        shard: u16,
        id: &str,
        up_to: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let those = "shard = {shard:UInt16} and workspace_id = {id:UUID}
                     and from_at < fromUnixTimestamp64Milli({up_to:Int64}, 'UTC')";
        let ask = |sql: String| {
            let query = self.client.query_raw(&sql).param("shard", shard).param("id", id);
            query.param("up_to", millis(up_to))
        };
        let count = ask(format!("select count() from keymeter.gaps where {those}"));
        if question(count.fetch_one::<u64>()).await? == 0 {
            return Ok(());
        }
        let epoch = "fromUnixTimestamp64Milli(toInt64(0), 'UTC')";
        let note = "insert into keymeter.gaps
            (shard, edge_id, boot_epoch, first_seq, last_seq, reason, from_at, to_at)
            select shard, edge_id, boot_epoch, first_seq, last_seq, 'erased'";
        let note = format!("{note}, {epoch}, {epoch} from keymeter.gaps where {those}");
        statement(ask(note)).await?;
        let delete = ask(format!("alter table keymeter.gaps delete where {those}"));
        statement(delete.with_setting("mutations_sync", self.layout.mutations_sync())).await
    }

    pub(super) fn of(&self, sql: &str, shard: u16, those: &[&Identity]) -> clickhouse::query::Query {
        self.client
            .query_raw(sql)
            .param("shard", shard)
            .param("edges", those.iter().map(|of| of.0.as_str()).collect::<Vec<_>>())
            .param("boots", those.iter().map(|of| of.1).collect::<Vec<_>>())
            .param("seqs", those.iter().map(|of| of.2).collect::<Vec<_>>())
    }
}

/// So many that their parameters stay below 128 KiB each.
fn chunks(identities: &BTreeSet<Identity>) -> impl Iterator<Item = Vec<&Identity>> {
    let all: Vec<&Identity> = identities.iter().collect();
    all.chunks(1_000).map(<[_]>::to_vec).collect::<Vec<_>>().into_iter()
}
