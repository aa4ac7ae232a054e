-- What lists of keys are found and sorted by, and what a repeated request and a reported leak need to know.

-- One row for each key from its creation on, so that lists sort by it. In its own table since it changes with
-- every use: the key's row and its indexes stay as they are.
alter table key_activity
  alter column last_used_time drop not null, -- null is never
  add column workspace_id  uuid references workspaces,
  add column address_count integer not null default 0; -- rows of the key in key_addresses
insert into key_activity (key_id, workspace_id) select key_id, workspace_id from keys
  on conflict (key_id) do update set workspace_id = excluded.workspace_id;
alter table key_activity alter column workspace_id set not null;
create index key_activity_by_use
  on key_activity (workspace_id, coalesce(last_used_time, '-infinity') desc, key_id desc);
create index key_activity_by_addresses on key_activity (workspace_id, key_id) where address_count >= 5;
create index key_addresses_by_time on key_addresses (last_used_time);

create index keys_living on keys (workspace_id, create_time desc, key_id desc) where delete_time is null;
create index keys_by_name on keys (workspace_id, lower(display_name) collate "C", key_id);
create index keys_by_expiry on keys (workspace_id, coalesce(expire_time, 'infinity'), key_id);
create index keys_disabled on keys (workspace_id, create_time desc, key_id desc)
  where disable_time is not null and delete_time is null;
create index keys_deleted on keys (workspace_id, create_time desc, key_id desc) where delete_time is not null;
create index keys_exposed on keys (workspace_id, create_time desc, key_id desc) where expose_time is not null;

-- The words by which a key is found, in lower case, each cut after 50 characters. ASCII characters that are
-- neither letters nor digits part them.
create function key_words(display_name text, description text, start text) returns tsvector
  language sql immutable parallel safe cost 10000 -- some 30 us; so that the index is used where it can be
  return (
    select array_to_tsvector(coalesce(array_agg(distinct left(word, 50)), '{}'))
    from regexp_split_to_table(
      lower(display_name || ' ' || description || ' ' || start),
      '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u007f]+') as word
    where word <> ''
  );
create index keys_by_words on keys using gin (key_words(display_name, description, start));

alter table secrets add column expose_time timestamptz; -- null is not reported as leaked
create index secrets_by_retirement on secrets (retire_time, key_id) where retire_time is not null;
-- Copies that the sweep has to destroy.
create index secrets_retiring on secrets (retire_time) where retire_time is not null and sealed is not null;

-- A rotation may be asked for again as well.
alter table idempotency_keys
  add column key_version bigint not null default 1; -- of the event that made the secret asked for

-- Whether a key is switched off at once when a leak of one of its secrets is reported.
alter table workspaces add column disable_exposed_keys boolean not null default false;

-- For the limit on reveals, which looks at the last minutes of one person.
create index audit_entries_by_actor on audit_entries (workspace_id, actor, entry_time);
