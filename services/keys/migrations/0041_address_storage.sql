-- What is kept of the addresses that a workspace's keys are called from.

alter table workspaces
  add column address_storage text not null default 'whole' check (address_storage in ('whole', 'truncated', 'none'));
