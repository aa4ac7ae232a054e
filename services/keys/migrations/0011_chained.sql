-- Every entry is in its chain: its place there is its identity.

alter table key_events
  drop column event_id,
  alter column sequence set not null,
  alter column content_hash set not null,
  alter column entry_hash set not null,
  add primary key (workspace_id, sequence);

alter table audit_entries
  drop column audit_entry_id,
  alter column sequence set not null,
  alter column content_hash set not null,
  alter column entry_hash set not null,
  add primary key (workspace_id, sequence);
