-- Settings of a workspace, its suspension, and its end.

alter table workspaces
  add column audit_retention_days integer not null default 400 check (audit_retention_days between 30 and 3650),
  add column suspend_time         timestamptz, -- edges refuse its keys; null is not suspended
  add column delete_time          timestamptz; -- the row stays as a tombstone; null is not deleted
alter table workspaces add column if not exists disable_exposed_keys boolean not null default false;
alter table workspaces add column if not exists keep_copies boolean not null default true;

-- What deletes the keys of a deleted workspace one by one looks here.
create index live_keys_by_workspace on keys (workspace_id) where delete_time is null;

-- Workspaces that were erased, for good: the bucket that tells the others is filled from here.
create table erasures (
  workspace_id uuid primary key references workspaces,
  up_to        timestamptz not null, -- events that began before it are to be gone
  actor        text not null, -- who deleted the workspace; deletes its keys too
  relayed      boolean not null default false -- whether the bucket was told
);
create index erasures_to_relay on erasures (workspace_id) where not relayed;
