-- What questions want beside rows: two small rollups in place of a wide one, and which granules can hold an address, a
-- secret or a latency. PROTOCOL.md says nothing of them: no write depends on any.

alter table keymeter.request_events
    add index if not exists client_ip_bloom client_ip type bloom_filter(0.01) granularity 1;
alter table keymeter.request_events
    add index if not exists secret_id_set secret_id type set(8) granularity 1;
alter table keymeter.request_events
    add index if not exists latency_us_range latency_us type minmax granularity 1;

-- Routes are what makes groups many. Without them a key's 30 days are a twentieth as many groups; with them, days are
-- fine enough, since what is left of a range at its ends is read from rows. Together they have fewer groups than the
-- one before: 0.44 an event instead of 0.52, with 10,000 keys and 200 routes.
alter table keymeter.request_events
    add projection if not exists totals_by_quarter_hour
    (
        select
            workspace_id, key_id, toStartOfFifteenMinutes(occurred_at), method, status_code, outcome, origin, denial,
            count(), sum(latency_us), max(occurred_at)
        group by
            workspace_id, key_id, toStartOfFifteenMinutes(occurred_at), method, status_code, outcome, origin, denial
    );
alter table keymeter.request_events
    add projection if not exists totals_by_day
    (
        select
            workspace_id, key_id, toDate(occurred_at), route, method, status_code, outcome, origin, denial, count()
        group by
            workspace_id, key_id, toDate(occurred_at), route, method, status_code, outcome, origin, denial
    );
alter table keymeter.request_events drop projection if exists by_quarter_hour;

-- In the background. Parts that lack them still are read from their rows, with the same answers.
alter table keymeter.request_events materialize projection totals_by_quarter_hour;
alter table keymeter.request_events materialize projection totals_by_day;
