-- Which writers may still write. In all of these files a statement ends with a semicolon at the end of its line
-- and can run twice, since a crash may come between it and the note that it ran. What stands behind an engine says
-- how the table lies on a cluster (src/layout.rs); one server does not care.

create database if not exists keymeter;

-- One row a takeover: from then on only writers of this epoch or a later one may write to the shard.
create table if not exists keymeter.writer_fence
(
    shard UInt16,
    epoch UInt32,
    raised_at DateTime64(3, 'UTC') default now64(3)
)
engine = ReplacingMergeTree(epoch) -- the same on every server
order by shard
settings fsync_after_insert = 1, fsync_part_directory = 1;

-- The fence as one row that is read anew by every insert: epochs[shard + 1], 0 where no takeover ever was. An
-- array under one constant key, since a key taken from the rows would be looked up once for each row.
create dictionary if not exists keymeter.writer_fence_now
(
    id UInt64,
    epochs Array(UInt32)
)
primary key id
source(clickhouse(query '
    select toUInt64(0) as id, groupArrayInsertAt(0)(epoch, shard) as epochs
    from (select shard, max(epoch) as epoch from keymeter.writer_fence group by shard)
'))
layout(direct());
