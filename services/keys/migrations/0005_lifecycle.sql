-- What a key may be told, several secrets for one key, and what its use shows.

alter table key_events drop constraint key_events_type_check;
alter table key_events add constraint key_events_type_check check (type in
  ('created', 'updated', 'disabled', 'enabled', 'rotated', 'secret_retired', 'exposed', 'deleted'));

alter table keys
  add column tags             jsonb not null default '{}', -- name -> value
  add column owner            text not null default '', -- acc_… or svc_…; empty for keys made before there were owners
  add column scopes           text[] not null default '{}',
  add column allowed_networks text[] not null default '{}', -- CIDR notation; empty is any
  add column rate_limits      jsonb not null default '[]', -- [{"name", "requests", "window_s"}]
  add column disable_time     timestamptz, -- null is not disabled
  add column expose_time      timestamptz; -- null is not reported as leaked
create index keys_by_owner on keys (workspace_id, owner);
create index keys_by_tags on keys using gin (tags);

alter table secrets
  add column start       text not null default '', -- first characters, for lists
  add column create_time timestamptz not null default now(),
  add column retire_time timestamptz; -- when it stops working since another took its place; null is not retired
update secrets s set start = k.start, create_time = k.create_time from keys k where k.key_id = s.key_id;
alter table secrets alter column start drop default, alter column create_time drop default;

-- From the usage stream, so no part of the projection.
create table secret_activity (
  secret_id      uuid primary key references secrets,
  last_used_time timestamptz not null
);

-- From where keys were used lately; at most 64 rows a key.
create table key_addresses (
  key_id         uuid not null references keys,
  client_print   bytea not null, -- first 8 bytes of SHA-256 of the address
  last_used_time timestamptz not null,
  primary key (key_id, client_print)
);
