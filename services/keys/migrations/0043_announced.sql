-- How far each workspace's key events were announced on NATS. What happened before this table is not announced.
create table announced_key_events (
  workspace_id uuid primary key,
  sequence     bigint not null -- in the workspace's chain; everything up to it was announced or is no key event
);
insert into announced_key_events select workspace_id, sequence from workspace_chains;
