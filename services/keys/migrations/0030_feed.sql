-- The signed feed: what its heads say, its snapshot, and tombstones that leave it.

alter table feed_state
  add column relayed_version   bigint not null default 0, -- the highest feed version that the bucket had, gone ones too
  add column secrets           bigint not null default 0, -- rows of secret_feed_versions, which the bucket has
  add column filling           boolean not null default false, -- the bucket forgot, and is not yet whole again
  add column fills             bigint not null default 0, -- how often that happened
  add column snapshot_sequence bigint, -- every part of the snapshot holds the bucket up to here; null is no snapshot
  add column snapshot_floor    bigint not null default 0; -- older parts may hold what has left the bucket
update feed_state set (secrets, relayed_version) =
  (select count(*), coalesce(max(feed_version), 0) from secret_feed_versions);

create index key_outbox_unnumbered on key_outbox (outbox_id) where feed_version is null;
create index key_outbox_by_version on key_outbox (feed_version) where feed_version is not null;
create index key_outbox_by_secret on key_outbox (secret_id);
create index keys_by_delete_time on keys (delete_time) where delete_time is not null;

-- Tombstones past their time, until the bucket has them no more.
create table feed_removals (
  secret_hash     bytea primary key,
  bucket_sequence bigint not null -- a snapshot must be at least so new before the bucket may lose it
);
