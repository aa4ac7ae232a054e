-- People who sign in at an OpenID Connect provider.

create table identities (
  issuer      text not null, -- the provider
  subject     text not null, -- the person there, for good; an e-mail address may pass to somebody else
  account_id  uuid not null references accounts,
  create_time timestamptz not null,
  primary key (issuer, subject),
  unique (account_id, issuer)
);

-- Ways back from the provider that were used, kept while they would be taken.
create table used_flows (
  flow_hash bytea primary key, -- SHA-256 of the flow
  use_time  timestamptz not null
);
create index used_flows_by_time on used_flows (use_time);

alter table accounts alter column password_hash drop not null; -- null: signs in at the provider only
alter table sessions add column by_provider boolean not null default false; -- or by password
