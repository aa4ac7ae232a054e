-- The one table of truth: a row is an API call.

create table if not exists keymeter.request_events
(
    workspace_id UUID comment 'the tenant',
    key_id UUID comment 'the key that the call was made with',
    secret_id UUID comment 'which of the key''s secrets was sent',
    request_id UUID comment 'minted by the edge, UUIDv7',
    client_request_id String comment 'the client''s own X-Request-Id, may be empty',
    occurred_at DateTime64(3, 'UTC') comment 'start of the request by the edge''s clock, or when clock_skewed by the broker''s',
    ingested_at DateTime64(3, 'UTC') comment 'one value for each insert, strictly growing in a shard: what a takeover finds new rows by',
    clock_skewed Bool comment 'the edge''s time was more than 35 days behind the broker''s or 5 minutes ahead',
    interrupted Bool comment 'the edge stopped before the answer ended: latency and bytes are what was known',
    method LowCardinality(String) comment 'HTTP method in upper case',
    route LowCardinality(String) comment 'template such as /v1/orders/{id}',
    path String comment 'raw path without the query string, at most 1 KiB',
    resource_id String comment 'the id that the path names, may be empty',
    status_code UInt16 comment 'HTTP status of the answer',
    outcome Enum8('completed' = 1, 'failed' = 2, 'rate_limited' = 3) comment '429 is rate_limited, else below 400 completed, else failed',
    origin Enum8('edge' = 1, 'upstream' = 2) comment 'who answered',
    denial LowCardinality(String) comment 'why the edge refused, empty if it did not',
    limit_name LowCardinality(String) comment 'the limit that refused, empty if none did',
    latency_us UInt32 comment 'from the first byte of the request to the last of the answer',
    request_bytes UInt64 comment 'body bytes from the client',
    response_bytes UInt64 comment 'body bytes to the client',
    client_ip IPv6 comment 'IPv4 as ::ffff:a.b.c.d',
    user_agent LowCardinality(String) comment 'at most 256 bytes',
    region LowCardinality(String) comment 'of the edge, may be empty',
    trace_id FixedString(16) comment 'W3C trace id, zeros if the call had none',
    edge_id LowCardinality(String) comment 'with boot_epoch, shard and edge_seq the identity of the event',
    boot_epoch UInt32 comment 'which start of the edge numbered the event',
    shard UInt16 comment 'hash of the key, modulo the number of shards when the edge took the call',
    edge_seq UInt64 comment 'counts from 1 for each edge, boot and shard',
    writer_epoch UInt32 comment 'which ownership of the shard wrote the row',

    -- What charts and cards ask for. It lives in the same part as the rows, so it cannot drift from them.
    -- Quarters of an hour, since days begin at one of them in every time zone.
    projection by_quarter_hour
    (
        select
            workspace_id, key_id, toStartOfFifteenMinutes(occurred_at), method, route, status_code, outcome,
            count(), sum(latency_us), max(occurred_at)
        group by
            workspace_id, key_id, toStartOfFifteenMinutes(occurred_at), method, route, status_code, outcome
    ),

    -- One request out of all, and all requests of one resource.
    index request_id_bloom request_id type bloom_filter(0.001) granularity 1,
    index resource_id_bloom resource_id type bloom_filter(0.01) granularity 1,
    -- What was written after a moment: a takeover reads back only that.
    index ingested_at_range ingested_at type minmax granularity 1,

    -- A writer that lost its shard is refused here, with error 469, however late it wakes up.
    constraint writer_is_current
        check writer_epoch >= dictGet('keymeter.writer_fence_now', 'epochs', toUInt64(0))[shard + 1]
)
engine = MergeTree -- spread by cityHash64(key_id)
-- A month is few enough partitions for an insert of the last 35 days to touch at most three.
partition by toYYYYMM(occurred_at)
-- Every question names its workspace and most a key, and the log of a key is read by time; the request id makes
-- the order of equal times the same on every page.
order by (workspace_id, key_id, occurred_at, request_id)
-- Three months of single calls unless a workspace is given another time.
ttl toDateTime(occurred_at) + interval 90 day
settings
    -- An answered insert is on disk: edges then forget the events.
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    -- The engine's own deduplication can drop rows that were never written; the writer's protocol does not use it.
    non_replicated_deduplication_window = 0,
    -- A deletion rebuilds the projection with the rows.
    lightweight_mutation_projection_mode = 'rebuild';
