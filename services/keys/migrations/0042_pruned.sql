-- An audit trail reaches back as far as its workspace keeps it. Of an entry from before that its place in the chain
-- stays, so that the chain can be checked from its start.

create table pruned_entries (
  workspace_id uuid not null,
  sequence     bigint not null,
  content_hash bytea not null check (length(content_hash) = 32), -- of what was there
  entry_hash   bytea not null check (length(entry_hash) = 32),
  primary key (workspace_id, sequence)
);

-- The service may not delete entries; this takes out what is over its time by the database's clock, and nothing else.
create function prune_audit_entries(of_workspace uuid, up_to bigint) returns bigint
language sql security definer set search_path from current as $$
  with pruned as (
    delete from audit_entries e using workspaces w
    where e.workspace_id = of_workspace and w.workspace_id = of_workspace and e.sequence <= up_to
      and e.entry_time < now() - make_interval(days => w.audit_retention_days)
    returning e.workspace_id, e.sequence, e.content_hash, e.entry_hash
  ), kept as (
    insert into pruned_entries select * from pruned returning 1
  )
  select count(*) from kept
$$;
revoke all on function prune_audit_entries from public;
