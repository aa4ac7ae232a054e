-- A workspace's own user of ClickHouse, for SQL about its calls: read-only, only its rows, within a quota. A statement
-- ends with a semicolon at the end of its line. `{user}` is analyst_<workspace id as a UUID>; `{on_cluster}` is empty on
-- one server, and on a cluster what names keymeter.request_events or daily_archive is said for the `_local` one too.

-- What all analysts have in common. Made once; nothing of it is changed if it is there, so that you may change it.
create role if not exists keymeter_analyst{on_cluster};

-- Before any right to read: who has no policy on a table reads all of it, as ingest and query do.
create row policy if not exists keymeter_own_rows{on_cluster} on keymeter.request_events
    for select using workspace_id = toUUIDOrZero(substring(currentUser(), 9)) as permissive to keymeter_analyst;
create row policy if not exists keymeter_own_rows{on_cluster} on keymeter.daily_archive
    for select using workspace_id = toUUIDOrZero(substring(currentUser(), 9)) as permissive to keymeter_analyst;

-- 2 lets clients change settings, as Grafana does, but none of these, nor readonly itself.
create settings profile if not exists keymeter_analyst{on_cluster}
    settings readonly = 2,
        max_execution_time = 60 const,
        max_memory_usage = 2147483648 const,
        max_threads = 2 max 2,
        max_result_rows = 10000000 max 10000000,
        max_concurrent_queries_for_user = 4 const
    to keymeter_analyst;

create quota if not exists keymeter_analyst{on_cluster} keyed by user_name
    for interval 1 hour max queries = 2000, read_rows = 20000000000, execution_time = 900
    to keymeter_analyst;

-- The view reads the two tables below it with the rights of who asks.
grant{on_cluster} select on keymeter.request_events to keymeter_analyst;
grant{on_cluster} select on keymeter.daily_archive to keymeter_analyst;
grant{on_cluster} select on keymeter.archive_passes to keymeter_analyst;
grant{on_cluster} select on keymeter.daily_totals to keymeter_analyst;
grant{on_cluster} select on keymeter.watermarks to keymeter_analyst;

-- The password itself never reaches ClickHouse, nor its logs.
create user `{user}`{on_cluster} identified with sha256_hash by '{password_hash}' default role none;
grant{on_cluster} keymeter_analyst to `{user}`;
alter user `{user}`{on_cluster} default role keymeter_analyst;
