-- Who is in a workspace, what they may do, and who is asked to come in.

alter table memberships drop constraint memberships_role_check;
-- Until now a workspace had the one who made it, and nobody else.
update memberships set role = 'owner';
alter table memberships
  add constraint memberships_role_check check (role in ('owner', 'admin', 'member', 'viewer', 'log_viewer'));

create table invitations (
  invitation_id uuid primary key,
  workspace_id  uuid not null references workspaces,
  token_hash    bytea not null unique, -- SHA-256 of the token in the link
  email         text not null check (email = lower(email)),
  role          text not null check (role in ('owner', 'admin', 'member', 'viewer', 'log_viewer')),
  inviter       text not null, -- acc_…; invitations go with the member that made them
  create_time   timestamptz not null,
  expire_time   timestamptz not null,
  unique (workspace_id, email)
);
create index invitations_by_expire_time on invitations (expire_time);

alter table sessions add column authenticate_time timestamptz; -- when the password was last given
update sessions set authenticate_time = create_time;
alter table sessions alter column authenticate_time set not null;

alter table service_tokens
  add column start         text not null default '', -- first characters, for lists
  add column last_used_day date; -- null is never
create index service_tokens_by_workspace on service_tokens (workspace_id, create_time desc);
