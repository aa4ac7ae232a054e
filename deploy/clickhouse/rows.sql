-- Rows of a made-up workspace, for what tries to get around the policies: it is filled in and run for two workspaces. Everything
-- in it says whose it is. The shard is one that no installation has, by which it is found again and removed.
-- `{workspace}` a UUID, `{marker}` a word, `{calls}` how many, `{pass}` a number, `{at}` a UTC day of two days ago.

-- Two parts in each month.
insert into keymeter.request_events (workspace_id, key_id, secret_id, request_id, client_request_id, occurred_at,
    ingested_at, method, route, path, resource_id, status_code, outcome, origin, latency_us, request_bytes, response_bytes,
    client_ip, user_agent, region, trace_id, edge_id, boot_epoch, shard, edge_seq, writer_epoch)
select '{workspace}', '{workspace}', '{workspace}', toUUID(UUIDNumToString(sipHash128('{marker}', number))), '{marker}',
    toDateTime64('{at}', 3, 'UTC') - toIntervalDay(number % 50) + toIntervalHour(number % 24),
    toDateTime64('{at}', 3, 'UTC'), 'GET', '/{marker}/{id}', '/{marker}/7', '{marker}', 200, 'completed', 'upstream', 3, 5, 5,
    toIPv6('::1'), '{marker}', '{marker}', toFixedString('{marker}', 16), 'edge_verify', 1, 65535,
    number + 1 + {pass} * 1000000, 4294967295
from numbers({calls});
insert into keymeter.request_events (workspace_id, key_id, secret_id, request_id, client_request_id, occurred_at,
    ingested_at, method, route, path, resource_id, status_code, outcome, origin, latency_us, request_bytes, response_bytes,
    client_ip, user_agent, region, trace_id, edge_id, boot_epoch, shard, edge_seq, writer_epoch)
select '{workspace}', '{workspace}', '{workspace}', toUUID(UUIDNumToString(sipHash128('{marker}', number + 500000))), '{marker}',
    toDateTime64('{at}', 3, 'UTC') - toIntervalDay(number % 50) + toIntervalHour(number % 24),
    toDateTime64('{at}', 3, 'UTC'), 'POST', '/{marker}/{id}', '/{marker}/8', '{marker}', 500, 'failed', 'upstream', 3, 5, 5,
    toIPv6('::1'), '{marker}', '{marker}', toFixedString('{marker}', 16), 'edge_verify', 1, 65535,
    number + 500001 + {pass} * 1000000, 4294967295
from numbers({calls});

-- What is older than 36 days is archived.
insert into keymeter.daily_archive
select workspace_id, key_id, toDate(occurred_at) as archived_day, method, route, status_code, outcome, origin, denial, count(),
    sum(latency_us), sum(request_bytes), sum(response_bytes), max(occurred_at), shard, 4294967295, {pass}
from keymeter.request_events
where workspace_id = '{workspace}' and shard = 65535 and occurred_at < toDateTime64('{at}', 3, 'UTC') - toIntervalDay(36)
group by workspace_id, key_id, archived_day, method, route, status_code, outcome, origin, denial, shard;
insert into keymeter.archive_passes (shard, writer_epoch, pass, closed_day, through)
select 65535, 4294967295, {pass}, toDate('{at}') - 37, toDateTime64('{at}', 3, 'UTC');
