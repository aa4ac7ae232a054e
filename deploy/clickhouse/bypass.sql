-- What an analyst may try to see more than the own rows. The test `bypass` of ingest and verify-analysts both run it, as the
-- analyst of one workspace while rows of another are there (rows.sql). A line `-- <kind>: <name>` begins each:
--   own      answered, and exactly as if there were no other workspace; by the policies alone as well
--   hidden   the same, but the policies alone would show something
--   refused  refused by the rights or the profile; the policies alone would hold too
--   leaks    refused by the rights; the policies alone would NOT hold
--   outside  refused by the rights; reaches what has no policies: files, other servers, programs
--   shown    answered, and tells something of how much the others have, never what: docs/sql.md lists it
-- `{other}` is the other workspace's UUID, `{them}` the word that all its rows have.

-- own: count of everything
select count() from keymeter.requests;
-- own: count by a condition that is always true
select countIf(1), countIf(key_uuid = '{other}') from keymeter.requests;
-- own: minimum and maximum from the partition
select min(occurred_at), max(occurred_at) from keymeter.requests settings optimize_use_implicit_projections = 1;
-- own: no projections
select count(), min(occurred_at) from keymeter.requests settings optimize_use_projections = 0;
-- own: the preferred projection
select key_uuid, count(), max(latency_ms) from keymeter.requests group by key_uuid settings preferred_optimize_projection_name = 'totals_by_quarter_hour';
-- own: distinct values
select distinct key_uuid, route, user_agent, region from keymeter.requests order by all;
-- own: distinct low cardinality by dictionary
select groupUniqArray(route) from keymeter.requests;
-- own: the other workspace by name
select count(), any(path) from keymeter.requests where key_uuid = '{other}';
-- own: everything or the other workspace
select count() from keymeter.requests where key_uuid = '{other}' or 1;
-- own: an error for each foreign row
select count() from keymeter.requests where throwIf(key_uuid = '{other}') = 0;
-- own: an error for a foreign row in the index's condition
select count() from keymeter.requests where intDiv(1, key_uuid != '{other}') = 1;
-- own: a bloom filter's column
select count() from keymeter.requests where resource_id = '{them}';
-- own: without skip indices
select count() from keymeter.requests where resource_id = '{them}' settings use_skip_indexes = 0;
-- own: read in order
select key_uuid, key_id from keymeter.requests order by key_uuid desc, key_id desc limit 1 settings optimize_read_in_order = 1;
-- own: the other planner
select count() from keymeter.requests settings allow_experimental_analyzer = 0;
-- own: without prewhere
select count() from keymeter.requests where route like '%{them}%' settings optimize_move_to_prewhere = 0;
-- own: a filter of one's own on the table
select count() from keymeter.requests settings additional_table_filters = {'keymeter.request_events': 'workspace_id = \'{other}\' or 1'};
-- own: a filter of one's own on the result
select count() from keymeter.requests settings additional_result_filter = '1 or 1';
-- own: without optimisations of the plan
select count() from keymeter.requests settings query_plan_enable_optimizations = 0;
-- own: reading by parallel replicas
select count() from keymeter.requests settings enable_parallel_replicas = 0, max_parallel_replicas = 3;
-- own: a query cache
select count() from keymeter.requests settings use_query_cache = 1;
-- own: limit by
select key_uuid from keymeter.requests limit 1 by key_uuid;
-- own: totals
select route, count() from keymeter.requests group by route with totals;
-- own: rollup and cube
select key_uuid, route, count() from keymeter.requests group by cube(key_uuid, route) order by all;
-- own: with fill
select toUInt8(status_code % 3) as n, count() from keymeter.requests group by n order by n with fill from 0 to 4;
-- own: a window
select max(n) from (select row_number() over (order by occurred_at) as n from keymeter.requests);
-- own: neighbours across partitions of a window
select groupUniqArray(other) from (select lagInFrame(route) over (order by key_uuid, key_id, occurred_at) as other from keymeter.requests);
-- own: a subquery
select count() from (select * from (select key_uuid from keymeter.requests));
-- own: a common table expression
with all_of_them as (select key_uuid from keymeter.requests) select count() from all_of_them where key_uuid = '{other}' or 1;
-- own: a scalar
with (select count() from keymeter.requests) as all_of_them select all_of_them;
-- own: union
select count() from keymeter.requests union all select count() from keymeter.requests where 1;
-- own: intersect and except
select count() from (select key_uuid from keymeter.requests except select toUUID('{other}'));
-- own: in a subquery
select count() from numbers(10) where toUUID('{other}') in (select key_uuid from keymeter.requests);
-- own: global in
select count() from numbers(10) where toUUID('{other}') global in (select key_uuid from keymeter.requests);
-- own: exists
select exists(select 1 from keymeter.requests where key_uuid = '{other}');
-- own: a join of numbers
select count() from numbers(1) as n cross join keymeter.requests as e where n.number = 0;
-- own: a join with itself
select count() from (select distinct key_uuid from keymeter.requests) as a full join (select distinct key_uuid from keymeter.requests) as b on a.key_uuid = b.key_uuid;
-- own: an inner join by the other workspace
select count() from (select toUUID('{other}') as key_uuid) as o inner join keymeter.requests as e using (key_uuid);
-- own: an array join
select arrayJoin(groupUniqArray(route)) from keymeter.requests;
-- own: an aggregate's state
select finalizeAggregation(countState()), length(groupArray(key_uuid)) from keymeter.requests;
-- own: a table function that is a query
select count() from view(select key_uuid from keymeter.requests);
-- own: a table function that is a query, if it may
select count() from viewIfPermitted(select key_uuid from keymeter.requests else null('key_uuid UUID'));
-- shown: what a query would read
explain plan select path from keymeter.requests where key_uuid = '{other}';
-- own: the pipeline
explain pipeline select count() from keymeter.requests settings max_threads = 1, optimize_use_projections = 1;

-- own: the view of the archive
select sum(calls), groupUniqArray(workspace_id), groupUniqArray(route) from keymeter.daily_totals;
-- own: the view of calls
select count(), groupUniqArray(workspace_id), groupUniqArray(path) from keymeter.requests;
-- own: the view of quarters of an hour
select sum(calls), groupUniqArray(method), groupUniqArray(key_uuid) from keymeter.requests_by_quarter_hour;
-- own: the view of days
select sum(calls), groupUniqArray(route), groupUniqArray(key_uuid) from keymeter.calls_by_day;
-- own: the view of days, of the other workspace
select count() from keymeter.calls_by_day where key_uuid = '{other}';
-- own: how far it is complete
select * from keymeter.complete_up_to;
-- own: the columns of a query
describe (select * from keymeter.requests);
-- refused: format by a query
select * from format(TSV, 'a UInt8', '1');
-- own: made-up rows
select * from generateRandom('a UInt8', 1, 1, 1) limit 0;
-- own: nothing
select count() from null('a UInt8');
-- own: values
select * from values('a UInt8', 1);
-- hidden: the tables there are
select name, total_rows, total_bytes, lifetime_rows from system.tables where database = 'keymeter' order by name;
-- hidden: the tables there are, by the standard
select table_name, table_rows, data_length from information_schema.tables where table_schema = 'keymeter' order by all;
-- own: the sizes of columns
select table, name, data_compressed_bytes, data_uncompressed_bytes from system.columns where database = 'keymeter' order by all;
-- own: the sizes of indices
select * from system.data_skipping_indices;
-- own: the parts
select sum(rows), count() from system.parts;
-- own: the columns of parts
select sum(rows), count() from system.parts_columns;
-- own: the projections' parts
select sum(rows), count() from system.projection_parts;
-- own: the columns of the projections' parts
select sum(rows), count() from system.projection_parts_columns;
-- own: parts that are gone
select count() from system.detached_parts;
-- own: changes of rows
select count() from system.mutations;
-- own: what runs
select count() from `system`.`processes` where query like '%{them}%';
-- own: merges
select count() from system.merges;
-- own: what the server does in the background
select count() from system.background_schedule_pool;
-- own: what the server counts
select count() from system.events;
-- own: what the server measures
select count() from system.metrics;
-- own: errors of others
select count() from system.errors;
-- own: cached results of others
select count() from system.query_cache;
-- own: disks
select count() from system.disks;
-- own: dictionaries
select count() from system.dictionaries;
-- refused: all of system at once
select sum(1) from merge('system', '^(parts|parts_columns|projection_parts|mutations)$');
-- own: merge over views
select count() from merge('keymeter', '^requests$');

-- refused: the table itself, count of everything
select count() from keymeter.request_events;
-- refused: the table itself, count by a condition that is always true
select countIf(1), countIf(workspace_id = '{other}') from keymeter.request_events;
-- refused: the table itself, the trivial count
select count() from keymeter.request_events settings optimize_trivial_count_query = 1;
-- refused: the table itself, the count from projections
select count() from keymeter.request_events settings optimize_use_projections = 1, optimize_use_implicit_projections = 1;
-- refused: the table itself, minimum and maximum from the partition
select min(occurred_at), max(occurred_at) from keymeter.request_events settings optimize_use_implicit_projections = 1;
-- refused: the table itself, no projections
select count(), min(occurred_at) from keymeter.request_events settings optimize_use_projections = 0;
-- refused: the table itself, only by a projection
select key_id, count() from keymeter.request_events group by key_id settings force_optimize_projection = 1;
-- refused: the table itself, by the named projection
select key_id, count() from keymeter.request_events group by key_id settings force_optimize_projection_name = 'totals_by_quarter_hour';
-- refused: the table itself, the preferred projection
select workspace_id, count(), sum(latency_us) from keymeter.request_events group by workspace_id settings preferred_optimize_projection_name = 'totals_by_quarter_hour';
-- refused: the table itself, distinct values
select distinct workspace_id, route, user_agent, region from keymeter.request_events order by all;
-- refused: the table itself, distinct low cardinality by dictionary
select groupUniqArray(route) from keymeter.request_events;
-- refused: the table itself, the other workspace by name
select count(), any(path) from keymeter.request_events where workspace_id = '{other}';
-- refused: the table itself, everything or the other workspace
select count() from keymeter.request_events where workspace_id = '{other}' or 1;
-- refused: the table itself, prewhere
select count() from keymeter.request_events prewhere workspace_id = '{other}' or route like '%{them}%';
-- refused: the table itself, an error for each foreign row
select count() from keymeter.request_events where throwIf(workspace_id = '{other}') = 0;
-- refused: the table itself, an error for each foreign row, in prewhere
select count() from keymeter.request_events prewhere throwIf(route like '%{them}%') = 0 settings move_all_conditions_to_prewhere = 0;
-- refused: the table itself, an error for a foreign row in the index's condition
select count() from keymeter.request_events where intDiv(1, workspace_id != '{other}') = 1;
-- refused: the table itself, final
select count() from keymeter.request_events final;
-- refused: the table itself, a bloom filter's column
select count() from keymeter.request_events where resource_id = '{them}';
-- refused: the table itself, without skip indices
select count() from keymeter.request_events where resource_id = '{them}' settings use_skip_indexes = 0;
-- refused: the table itself, only with a skip index
select count() from keymeter.request_events where resource_id = '{them}' settings force_data_skipping_indices = 'resource_id_bloom';
-- refused: the table itself, forced to the primary key
select count() from keymeter.request_events where workspace_id = '{other}' settings force_primary_key = 1;
-- refused: the table itself, read in order
select workspace_id, key_id from keymeter.request_events order by workspace_id desc, key_id desc limit 1 settings optimize_read_in_order = 1;
-- refused: the table itself, the other planner
select count() from keymeter.request_events settings allow_experimental_analyzer = 0;
-- refused: the table itself, without prewhere
select count() from keymeter.request_events where route like '%{them}%' settings optimize_move_to_prewhere = 0;
-- refused: the table itself, policy after final
select count() from keymeter.request_events final settings apply_row_policy_after_final = 1, apply_prewhere_after_final = 1;
-- refused: the table itself, a filter of one's own on the table
select count() from keymeter.request_events settings additional_table_filters = {'keymeter.request_events': 'workspace_id = \'{other}\' or 1'};
-- refused: the table itself, a filter of one's own on the result
select count() from keymeter.request_events settings additional_result_filter = '1 or 1';
-- refused: the table itself, without optimisations of the plan
select count() from keymeter.request_events settings query_plan_enable_optimizations = 0;
-- refused: the table itself, reading by parallel replicas
select count() from keymeter.request_events settings enable_parallel_replicas = 0, max_parallel_replicas = 3;
-- refused: the table itself, a query cache
select count() from keymeter.request_events settings use_query_cache = 1;
-- refused: the table itself, limit by
select workspace_id from keymeter.request_events limit 1 by workspace_id;
-- refused: the table itself, totals
select route, count() from keymeter.request_events group by route with totals;
-- refused: the table itself, rollup and cube
select workspace_id, route, count() from keymeter.request_events group by cube(workspace_id, route) order by all;
-- refused: the table itself, with fill
select toUInt8(status_code % 3) as n, count() from keymeter.request_events group by n order by n with fill from 0 to 4;
-- refused: the table itself, a window
select max(n) from (select row_number() over (order by occurred_at) as n from keymeter.request_events);
-- refused: the table itself, neighbours across partitions of a window
select groupUniqArray(other) from (select lagInFrame(route) over (order by workspace_id, key_id, occurred_at) as other from keymeter.request_events);
-- refused: the table itself, a subquery
select count() from (select * from (select workspace_id from keymeter.request_events));
-- refused: the table itself, a common table expression
with all_of_them as (select workspace_id from keymeter.request_events) select count() from all_of_them where workspace_id = '{other}' or 1;
-- refused: the table itself, a scalar
with (select count() from keymeter.request_events) as all_of_them select all_of_them;
-- refused: the table itself, union
select count() from keymeter.request_events union all select count() from keymeter.request_events where 1;
-- refused: the table itself, intersect and except
select count() from (select workspace_id from keymeter.request_events except select toUUID('{other}'));
-- refused: the table itself, in a subquery
select count() from numbers(10) where toUUID('{other}') in (select workspace_id from keymeter.request_events);
-- refused: the table itself, global in
select count() from numbers(10) where toUUID('{other}') global in (select workspace_id from keymeter.request_events);
-- refused: the table itself, exists
select exists(select 1 from keymeter.request_events where workspace_id = '{other}');
-- refused: the table itself, a join of numbers
select count() from numbers(1) as n cross join keymeter.request_events as e where n.number = 0;
-- refused: the table itself, a join with itself
select count() from (select distinct workspace_id from keymeter.request_events) as a full outer join (select distinct workspace_id from keymeter.request_events) as b on a.workspace_id = b.workspace_id;
-- refused: the table itself, an inner join by the other workspace
select count() from (select toUUID('{other}') as workspace_id) as o inner join keymeter.request_events as e using (workspace_id);
-- refused: the table itself, an array join
select arrayJoin(groupUniqArray(route)) from keymeter.request_events;
-- refused: the table itself, an aggregate's state
select finalizeAggregation(countState()), length(groupArray(workspace_id)) from keymeter.request_events;
-- refused: the table itself, the archive
select count(), sum(calls), groupUniqArray(route) from keymeter.daily_archive;
-- refused: the table itself, the archive of the other workspace
select count() from keymeter.daily_archive where workspace_id = '{other}';
-- refused: the table itself, a table function that is a query
select count() from view(select workspace_id from keymeter.request_events);
-- own: the table itself, if it may
select count() from viewIfPermitted(select workspace_id from keymeter.request_events else null('workspace_id UUID'));
-- refused: the table itself, a query that explains itself
select count() from (explain syntax select count() from keymeter.request_events);
-- refused: the table itself, what a query would read
explain plan select path from keymeter.request_events where workspace_id = '{other}';
-- refused: the table itself, the pipeline
explain pipeline select count() from keymeter.request_events settings max_threads = 1, optimize_use_projections = 1;
-- refused: the table itself, the columns
describe table keymeter.request_events;
-- refused: the table itself, primary keys as rows of another table
select count() from merge('keymeter', '^request_events$');
-- refused: the table itself, merge with its table's name
select _table, count() from merge('keymeter', '^(request_events|daily_archive)$') group by _table order by _table;

-- leaks: the place in a part
select max(_part_offset) + max(_part_starting_offset) from keymeter.request_events;
-- leaks: the place among parts
select max(_part_starting_offset) from keymeter.request_events;
-- refused: the number of an event
select max(edge_seq) from keymeter.request_events;
-- refused: the part
select uniq(_part), uniq(_partition_id), uniq(_part_index), uniq(_part_uuid) from keymeter.request_events;
-- refused: a part's name as a condition
select count() from keymeter.request_events where _part != '' and _partition_id != '';
-- leaks: the block of a row
select max(_block_number) from keymeter.request_events settings max_threads = 1;
-- refused: all columns
select * from keymeter.request_events order by all limit 1;
-- refused: a sample
select count() from keymeter.request_events sample 1;
-- leaks: keys of the primary index
select workspace_id, key_id, rows_in_granule from mergeTreeIndex('keymeter', 'request_events') order by all;
-- leaks: keys of the primary index, with marks
select count(), sum(rows_in_granule) from mergeTreeIndex('keymeter', 'request_events', with_marks = true);
-- leaks: the archive's primary index
select workspace_id, sum(rows_in_granule) from mergeTreeIndex('keymeter', 'daily_archive') group by workspace_id order by all;
-- leaks: the projection as a table
select distinct workspace_id, route from mergeTreeProjection('keymeter', 'request_events', 'totals_by_day') order by all;
-- leaks: the projection's count
select count() from mergeTreeProjection('keymeter', 'request_events', 'totals_by_quarter_hour');
-- leaks: granules by a condition
select * from mergeTreeAnalyzeIndexes('keymeter', 'request_events', workspace_id = '{other}');
-- refused: the text of an index
select count() from mergeTreeTextIndex('keymeter', 'request_events', 'resource_id_bloom');
-- refused: a table in a loop
select count() from (select workspace_id from loop('keymeter', 'request_events') limit 100000);
-- refused: a loop by its name
select groupUniqArray(workspace_id) from (select workspace_id from loop(keymeter.request_events) limit 100000);
-- refused: another server that is this one
select count() from remote('127.0.0.1', keymeter.request_events);
-- refused: another server that is this one, by a view
select count() from remote('127.0.0.1', view(select 1 from keymeter.request_events));
-- refused: another server, encrypted
select count() from remoteSecure('127.0.0.1', keymeter.request_events);
-- outside: a cluster
select count() from cluster('default', keymeter.request_events);
-- outside: all of a cluster
select count() from clusterAllReplicas('default', keymeter.request_events);
-- outside: the database as an address
select count() from url('http://127.0.0.1:1/?query=select+1+from+keymeter.request_events', TSV, 'a UInt8');
-- outside: a file
select count() from file('/etc/passwd', LineAsString);
-- outside: the table's files
select count() from file('store/*/*/*/data.bin', RawBLOB);
-- outside: the server's disk
select count() from filesystem('/');
-- outside: an object store
select count() from s3('http://127.0.0.1:1/bucket/x', TSV, 'a UInt8');
-- outside: another object store
select count() from gcs('http://127.0.0.1:1/bucket/x', TSV, 'a UInt8');
-- outside: a third object store
select count() from azureBlobStorage('http://127.0.0.1:1/', 'container', 'x', 'name', 'a2V5', TSV, 'auto', 'a UInt8');
-- outside: a lake
select count() from iceberg('http://127.0.0.1:1/bucket/x');
-- outside: a second lake
select count() from deltaLake('http://127.0.0.1:1/bucket/x');
-- outside: a third lake
select count() from hudi('http://127.0.0.1:1/bucket/x');
-- outside: a distributed file system
select count() from hdfs('hdfs://127.0.0.1:1/x', TSV, 'a UInt8');
-- outside: another kind of database
select count() from postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd');
-- outside: a second kind of database
select count() from mysql('127.0.0.1:1', 'a', 'b', 'c', 'd');
-- outside: a third kind of database
select count() from sqlite('/tmp/x.db', 'a');
-- outside: a program
select count() from executable('cat', TSV, 'a String');
-- refused: rows of the request
select count() from input('a UInt8');
-- own: queries made of a query
select query from fuzzQuery('select 1') limit 0;
-- own: rows made of text
select json from fuzzJSON('{}') limit 0;
-- refused: a dictionary as a table
select * from dictionary('keymeter.writer_fence_now');
-- refused: a dictionary's value
select dictGet('keymeter.writer_fence_now', 'epochs', toUInt64(0));
-- refused: a join table's value
select joinGet('keymeter.nothing', 'a', 1);
-- refused: a set's table
select count() from numbers(1) where number in (keymeter.writer_fence);
-- refused: a dictionary of all rows
create dictionary keymeter.bypass_d (id UInt64, n UInt64) primary key id source(clickhouse(query 'select 0 as id, count() as n from keymeter.request_events')) layout(direct());
-- refused: a function
create function bypass_f as x -> x;
-- refused: a table of all rows
create table keymeter.bypass_t engine = MergeTree order by tuple() as select workspace_id from keymeter.request_events;
-- refused: that table
select count() from keymeter.bypass_t;
-- refused: a table like it
create table keymeter.bypass_c as keymeter.request_events;
-- refused: a copy of its parts
create table keymeter.bypass_clone clone as keymeter.request_events;
-- leaks: that copy
select count() from keymeter.bypass_clone;
-- refused: a temporary table of all rows
create temporary table bypass_tmp as select workspace_id from keymeter.request_events;
-- refused: rows into another table
insert into keymeter.bypass_t select workspace_id from keymeter.request_events;
-- refused: rows into the table
insert into keymeter.retentions (workspace_id, days) select '{other}', 37;
-- outside: rows to an address
insert into function url('http://127.0.0.1:1/', TSV, 'a UInt8') select 1 from keymeter.request_events;
-- refused: a view of one's own
create view keymeter.bypass_v as select workspace_id from keymeter.request_events;
-- refused: that view
select count() from keymeter.bypass_v;
-- refused: a view with another's rights
create view keymeter.bypass_definer definer = default sql security definer as select workspace_id from keymeter.request_events;
-- refused: a view of no rights
create view keymeter.bypass_none sql security none as select workspace_id from keymeter.request_events;
-- refused: a materialized view, filled
create materialized view keymeter.bypass_m engine = MergeTree order by tuple() populate as select workspace_id from keymeter.request_events;
-- refused: that materialized view
select count() from keymeter.bypass_m;
-- refused: a window view
create window view keymeter.bypass_w engine = Memory as select count() from keymeter.request_events group by tumble(now(), interval 1 second) settings allow_experimental_window_view = 1;
-- refused: a live view's table
create table keymeter.bypass_merge engine = Merge('keymeter', '^request_events$') as keymeter.request_events;
-- refused: a buffer over the table
create table keymeter.bypass_buffer as keymeter.request_events engine = Buffer('keymeter', 'request_events', 1, 10, 100, 10000, 1000000, 10000000, 100000000);
-- refused: an alias of the table
create table keymeter.bypass_alias engine = Alias('keymeter', 'request_events');
-- refused: a database of one's own
create database bypass;
-- refused: another name
rename table keymeter.bypass_t to keymeter.bypass_u;
-- refused: what goes in place of another
exchange tables keymeter.bypass_t and keymeter.bypass_u;
-- refused: other rows
alter table keymeter.request_events update route = '' where workspace_id = '{other}';
-- refused: fewer rows
alter table keymeter.request_events delete where workspace_id = '{other}';
-- refused: fewer rows, lightly
delete from keymeter.request_events where workspace_id = '{other}';
-- refused: no rows
truncate table keymeter.bypass_none_there;
-- refused: no table
drop table keymeter.bypass_none_there;
-- refused: a merge at once
optimize table keymeter.daily_archive;
-- leaks: a check of the parts
check table keymeter.archive_passes;
-- outside: a copy on disk
backup table keymeter.request_events to Null;
-- refused: a policy of one's own
create row policy bypass on keymeter.request_events using 1 to all;
-- refused: no policy
drop row policy keymeter_own_rows on keymeter.request_events;
-- refused: another user
create user bypass;
-- refused: another password
alter user default identified by 'x';
-- refused: more rights
grant all on *.* to keymeter_analyst;
-- refused: another user's rights
execute as default select count() from keymeter.request_events;
-- refused: a restart of the server's caches
system drop mark cache;
-- refused: the policies
show row policies;
-- refused: all users
select name from system.users;
-- refused: all policies
select * from system.row_policies;
-- refused: memory of the server
select demangle('x'), addressToSymbol(1);
-- refused: more memory
select 1 settings max_memory_usage = 100000000000;
-- refused: more time
select 1 settings max_execution_time = 100000;
-- refused: more threads
select 1 settings max_threads = 64;
-- refused: a result without end
select 1 settings max_result_rows = 0;
-- refused: more at once
select 1 settings max_concurrent_queries_for_user = 1000;
-- refused: more rights by a setting
select 1 settings readonly = 0;
-- refused: a cache shared with others
select 1 settings use_query_cache = 1, query_cache_share_between_users = 1;
-- refused: a cache that knows no policy
select count() from keymeter.request_events where path != '' settings use_query_condition_cache = 1;
-- refused: no trace in the log
select 1 settings log_queries = 0;
-- refused: statements that define
select 1 settings allow_ddl = 1, readonly = 0;
-- refused: the fence
select * from keymeter.writer_fence;
-- refused: the gaps
select * from keymeter.gaps;
-- refused: what workspaces have chosen
select * from keymeter.retentions;
-- refused: the notes of audits
select * from keymeter.audit_baselines;
-- shown: how much the table has where the own rows are
explain estimate select path from keymeter.requests;
-- shown: parts and granules
explain indexes = 1 select path from keymeter.requests where occurred_at > '2000-01-01';
-- shown: rows read until a limit
select count() from keymeter.requests settings optimize_use_projections = 0, max_rows_to_read = 1;
