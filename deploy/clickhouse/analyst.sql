-- The user of one workspace, after analysts.sql. `{user}` is analyst_<workspace id as a UUID>: the row policies go by the
-- name, so no other name may start so.

-- The password itself never reaches ClickHouse, nor its logs.
create user `{user}`{on_cluster} identified with sha256_hash by '{password_hash}' default role none;
grant{on_cluster} keymeter_analyst to `{user}`;
alter user `{user}`{on_cluster} default role keymeter_analyst;
