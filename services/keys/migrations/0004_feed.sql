-- From the keys to the edges. A row waits in the outbox until the bucket has it, then goes: what is committed
-- late is only relayed late, since nothing but a row's presence says that it is still to be relayed.

create table key_outbox (
  outbox_id    bigint generated always as identity primary key,
  secret_id    uuid not null references secrets,
  feed_version bigint -- given by the relay in the order in which rows became visible; null until then
);

-- Where the secret's newest entry stands in the feed, for a bucket that must be filled again.
create table secret_feed_versions (
  secret_id    uuid primary key references secrets,
  feed_version bigint not null
);
create index secret_feed_versions_by_version on secret_feed_versions (feed_version);

-- One row.
create table feed_state (
  only_row        boolean primary key default true check (only_row),
  feed_version    bigint not null, -- the highest that was given
  bucket_created  timestamptz, -- the bucket that the relay last wrote; null before the first time
  bucket_sequence bigint not null -- how far it was written: a bucket that is behind this has forgotten
);
insert into feed_state (feed_version, bucket_sequence) values (0, 0);
