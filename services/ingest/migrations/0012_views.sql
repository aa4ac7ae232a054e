-- What analysts read: names that say what they are, ids as Keymeter prints them, and a comment on every column.
-- `sql security invoker`: a view reads with the rights and under the row policies of who asks.
--
-- The text of an id is its prefix and the UUID in base32hex, in lower case and without padding, as `domain::Id` prints it.

create view if not exists keymeter.requests
(
    request_id String comment 'the call, req_…',
    occurred_at DateTime64(3, 'UTC') comment 'when the call began',
    key_id String comment 'the key, key_…',
    secret_id String comment 'which of the key''s secrets was sent, sec_…',
    workspace_id String comment 'the tenant, ws_…',
    method LowCardinality(String) comment 'HTTP method in upper case',
    route LowCardinality(String) comment 'template such as /v1/orders/{id}',
    path String comment 'raw path without the query string',
    resource_id String comment 'the id that the path names, may be empty',
    status_code UInt16 comment 'HTTP status of the answer',
    outcome Enum8('completed' = 1, 'failed' = 2, 'rate_limited' = 3) comment '429 is rate_limited, else below 400 completed, else failed',
    origin Enum8('edge' = 1, 'upstream' = 2) comment 'who answered: the edge, or the API behind it',
    denial LowCardinality(String) comment 'why the edge refused, empty if it did not',
    limit_name LowCardinality(String) comment 'the limit that refused, empty if none did',
    limit_window_s UInt32 comment 'seconds of the limit that refused, or of the one with the fewest calls left; 0 if none was asked',
    limit_remaining UInt64 comment 'how many more calls that limit admitted right after this one',
    latency_ms Float64 comment 'milliseconds from the first byte of the request to the last of the answer',
    request_bytes UInt64 comment 'body bytes from the client',
    response_bytes UInt64 comment 'body bytes to the client',
    client_ip String comment 'address of the client, IPv4 as a.b.c.d',
    user_agent LowCardinality(String) comment 'as the client said it, at most 256 bytes',
    region LowCardinality(String) comment 'of the edge, may be empty',
    trace_id String comment 'W3C trace id, 32 hexadecimal digits; empty if the call had none',
    client_request_id String comment 'the client''s own X-Request-Id, may be empty',
    interrupted Bool comment 'the edge stopped before the answer ended: latency and bytes are what was known',
    clock_skewed Bool comment 'the edge''s clock was wrong: occurred_at is when the call was handed on',
    key_uuid UUID comment 'key_id as it is stored: fast to filter by',
    request_uuid UUID comment 'request_id as it is stored: fast to filter by'
)
sql security invoker as
with
    'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567' as base32,
    '0123456789abcdefghijklmnopqrstuv' as base32hex,
    (id) -> translate(substring(base32Encode(UUIDStringToNum(toString(id))), 1, 26), base32, base32hex) as text
select
    concat('req_', text(request_id)) as request_id,
    occurred_at,
    concat('key_', text(key_id)) as key_id,
    concat('sec_', text(secret_id)) as secret_id,
    concat('ws_', text(workspace_id)) as workspace_id,
    method, route, path, resource_id, status_code, outcome, origin, denial,
    limit_name, limit_window_s, limit_remaining,
    latency_us / 1000 as latency_ms,
    request_bytes, response_bytes,
    replaceRegexpOne(toString(client_ip), '^::ffff:([0-9.]+)$', '\\1') as client_ip,
    user_agent, region,
    if(trace_id = toFixedString('', 16), '', lower(hex(trace_id))) as trace_id,
    client_request_id, interrupted, clock_skewed,
    events.key_id as key_uuid,
    events.request_id as request_uuid
from keymeter.request_events as events
comment 'Single calls, a row each, as long as they are kept';
;

-- Grouped as the projection is, so that totals are read from it and not from the rows.
create view if not exists keymeter.requests_by_quarter_hour
(
    quarter_hour DateTime('UTC') comment 'when the quarter of an hour begins; days begin at one in every time zone',
    key_id String comment 'the key, key_…',
    method LowCardinality(String) comment 'HTTP method in upper case',
    status_code UInt16 comment 'HTTP status of the answer',
    outcome Enum8('completed' = 1, 'failed' = 2, 'rate_limited' = 3) comment '429 is rate_limited, else below 400 completed, else failed',
    origin Enum8('edge' = 1, 'upstream' = 2) comment 'who answered: the edge, or the API behind it',
    denial LowCardinality(String) comment 'why the edge refused, empty if it did not',
    calls UInt64 comment 'how many calls began in it',
    latency_us UInt64 comment 'sum of their latencies in microseconds: divide by calls for the mean',
    last_occurred_at DateTime64(3, 'UTC') comment 'when the latest of them began',
    key_uuid UUID comment 'key_id as it is stored: fast to filter by'
)
sql security invoker as
with
    'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567' as base32,
    '0123456789abcdefghijklmnopqrstuv' as base32hex,
    (id) -> translate(substring(base32Encode(UUIDStringToNum(toString(id))), 1, 26), base32, base32hex) as text
select
    quarter_hour, concat('key_', text(key_uuid)) as key_id, method, status_code, outcome, origin, denial, calls,
    latency_us, last_occurred_at, key_uuid
from
(
    select
        toStartOfFifteenMinutes(occurred_at) as quarter_hour, key_id as key_uuid, method, status_code, outcome, origin,
        denial, count() as calls, sum(latency_us) as latency_us, max(occurred_at) as last_occurred_at
    from keymeter.request_events
    group by workspace_id, key_id, toStartOfFifteenMinutes(occurred_at), method, status_code, outcome, origin, denial
)
comment 'Totals by quarter of an hour (UTC), of the calls in requests';

-- The archive, and of the rows those that it has not counted: each call once, also while days are being closed.
create view if not exists keymeter.calls_by_day
(
    day Date comment 'day (UTC) when the calls began',
    key_id String comment 'the key, key_…',
    method LowCardinality(String) comment 'HTTP method in upper case',
    route LowCardinality(String) comment 'template such as /v1/orders/{id}',
    status_code UInt16 comment 'HTTP status of the answer',
    outcome Enum8('completed' = 1, 'failed' = 2, 'rate_limited' = 3) comment '429 is rate_limited, else below 400 completed, else failed',
    origin Enum8('edge' = 1, 'upstream' = 2) comment 'who answered: the edge, or the API behind it',
    denial LowCardinality(String) comment 'why the edge refused, empty if it did not',
    calls Int64 comment 'how many calls; add it up, since a day can have several rows',
    latency_us Int64 comment 'sum of their latencies in microseconds',
    request_bytes Int64 comment 'sum of the body bytes from clients',
    response_bytes Int64 comment 'sum of the body bytes to clients',
    key_uuid UUID comment 'key_id as it is stored: fast to filter by'
)
sql security invoker as
with
    'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567' as base32,
    '0123456789abcdefghijklmnopqrstuv' as base32hex,
    (id) -> translate(substring(base32Encode(UUIDStringToNum(toString(id))), 1, 26), base32, base32hex) as text
select
    day, concat('key_', text(key_uuid)) as key_id, method, route, status_code, outcome, origin, denial,
    calls, latency_us, request_bytes, response_bytes, key_uuid
from
(
    select
        day, key_id as key_uuid, method, route, status_code, outcome, origin, denial,
        calls, latency_us, request_bytes, response_bytes
    from keymeter.daily_totals
    union all
    select
        toDate(occurred_at), key_id, method, route, status_code, outcome, origin, denial,
        toInt64(1), toInt64(latency_us), toInt64(request_bytes), toInt64(response_bytes)
    from keymeter.request_events
    where toDate(occurred_at) > transform(shard,
            (select groupArray(shard) from (select shard from keymeter.archive_passes group by shard order by shard)),
            (select groupArray(closed_day) from (select shard, max(closed_day) as closed_day from keymeter.archive_passes group by shard order by shard)),
            toDate(0))
       or ingested_at > transform(shard,
            (select groupArray(shard) from (select shard from keymeter.archive_passes group by shard order by shard)),
            (select groupArray(through) from (select shard, max(through) as through from keymeter.archive_passes group by shard order by shard)),
            toDateTime64(0, 3, 'UTC'))
)
comment 'Totals by day (UTC) of all calls there ever were: archive and rows, each call once';

create view if not exists keymeter.complete_up_to
(
    complete_up_to DateTime64(3, 'UTC') comment 'every call that ended earlier can be read, but for those of silent edges; 1970-01-01 while nothing is known',
    silent_edges Array(String) comment 'edges that say nothing: calls that they have taken may be missing',
    silent_since DateTime64(3, 'UTC') comment 'since when the first of them does, 1970-01-01 if there is none'
)
sql security invoker as
select
    min(watermarks.complete_up_to) as complete_up_to,
    arraySort(groupUniqArrayArray(unaccounted.edge_id)) as silent_edges,
    arrayMin(groupArrayArray(unaccounted.since)) as silent_since
from keymeter.watermarks as watermarks final
comment 'Up to when the data is complete, over all shards';

alter table keymeter.daily_totals modify sql security invoker;
alter table keymeter.daily_totals modify comment 'Totals by day (UTC) of the days that are archived: they outlive single calls';

alter table keymeter.daily_totals
    comment column if exists workspace_id 'the tenant',
    comment column if exists key_id 'the key that the calls were made with',
    comment column if exists day 'UTC day of occurred_at',
    comment column if exists method 'as in request_events',
    comment column if exists route 'as in request_events',
    comment column if exists status_code 'as in request_events',
    comment column if exists outcome 'as in request_events',
    comment column if exists origin 'as in request_events',
    comment column if exists denial 'as in request_events',
    comment column if exists calls 'how many calls; add it up, since late calls are rows of their own',
    comment column if exists latency_us 'sum of latency_us',
    comment column if exists request_bytes 'sum of request_bytes',
    comment column if exists response_bytes 'sum of response_bytes',
    comment column if exists last_occurred_at 'start of the latest of the calls: take the maximum',
    comment column if exists shard 'whose rows these are totals of';

alter table keymeter.watermarks
    comment column if exists shard 'which part of all keys; a key has one shard',
    comment column if exists updated_at 'when ingest said so; the newest row of a shard counts';

alter table keymeter.archive_passes
    comment column if exists shard 'which part of all keys; a key has one shard',
    comment column if exists writer_epoch 'the ownership of the shard that made the pass',
    comment column if exists pass 'counts the passes of an epoch',
    comment column if exists noted_at 'when the pass counted';
