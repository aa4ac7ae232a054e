-- Every key event and audit entry of a workspace has its place in one chain; see LEDGER.md. Rows that are there
-- already get theirs from `keys migrate`, between this step and the next.

alter table key_events
  add column before        jsonb, -- what the changed fields were; null for the first event
  add column person_key_id uuid, -- the key in person_keys that opens personal; no reference, since keys are destroyed
  add column personal      bytea, -- what tells about the actor beyond their id, sealed; null for services and commands
  add column sequence      bigint check (sequence > 0), -- 1, 2, 3 … for each workspace, over both tables
  add column content_hash  bytea check (length(content_hash) = 32), -- SHA-256
  add column entry_hash    bytea check (length(entry_hash) = 32); -- SHA-256 of the previous one, sequence and content_hash

alter table audit_entries
  add column before        jsonb, -- null if there is nothing to compare
  add column after         jsonb,
  add column person_key_id uuid,
  add column personal      bytea,
  add column sequence      bigint check (sequence > 0),
  add column content_hash  bytea check (length(content_hash) = 32),
  add column entry_hash    bytea check (length(entry_hash) = 32);

-- The end of each chain.
create table workspace_chains (
  workspace_id uuid primary key references workspaces,
  sequence     bigint not null, -- of the newest entry
  entry_hash   bytea not null, -- of the newest entry
  kid          text not null, -- of the signing key
  signature    bytea not null -- Ed25519 over workspace, sequence and entry_hash
);

-- What personal fields are sealed under. An erased person has none.
create table person_keys (
  person_key_id uuid primary key,
  account_id    uuid not null references accounts,
  kek_id        text not null, -- the key-encryption key that wraps it
  wrapped_key   bytea not null, -- 32 bytes of AES-256 key, wrapped
  create_time   timestamptz not null
);
create index person_keys_by_account on person_keys (account_id, create_time desc);
alter table accounts add column erase_time timestamptz; -- null is not erased

-- Which key-encryption key wraps it; empty in rows from before there could be several.
alter table workspace_data_keys add column kek_id text not null default '';
alter table signing_keys add column kek_id text not null default '';
alter table workspace_data_keys alter column kek_id drop default;
alter table signing_keys alter column kek_id drop default;

-- Whether sealed copies of secrets are kept. Without them there is no data key either.
alter table workspaces add column if not exists keep_copies boolean not null default true;
