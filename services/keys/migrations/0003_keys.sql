-- Keys: what happened to them, and what they are because of it.

-- The truth. Rows are only ever added.
create table key_events (
  event_id     bigint generated always as identity primary key,
  workspace_id uuid not null references workspaces,
  key_id       uuid not null,
  version      bigint not null check (version > 0), -- 1, 2, 3 … for each key
  type         text not null check (type in ('created', 'updated', 'deleted')),
  payload      jsonb not null, -- its form depends on the type
  actor        text not null, -- acc_… or svc_…
  from_address text, -- null if not over the network
  event_time   timestamptz not null,
  unique (key_id, version)
);
create index key_events_by_workspace on key_events (workspace_id, event_id);

-- The projection, written in the transaction of the event; a replay of key_events gives the same.
create table keys (
  key_id       uuid primary key,
  workspace_id uuid not null references workspaces,
  version      bigint not null, -- of the newest event
  display_name text not null,
  description  text not null,
  environment  text not null check (environment in ('live', 'test')),
  start        text not null, -- first characters of the secret, for lists
  create_time  timestamptz not null,
  update_time  timestamptz not null,
  expire_time  timestamptz, -- null is never
  delete_time  timestamptz  -- null is not deleted
);
create index keys_by_workspace on keys (workspace_id, create_time desc, key_id desc);

-- A key has one secret until it is rotated. Rows stay when the key is deleted: hash -> key must be known.
create table secrets (
  secret_id   uuid primary key,
  key_id      uuid not null references keys,
  key_version bigint not null, -- of the event that made it; bound into the seal
  secret_hash bytea not null unique check (length(secret_hash) = 32), -- SHA-256
  sealed      bytea -- the copy for the clipboard, under the workspace's data key; null if there is none
);
create index secrets_by_key on secrets (key_id);

-- From the usage stream, so no part of the projection.
create table key_activity (
  key_id         uuid primary key references keys,
  last_used_time timestamptz not null
);

-- Creations of the last 24 hours that may be asked for again.
create table idempotency_keys (
  workspace_id    uuid not null references workspaces,
  actor           text not null,
  idempotency_key text not null,
  request_hash    bytea not null, -- SHA-256 of what was asked
  key_id          uuid not null,
  create_time     timestamptz not null,
  primary key (workspace_id, actor, idempotency_key)
);
create index idempotency_keys_by_time on idempotency_keys (create_time);
