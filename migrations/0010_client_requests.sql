-- Requests that their clients have named, so that a repeat gets the same answer: one row for each while its window lasts.
-- It says which run answers, and keeps the finished answer. In PostgreSQL and not in Redis, because a lost row would be an
-- answer that is billed twice; only requests with a name pay for it.

create table client_requests (
  tenant_id uuid not null,
  -- Names of one key mean nothing to another.
  api_key_id uuid not null,
  client_request_id text collate "C" not null,
  -- SHA-256 of all that the request asks for.
  fingerprint bytea not null,
  -- The request id of the run that answers, and the seed of its sampling (the bits of an unsigned number).
  run_id uuid not null,
  seed bigint not null,
  -- Until when the run counts as alive without a renewal.
  claimed_until timestamptz not null,
  -- Null while it runs.
  answer bytea,
  -- End of the window.
  expires_at timestamptz not null,
  created_at timestamptz not null default now(),
  constraint client_requests_pkey primary key (tenant_id, api_key_id, client_request_id),
  constraint client_requests_api_key_fkey foreign key (tenant_id, api_key_id)
    references api_keys (tenant_id, id) on delete cascade,
  constraint client_requests_id_length check (length(client_request_id) between 1 and 255),
  constraint client_requests_fingerprint_length check (octet_length(fingerprint) = 32)
);
create index client_requests_by_expiry on client_requests (expires_at);

alter table client_requests enable row level security;
alter table client_requests force row level security;
create policy client_requests_own on client_requests to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy client_requests_platform on client_requests for delete to banyan_platform using (true);
create policy client_requests_expired on client_requests for select to banyan_platform using (true);
grant select, insert, update, delete on client_requests to banyan_app;
-- Enough to delete what has expired: no answer can be read across tenants.
grant select (tenant_id, api_key_id, client_request_id, expires_at), delete on client_requests to banyan_platform;
