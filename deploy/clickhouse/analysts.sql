-- What all analysts of workspaces have in common: a role that reads views, and through them the calls and totals of its
-- user's workspace, and nothing else. `ingest analyst create` runs this and then analyst.sql. A statement ends with a semicolon at the end of
-- its line. `{on_cluster}` is empty on one server; on a cluster, what names keymeter.request_events or daily_archive is
-- said for the `_local` one too.

-- Made once; of what is there nothing is changed, so that you may change it. Grants are added each time.
create role if not exists keymeter_analyst{on_cluster};

-- Nobody's: it cannot sign in. The views below read with its rights, and its row policies go by the name of who asks, which is
-- what currentUser() says in a view. An analyst has no right to a table: with one, mergeTreeIndex() shows the primary keys
-- of all workspaces, whatever the policy, and `_part_offset` and system.tables count their rows.
create user if not exists keymeter_views{on_cluster} host none;

-- Before any right to read: who has no policy on a table reads all of it, as ingest and query do. For analysts too, in case
-- somebody lets them read a table.
create row policy if not exists keymeter_own_rows{on_cluster} on keymeter.request_events
    for select using workspace_id = toUUIDOrZero(substring(currentUser(), 9)) as permissive to keymeter_analyst;
create row policy if not exists keymeter_own_rows{on_cluster} on keymeter.daily_archive
    for select using workspace_id = toUUIDOrZero(substring(currentUser(), 9)) as permissive to keymeter_analyst;
-- Whoever else may read a view reads all of it.
create row policy if not exists keymeter_rows_of_views{on_cluster} on keymeter.request_events
    for select using not startsWith(currentUser(), 'analyst_') or workspace_id = toUUIDOrZero(substring(currentUser(), 9))
    as permissive to keymeter_views;
create row policy if not exists keymeter_rows_of_views{on_cluster} on keymeter.daily_archive
    for select using not startsWith(currentUser(), 'analyst_') or workspace_id = toUUIDOrZero(substring(currentUser(), 9))
    as permissive to keymeter_views;

-- If the configuration of ClickHouse lacks `select_from_system_db_requires_grant`, everybody reads tables of `system` that count the
-- rows of all workspaces. So nothing of them, but what is named here, which clients ask for.
create row policy if not exists keymeter_nothing{on_cluster} on system.*
    for select using 0 as permissive to keymeter_analyst;
create row policy if not exists keymeter_clients{on_cluster} on system.one, system.numbers, system.numbers_mt,
        system.zeros, system.zeros_mt, system.functions, system.table_functions, system.table_engines, system.formats,
        system.data_type_families, system.aggregate_function_combinators, system.collations, system.keywords,
        system.time_zones, system.build_options, system.settings, system.databases, system.tables, system.columns
    for select using 1 as permissive to keymeter_analyst;
create row policy if not exists keymeter_clients{on_cluster} on system.processes
    for select using user = currentUser() as permissive to keymeter_analyst;

-- 2 lets clients change settings, as Grafana does, but none of these, nor readonly itself. `min 1`, since 0 has no end. The
-- caches outlive a query and know nothing of policies.
create settings profile if not exists keymeter_analyst{on_cluster}
    settings readonly = 2,
        max_execution_time = 60 const,
        max_memory_usage = 2147483648 const,
        max_memory_usage_for_user = 4294967296 const,
        max_temporary_data_on_disk_size_for_user = 10737418240 const,
        max_threads = 2 max 2,
        max_result_rows = 10000000 min 1 max 10000000,
        max_concurrent_queries_for_user = 4 const,
        priority = 10 const,
        query_cache_share_between_users = 0 const,
        use_query_condition_cache = 0 const,
        log_queries = 1 const
    to keymeter_analyst;

create quota if not exists keymeter_analyst{on_cluster} keyed by user_name
    for interval 1 hour max queries = 2000, read_rows = 20000000000, execution_time = 900
    to keymeter_analyst;

grant{on_cluster} select on keymeter.request_events to keymeter_views;
grant{on_cluster} select on keymeter.daily_archive to keymeter_views;
grant{on_cluster} select on keymeter.archive_passes to keymeter_views;
grant{on_cluster} select on keymeter.watermarks to keymeter_views;
grant{on_cluster} select on keymeter.daily_totals to keymeter_views;

alter table keymeter.requests{on_cluster} modify definer = keymeter_views sql security definer;
alter table keymeter.requests_by_quarter_hour{on_cluster} modify definer = keymeter_views sql security definer;
alter table keymeter.calls_by_day{on_cluster} modify definer = keymeter_views sql security definer;
alter table keymeter.daily_totals{on_cluster} modify definer = keymeter_views sql security definer;
alter table keymeter.complete_up_to{on_cluster} modify definer = keymeter_views sql security definer;

grant{on_cluster} select on keymeter.requests to keymeter_analyst;
grant{on_cluster} select on keymeter.requests_by_quarter_hour to keymeter_analyst;
grant{on_cluster} select on keymeter.calls_by_day to keymeter_analyst;
grant{on_cluster} select on keymeter.daily_totals to keymeter_analyst;
grant{on_cluster} select on keymeter.complete_up_to to keymeter_analyst;
