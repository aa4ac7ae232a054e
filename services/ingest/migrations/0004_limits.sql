-- What is known of the limit that a call came up against. Rows from before have 0.

alter table keymeter.request_events
    add column if not exists limit_window_s UInt32
        comment 'window of the limit that refused, or of the limit with the fewest calls left; 0 if none was asked'
        after limit_name;

alter table keymeter.request_events
    add column if not exists limit_remaining UInt64
        comment 'how many more calls that limit admitted right after this one, 0 if it refused'
        after limit_window_s;
