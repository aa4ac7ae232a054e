-- Totals of whole days (UTC), which outlive rows. PROTOCOL.md says why they are exact.

create table if not exists keymeter.daily_archive
(
    workspace_id UUID comment 'the tenant',
    key_id UUID comment 'the key that the calls were made with',
    day Date comment 'UTC day of occurred_at',
    method LowCardinality(String) comment 'as in request_events',
    route LowCardinality(String) comment 'as in request_events',
    status_code UInt16 comment 'as in request_events',
    outcome Enum8('completed' = 1, 'failed' = 2, 'rate_limited' = 3) comment 'as in request_events',
    origin Enum8('edge' = 1, 'upstream' = 2) comment 'as in request_events',
    denial LowCardinality(String) comment 'as in request_events',
    calls Int64 comment 'how many calls; add it up, since late calls are rows of their own',
    latency_us Int64 comment 'sum of latency_us',
    request_bytes Int64 comment 'sum of request_bytes',
    response_bytes Int64 comment 'sum of response_bytes',
    last_occurred_at DateTime64(3, 'UTC') comment 'start of the latest of the calls: take the maximum',
    shard UInt16 comment 'whose rows these are totals of',
    writer_epoch UInt32 comment 'the ownership of the shard that wrote it, with pass the identity of its pass',
    pass UInt32 comment 'counts the passes of an epoch; only passes that are in archive_passes count',

    constraint writer_is_current
        check writer_epoch >= dictGet('keymeter.writer_fence_now', 'epochs', toUInt64(0))[shard + 1]
)
engine = MergeTree -- spread by cityHash64(key_id)
-- A year of days is few enough partitions, and no question reads less than a month.
partition by toYYYYMM(day)
-- As in request_events: every question names its workspace, most a key.
order by (workspace_id, key_id, day, method, route, status_code)
settings fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- One row a pass, written after all of its totals are on disk: the pass counts from then on.
create table if not exists keymeter.archive_passes
(
    shard UInt16,
    writer_epoch UInt32,
    pass UInt32,
    closed_day Date comment 'every day of the shard up to this one is archived',
    through DateTime64(3, 'UTC') comment 'with every row of those days whose ingested_at is not later',
    noted_at DateTime64(3, 'UTC') default now64(3),

    constraint writer_is_current
        check writer_epoch >= dictGet('keymeter.writer_fence_now', 'epochs', toUInt64(0))[shard + 1]
)
engine = MergeTree -- the same on every server
order by (shard, writer_epoch, pass)
settings fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- For readers: what counts of the archive. Days up to min(closed_day) over shards are read from here, later ones
-- from request_events.
create view if not exists keymeter.daily_totals as
select
    workspace_id, key_id, day, method, route, status_code, outcome, origin, denial,
    calls, latency_us, request_bytes, response_bytes, last_occurred_at, shard
from keymeter.daily_archive
where (shard, writer_epoch, pass) in (select shard, writer_epoch, pass from keymeter.archive_passes);
