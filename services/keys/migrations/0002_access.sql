-- What people and services prove themselves with. Tokens are stored as SHA-256 only: they are random, so no
-- slow hash is needed.

create table sessions (
  token_hash     bytea primary key, -- SHA-256 of the session token
  account_id     uuid not null references accounts,
  create_time    timestamptz not null,
  last_used_time timestamptz not null, -- ends 12 h later
  expire_time    timestamptz not null  -- ends then in any case
);
create index sessions_by_expire_time on sessions (expire_time);

create table service_tokens (
  service_token_id uuid primary key,
  token_hash       bytea not null unique, -- SHA-256 of the token
  workspace_id     uuid not null references workspaces,
  display_name     text not null,
  scopes           text[] not null default '{}', -- empty is all
  create_time      timestamptz not null,
  expire_time      timestamptz, -- null is never
  revoke_time      timestamptz  -- null is not revoked
);

create table signing_keys (
  kid                text primary key,
  public_key         bytea not null, -- Ed25519, 32 bytes
  sealed_private_key bytea not null, -- PKCS#8, sealed under the key-encryption key
  create_time        timestamptz not null
);

-- Attempts to sign in that failed or are still running, of the last minutes.
create table sign_in_attempts (
  attempt_id   bigint generated always as identity primary key,
  origin_hash  bytea not null, -- SHA-256 of e-mail and address: people mistype passwords into the e-mail field
  attempt_time timestamptz not null
);
create index sign_in_attempts_by_origin on sign_in_attempts (origin_hash, attempt_time);
create index sign_in_attempts_by_time on sign_in_attempts (attempt_time);

-- Who did what, where it is no change of a key.
create table audit_entries (
  audit_entry_id bigint generated always as identity primary key,
  workspace_id   uuid not null references workspaces,
  action         text not null, -- reveal_key, create_workspace …
  resource       text not null, -- resource name
  actor          text not null, -- acc_…, svc_… or the name of a command
  from_address   text, -- null if not over the network
  entry_time     timestamptz not null
);
create index audit_entries_by_workspace on audit_entries (workspace_id, audit_entry_id);
