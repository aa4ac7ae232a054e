-- The users of the services themselves, on one server. `{…}` are for you to fill in: SHA-256 hashes in hexadecimal, as of
-- printf %s "$password" | sha256sum. Run it as a user with access_management. Their names and passwords go into
-- KEYMETER_INGEST_CLICKHOUSE_USER, KEYMETER_QUERY_CLICKHOUSE_USER and the _PASSWORD of each.

-- Ingest owns the schema and every row.
create user if not exists keymeter_ingest identified with sha256_hash by '{ingest_password_hash}';
grant create database, create table, create view, create dictionary, select, insert, alter, dictGet, show on keymeter.* to keymeter_ingest;
-- A table says its engine, and ClickHouse asks who may use it.
grant table engine on MergeTree to keymeter_ingest;
grant table engine on ReplacingMergeTree to keymeter_ingest;
-- A takeover waits for inserts that an older ingest began as the same user, and ends them. Expiry waits for changes of rows.
grant kill query on *.* to keymeter_ingest;
grant select on system.processes to keymeter_ingest;
grant select on system.mutations to keymeter_ingest;
grant select on system.tables to keymeter_ingest;
-- On a cluster also: grant cluster, remote on *.* and the table engines Replicated… and Distributed.

-- For `ingest analyst` too. Give them to an administrator's user instead, if ingest itself is not to make users.
grant create user, alter user, drop user, create role, role admin, create row policy, create settings profile,
    create quota, show users on *.* to keymeter_ingest;
grant set definer on keymeter_views to keymeter_ingest;
grant select on keymeter.* to keymeter_ingest with grant option;

-- Query only reads. It says `readonly` and its limits with each question, so its profile must not be read-only already.
create user if not exists keymeter_query identified with sha256_hash by '{query_password_hash}';
grant select on keymeter.request_events to keymeter_query;
grant select on keymeter.daily_archive to keymeter_query;
grant select on keymeter.archive_passes to keymeter_query;
grant select on keymeter.daily_totals to keymeter_query;
grant select on keymeter.watermarks to keymeter_query;
grant select on keymeter.gaps to keymeter_query;
grant select on keymeter.retentions to keymeter_query;

-- The fence is a dictionary that reads its table as the user `default` without a password: leave it there, and let it in from this
-- machine alone (`host local`, where it is defined).
