-- Fills a workspace with keys as they look after some years of use, for measurements only: rows of the projection
-- with their events, secrets and activity, but without sealed copies and without the feed.
--
-- usage: psql DATABASE_URL -v workspace="'UUID'" -v keys=1000000 -f tests/bench-data/keys.sql
--   workspace   an existing workspace, as a UUID in quotes
--   keys        how many keys to add
--
-- The same numbers on every run: nothing is random, everything follows from a key's number. Of the keys 3 % are
-- deleted, 2 % disabled, 10 % expire, 30 % were never used, 0.1 % were exposed, 1 % have two working secrets,
-- 1 % were used from many addresses. Minutes for a million.

begin;

create temporary table made on commit drop as
select n,
       gen_random_uuid() as key_id,
       gen_random_uuid() as secret_id,
       gen_random_uuid() as second_id,
       now() - interval '3 years' * (1 - n::float8 / :keys) as create_time,
       'km_live_' || substr(md5(n::text), 1, 4) as start,
       (array['billing', 'payroll', 'search', 'reports', 'mobile', 'partner', 'nightly', 'import'])[1 + n % 8]
         || ' ' || (array['service', 'job', 'client', 'worker', 'script'])[1 + n / 8 % 5] || ' ' || n as display_name,
       n % 100 < 3 as is_deleted,
       n % 100 in (3, 4) as is_disabled,
       n % 10 = 7 as expires,
       n % 10 < 3 as is_unused,
       n % 1000 = 501 as is_exposed,
       n % 100 = 11 as has_second,
       n % 100 = 13 as has_addresses
from generate_series(1, :keys) as n;

insert into keys (key_id, workspace_id, version, display_name, description, environment, start, create_time,
                  update_time, expire_time, delete_time, tags, owner, scopes, disable_time, expose_time)
select key_id, :workspace, 1, display_name, 'made for measurements, number ' || n,
       case when n % 5 = 0 then 'test' else 'live' end, start, create_time, create_time,
       case when expires then create_time + interval '3 years' * (n % 97) / 48 end,
       case when is_deleted then create_time + interval '1 hour' end,
       jsonb_build_object('team', 'team-' || abs(hashint4(n::integer)) % 50, 'env', (array['prod', 'staging'])[1 + n % 2]),
       'svc_0000000000000000000000000' || n % 10,
       array['orders:read'],
       case when is_disabled then create_time + interval '1 hour' end,
       case when is_exposed then create_time + interval '1 hour' end
from made;

insert into key_events (workspace_id, key_id, version, type, payload, actor, event_time)
select :workspace, key_id, 1, 'created', '{}', 'bench', create_time from made;

insert into secrets (secret_id, key_id, key_version, secret_hash, start, create_time, retire_time)
select secret_id, key_id, 1, sha256(secret_id::text::bytea), start, create_time,
       case when has_second then now() + interval '20 days' end
from made;

insert into secrets (secret_id, key_id, key_version, secret_hash, start, create_time)
select second_id, key_id, 2, sha256(second_id::text::bytea), start, create_time + interval '1 minute'
from made where has_second;

insert into key_activity (key_id, workspace_id, last_used_time, address_count)
select key_id, :workspace,
       case when not is_unused then create_time + (now() - create_time) * (n % 101 / 101.0) end,
       case when has_addresses then 5 + n / 100 % 60 when is_unused then 0 else 1 + n % 3 end
from made;

insert into secret_activity (secret_id, last_used_time)
select secret_id, create_time + (now() - create_time) * (n % 101 / 101.0) from made where not is_unused;

commit;

analyze keys, secrets, key_events, key_activity, secret_activity;
