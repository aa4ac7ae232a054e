-- Calls of one workspace for the queries of docs/sql.md: of two keys in November, one in October, and totals of the months before,
-- of which one is of a call whose row is still there.

insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, ingested_at, method, route, path, resource_id,
    status_code, outcome, origin, limit_name, latency_us, request_bytes, response_bytes, client_ip, trace_id, edge_seq, shard,
    writer_epoch)
select '00000000-0000-7000-8000-0000000000aa', concat('00000000-0000-7000-8000-0000000000c', key),
    concat('00000000-0000-7000-8000-0000000000', lower(hex(n))), toDateTime64(at, 3, 'UTC'),
    toDateTime64('2026-11-20 00:00:00', 3, 'UTC'), method, route, replace(route, '{id}', resource), resource, status,
    multiIf(status = 429, 'rate_limited', status < 400, 'completed', 'failed'), if(status = 429, 'edge', 'upstream'),
    if(status = 429, 'per-minute', ''), ms * 1000, received, sent, toIPv6('::ffff:192.0.2.7'),
    unhex('000102030405060708090a0b0c0d0e0f'), n, 1, 4294967295
from values('n UInt8, key String, at String, method String, route String, resource String, status UInt16, ms UInt32, received UInt64, sent UInt64',
    (1, '1', '2026-11-10 08:00:00', 'GET', '/v1/orders/{id}', '1001', 200, 10, 0, 100),
    (2, '1', '2026-11-10 08:10:00', 'GET', '/v1/orders/{id}', '1001', 200, 20, 0, 100),
    (3, '1', '2026-11-10 08:20:00', 'GET', '/v1/orders/{id}', '1002', 404, 5, 0, 100),
    (4, '1', '2026-11-10 09:00:00', 'POST', '/v1/orders', '', 201, 100, 50, 100),
    (5, '2', '2026-11-10 23:30:00', 'GET', '/v1/orders/{id}', '1001', 500, 900, 0, 100),
    (6, '2', '2026-11-11 08:00:00', 'GET', '/v1/items', '', 200, 30, 0, 100),
    (7, '2', '2026-11-11 12:00:00', 'GET', '/v1/items', '', 429, 1, 0, 10),
    (8, '2', '2026-11-11 12:00:01', 'GET', '/v1/items', '', 429, 1, 0, 10),
    (9, '2', '2026-11-11 12:00:02', 'GET', '/v1/items', '', 429, 1, 0, 10),
    (10, '2', '2026-11-11 12:30:00', 'GET', '/v1/items', '', 200, 40, 0, 100),
    (11, '1', '2026-10-20 12:00:00', 'GET', '/v1/items', '', 200, 50, 0, 1000),
    (12, '1', '2026-10-01 12:00:00', 'GET', '/v1/items', '', 200, 50, 0, 100));

insert into keymeter.daily_archive (workspace_id, key_id, day, method, route, status_code, outcome, origin, calls, latency_us,
    request_bytes, response_bytes, shard, writer_epoch, pass)
select '00000000-0000-7000-8000-0000000000aa', concat('00000000-0000-7000-8000-0000000000c', key), toDate(on), 'GET', '/v1/items', 200,
    'completed', 'upstream', total, total, 0, 100 * total, 1, 4294967295, 1
from values('key String, on String, total Int64', ('3', '2026-09-05', 7), ('1', '2026-10-01', 1));

insert into keymeter.archive_passes (shard, writer_epoch, pass, closed_day, through)
select 1, 4294967295, 1, toDate('2026-10-15'), toDateTime64('2026-11-21 00:00:00', 3, 'UTC');

insert into keymeter.watermarks
select number, toDateTime64(['2026-11-13 00:00:00', '2026-11-12 00:00:01'][number + 1], 3, 'UTC'),
    if(number = 0, [], [('edge_b', toDateTime64('2026-11-11 00:00:00', 3, 'UTC'))]), toDateTime64('2026-11-13 00:00:00', 3, 'UTC')
from numbers(2);
