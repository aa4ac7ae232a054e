-- What a question costs grows with the parts that it opens, half a millisecond each. A month of which nothing has come
-- for a day is merged into one part, or as few as the largest merge allows; the open month has as many as merges leave.

alter table keymeter.request_events modify setting
    min_age_to_force_merge_seconds = 86400,
    min_age_to_force_merge_on_partition_only = 1;
