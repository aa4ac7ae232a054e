-- What has no row, and how far an audit can look back.

create table if not exists keymeter.gaps
(
    shard UInt16,
    edge_id String comment 'with boot_epoch, shard and the sequences the identity of the events',
    boot_epoch UInt32,
    first_seq UInt64,
    last_seq UInt64 comment 'included',
    reason Enum8('lost' = 1, 'dead_letter' = 2, 'erased' = 3, 'missing' = 4)
        comment 'dropped by the edge, unreadable, erased with its workspace, or a row that is gone and can not be had again',
    workspace_id UUID comment 'zeros if it is not known, or erased',
    from_at DateTime64(3, 'UTC') comment 'the calls began at this time or later',
    to_at DateTime64(3, 'UTC') comment 'the calls began before this time',
    noted_at DateTime64(3, 'UTC') default now64(3)
)
engine = ReplacingMergeTree(noted_at) -- the same on every server
-- Sequences that ingest has closed without a row: noted again after a crash, so read it with final.
order by (shard, edge_id, boot_epoch, first_seq, last_seq)
-- As long as any call can be asked for.
ttl toDateTime(noted_at) + interval 400 day
settings fsync_after_insert = 1, fsync_part_directory = 1;

-- What was closed at some moments: all that was closed since then has a row that is later, or a gap.
create table if not exists keymeter.audit_baselines
(
    shard UInt16,
    taken_at DateTime64(3, 'UTC'),
    closed_through_ms Int64 comment 'the closed_through_ms of the shard''s record at that moment',
    closed String comment 'its closed sequences, as JSON'
)
engine = MergeTree -- the same on every server
order by (shard, taken_at)
-- Nothing that was ingested later than this can have expired: rows live for 37 days at least, and a call counts under a
-- time of at most 35 days before it was ingested.
ttl toDateTime(taken_at) + interval 2 day;
