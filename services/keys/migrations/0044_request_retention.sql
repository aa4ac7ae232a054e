-- How long the single calls of a workspace are kept; ingest is told by the bucket `retentions`.

alter table workspaces
  add column request_retention_days integer not null default 90 check (request_retention_days between 37 and 400),
  add column request_retention_time timestamptz, -- when it was last changed; null is never, and need not be told
  add column request_retention_told boolean not null default true; -- whether the bucket was

create index request_retentions_to_tell on workspaces (workspace_id) where not request_retention_told;
