//! How complete the tables are, for all workspaces at once: small, and read again every second.

use super::Statement;

/// How far each shard is complete; one row a shard.
const WATERMARKS: &str = "\
select
  toUnixTimestamp64Milli(complete_up_to) as complete_up_to_ms,
  arrayMap(edge -> edge.1, unaccounted) as edge_ids,
  arrayMap(edge -> toUnixTimestamp64Milli(edge.2), unaccounted) as since_ms
from keymeter.watermarks final";

/// The last day that every shard has archived, in days since 1970; -1 while one has archived none.
const ARCHIVE: &str = "\
select if(count() = 0, -1, min(closed_day)) as closed_day
from (
select shard, max(closed_day) as closed_day
from (
select shard, toInt64(toUInt16(closed_day)) as closed_day from keymeter.archive_passes
union all
select shard, toInt64(-1) as closed_day from keymeter.watermarks
)
group by shard
)";

const RETENTIONS: &str = "\
select workspace_id, days, toUnixTimestamp64Milli(chosen_at) as chosen_at_ms from keymeter.retentions final";

/// Another answer means other gaps.
const GAPS_VERSION: &str = "\
select count() as gap_count, toUnixTimestamp64Milli(max(noted_at)) as noted_at_ms from keymeter.gaps";

/// Calls that are known to be missing, in about an hour of one edge. Of those of which it is not known whose they were
/// no number is told, since it may be another workspace's.
const GAPS: &str = "\
select
  workspace_id,
  edge_id,
  toString(reason) as reason_name,
  toUnixTimestamp64Milli(min(from_at)) as from_ms,
  toUnixTimestamp64Milli(max(to_at)) as to_ms,
  if(workspace_id = toUUID('00000000-0000-0000-0000-000000000000'), 0, sum(toUInt64(last_seq - first_seq + 1)))
    as call_count
from keymeter.gaps final
where reason != 'erased'
group by workspace_id, edge_id, reason, toStartOfHour(from_at)
order by from_ms desc, edge_id, reason_name
limit 1000 by workspace_id";

/// Answers, without rows, only if the schema is there.
const PROBE: &str = "\
select count() as tables
from (select 1 from keymeter.request_events limit 0) as events
cross join (select 1 from keymeter.watermarks limit 0) as watermarks
cross join (select 1 from keymeter.daily_totals limit 0) as archive
cross join (select 1 from keymeter.gaps limit 0) as gaps";

/// How far each shard is complete.
pub(crate) fn watermarks() -> Statement {
    statement("watermarks", WATERMARKS)
}

/// How far every shard is archived.
pub(crate) fn archive() -> Statement {
    statement("archive", ARCHIVE)
}

/// How long workspaces keep their rows, where they have chosen.
pub(crate) fn retentions() -> Statement {
    statement("retentions", RETENTIONS)
}

/// What changes with the gaps.
pub(crate) fn gaps_version() -> Statement {
    statement("gaps_version", GAPS_VERSION)
}

/// The newest 1,000 gaps of each workspace.
pub(crate) fn gaps() -> Statement {
    statement("gaps", GAPS)
}

/// Fails unless every table that is read is there.
pub(crate) fn probe() -> Statement {
    statement("probe", PROBE)
}

fn statement(name: &'static str, text: &str) -> Statement {
    Statement { name, text: text.to_owned(), params: Vec::new() }
}
