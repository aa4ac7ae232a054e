-- Tenants and the people in them.

create table workspaces (
  workspace_id uuid primary key, -- UUIDv7
  display_name text not null,
  create_time  timestamptz not null
);

-- One key per workspace, under which copies of its secrets are sealed.
create table workspace_data_keys (
  workspace_id uuid primary key references workspaces,
  wrapped_key  bytea not null, -- 32 bytes of AES-256 key, sealed under the key-encryption key
  create_time  timestamptz not null
);

create table accounts (
  account_id    uuid primary key,
  email         text not null unique check (email = lower(email)),
  password_hash text not null, -- argon2id, PHC string with its parameters
  create_time   timestamptz not null
);

create table memberships (
  account_id   uuid not null references accounts,
  workspace_id uuid not null references workspaces,
  role         text not null check (role in ('admin')),
  create_time  timestamptz not null,
  primary key (account_id, workspace_id)
);
create index memberships_by_workspace on memberships (workspace_id);
