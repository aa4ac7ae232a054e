-- What edges of a newer version say of a call and this ingest does not know, so that a later one can read it here.

alter table keymeter.request_events
    add column if not exists unknown_fields String
        comment 'fields of the event that the ingest which wrote the row did not know, as they came; empty but after an edge was updated first';
