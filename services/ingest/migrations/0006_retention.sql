-- How long rows live: not before their day is in the archive, then as long as their workspace has chosen.

-- What keys has told. Kept here, since NATS may forget it, and rows that have expired do not come back.
create table if not exists keymeter.retentions
(
    workspace_id UUID comment 'the tenant; one without a row has 90 days',
    days UInt16 comment 'whole days after the day of the call, 37 to 400',
    chosen_at DateTime64(3, 'UTC') comment 'when the workspace chose so, by the clock of keys'
)
engine = ReplacingMergeTree(chosen_at) -- the same on every server
-- One row a workspace, the latest choice counts: read it with final.
order by workspace_id
settings fsync_after_insert = 1, fsync_part_directory = 1;

alter table keymeter.request_events
    add column if not exists expires_at DateTime('UTC') default toDateTime(0, 'UTC')
        comment 'when the row goes; 1970-01-01 while it stays, which is until its day is in daily_archive';

-- A time of 0 never comes for ClickHouse.
alter table keymeter.request_events modify ttl expires_at;
