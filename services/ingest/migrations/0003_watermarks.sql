-- How far each shard is complete.

create table if not exists keymeter.watermarks
(
    shard UInt16,
    complete_up_to DateTime64(3, 'UTC') comment 'every call that ended earlier is in request_events, but for the edges below, 1970-01-01 while nothing is known',
    unaccounted Array(Tuple(edge_id String, since DateTime64(3, 'UTC'))) comment 'silent edges, whose calls since then may be missing',
    updated_at DateTime64(3, 'UTC')
)
engine = ReplacingMergeTree(updated_at) -- the same on every server
-- One row a shard, the newest one counts: read it with final.
order by shard;
