-- A slice of the calls: {count} from number {from} of {events}, which are spread evenly over {range_ms} before {end_ms}.
-- The same number is the same call, but for its time. Ranks of keys and routes follow Zipf's law with exponent 1.1.
insert into keymeter.request_events
(
    workspace_id, key_id, secret_id, request_id, occurred_at, ingested_at, method, route, path, resource_id,
    status_code, outcome, origin, denial, limit_name, limit_window_s, limit_remaining, latency_us, request_bytes,
    response_bytes, client_ip, user_agent, region, edge_id, boot_epoch, shard, edge_seq, writer_epoch
)
with
    arrayMap(i -> reinterpretAsUUID(unhex(hex(sipHash128(i, 'workspace')))), range(500)) as workspaces,
    arrayMap(i -> reinterpretAsUUID(unhex(hex(sipHash128(i, 'key')))), range(10000)) as keys,
    arrayMap(i -> reinterpretAsUUID(unhex(hex(sipHash128(i, 'secret')))), range(10000)) as secrets,
    arrayMap(
        i -> multiIf(
            sipHash64(i, 'method') % 100 as chance < 62, 'GET', chance < 84, 'POST', chance < 90, 'PUT',
            chance < 94, 'PATCH', 'DELETE'
        ),
        range(200)
    ) as methods,
    arrayMap(
        i -> concat('/v1/resource-', toString(intDiv(i, 4)), ['', '/{id}', '/{id}/items', '/{id}/status'][1 + i % 4]),
        range(200)
    ) as routes,
    -- Answers, their sums in a thousand, and why the edge refused.
    [200, 201, 204, 304, 400, 404, 409, 422, 429, 401, 401, 403, 500, 502, 503]::Array(UInt16) as answers,
    [790, 850, 880, 895, 915, 950, 954, 962, 980, 984, 986, 989, 995, 998, 1000] as sums,
    ['', '', '', '', '', '', '', '', 'rate_limited', 'expired', 'deleted', 'scope_missing', '', '', ''] as denials,
    -- Above 0, at most 1.
    (salt -> 1 - sipHash64(number, salt) / 18446744073709551616) as part,
    toUInt16(least(greatest(round(pow(1.0717 - 0.6738 * (1 - part(1)), -10)), 1), 10000)) - 1 as key,
    toUInt16(least(greatest(round(pow(1.0717 - 0.4830 * (1 - part(2)), -10)), 1), 200)) - 1 as favourite,
    -- Each workspace has its own favourites among the routes.
    (favourite + key % 500 * 7) % 200 + 1 as place,
    methods[place] as route_method,
    routes[place] as route_template,
    arrayFirstIndex(sum -> sum > sipHash64(number, 3) % 1000, sums) as answer,
    answers[answer] as status,
    answer in (9, 10, 11, 12, 14) as is_of_edge,
    if(position(route_template, '{id}') > 0, toString(sipHash64(number, 4) % 200000), '') as id,
    {end_ms} - {range_ms} + intDiv(toInt64(number) * {range_ms}, {events}) as at_ms,
    (middle, salt) -> toUInt32(middle / 2 * least(1 / part(salt), 50)) as spread
select
    workspaces[key % 500 + 1],
    keys[key + 1],
    secrets[key + 1],
    -- Version 7: the time, then by chance.
    reinterpretAsUUID(concat(
        reinterpretAsString(toUInt64(at_ms) * 65536 + 28672 + sipHash64(number, 11) % 4096),
        substring(reinterpretAsString(bitOr(bitShiftRight(sipHash64(number, 12), 2), 9223372036854775808)), 1, 8)
    )),
    fromUnixTimestamp64Milli(at_ms, 'UTC'),
    fromUnixTimestamp64Milli(at_ms + 400, 'UTC'),
    route_method,
    route_template,
    replaceAll(route_template, '{id}', id),
    id,
    status,
    multiIf(status = 429, 'rate_limited', status < 400, 'completed', 'failed'),
    if(is_of_edge, 'edge', 'upstream'),
    denials[answer],
    if(status = 429, 'per-minute', ''),
    if(status = 429 or key % 2 = 0, 60, 0),
    if(status != 429 and key % 2 = 0, sipHash64(number, 5) % 1000, 0),
    spread(120, 6) + if(is_of_edge, 0, spread(1500, 7)),
    if(route_method = 'GET', 0, spread(300, 8)),
    spread(700, 9),
    toIPv6(concat('::ffff:10.', toString(intDiv(key, 256)), '.', toString(key % 256), '.', toString(sipHash64(number, 10) % 3))),
    concat(
        'Mozilla/5.0 (client ', toString((key * 31 + sipHash64(number, 13) % 2) % 40 as agent),
        '; like many others) sdk/', toString(agent % 7), '.', toString(agent)
    ),
    'eu-central-1',
    concat('edge_', toString(number % 3)),
    1,
    key % 4,
    number,
    1
from numbers({from}, {count})
settings max_threads = 1, max_insert_threads = 1, max_block_size = 1000000, min_insert_block_size_rows = 1000000,
    async_insert = 0
