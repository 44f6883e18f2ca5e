-- Tenants and their API keys.

create table tenants (
  id uuid not null,
  -- The last segment of the tenant's name.
  slug text collate "C" not null,
  display_name text not null default '',
  -- Tenants of one group may share KV prefixes. A group of its own by default: its id.
  share_group uuid not null,
  -- Limits; null means the platform's default.
  requests_per_minute bigint,
  tokens_per_minute bigint,
  concurrent_requests bigint,
  adapters_max bigint,
  adapter_bytes_max bigint,
  adapter_rank_max bigint,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint tenants_pkey primary key (id),
  constraint tenants_slug_key unique (slug),
  constraint tenants_slug_format check (slug ~ '^[a-z][a-z0-9-]{1,62}$'),
  constraint tenants_display_name_length check (length(display_name) <= 256),
  constraint tenants_limits_positive check (
    requests_per_minute > 0 and tokens_per_minute > 0 and concurrent_requests > 0
    and adapters_max > 0 and adapter_bytes_max > 0 and adapter_rank_max > 0
  )
);

alter table tenants enable row level security;
alter table tenants force row level security;
create policy tenants_own on tenants for select to banyan_app using (id = (select banyan_tenant_id()));
create policy tenants_platform on tenants to banyan_platform using (true) with check (true);
grant select on tenants to banyan_app;
grant select, insert, update, delete on tenants to banyan_platform;

create table api_keys (
  tenant_id uuid not null,
  id uuid not null,
  -- The part of the key that is not secret, and by which it is found.
  public_id text not null,
  -- HMAC-SHA256 of the secret under the gateway's pepper.
  secret_hash bytea not null,
  display_name text not null default '',
  role text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  constraint api_keys_pkey primary key (tenant_id, id),
  -- Over all tenants: a key is looked up before its tenant is known.
  constraint api_keys_public_id_key unique (public_id),
  constraint api_keys_tenant_fkey foreign key (tenant_id) references tenants (id) on delete restrict,
  constraint api_keys_role_known check (role in ('inference', 'tenant_admin')),
  constraint api_keys_secret_hash_length check (octet_length(secret_hash) = 32),
  constraint api_keys_display_name_length check (length(display_name) <= 256)
);

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy api_keys_own on api_keys to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy api_keys_platform on api_keys to banyan_platform using (true) with check (true);
-- Nothing of a key changes but that it may be revoked.
grant select, insert, update (revoked_at) on api_keys to banyan_app;
grant select, delete on api_keys to banyan_platform;

-- The one door that opens before the tenant is known: who presents this key? At most one row, by exact public id, with
-- what the gateway needs to admit the request. It runs as banyan_platform; with an empty search path, every name in it
-- is qualified, so that no object of the caller's can take the place of ours.
create function find_api_key(wanted text)
  returns table (
    tenant_id uuid, id uuid, public_id text, secret_hash bytea, role text, expires_at timestamptz, revoked_at timestamptz,
    tenant_slug text, share_group uuid, requests_per_minute bigint, tokens_per_minute bigint, concurrent_requests bigint,
    adapters_max bigint, adapter_bytes_max bigint, adapter_rank_max bigint
  )
  language sql stable security definer rows 1
  set search_path = ''
  as $$
    select k.tenant_id, k.id, k.public_id, k.secret_hash, k.role, k.expires_at, k.revoked_at,
           t.slug, t.share_group, t.requests_per_minute, t.tokens_per_minute, t.concurrent_requests,
           t.adapters_max, t.adapter_bytes_max, t.adapter_rank_max
      from public.api_keys k
      join public.tenants t on t.id = k.tenant_id
     where k.public_id = wanted
  $$;
revoke all on function find_api_key (text) from public;
grant execute on function find_api_key (text) to banyan_app, banyan_platform;
-- Its owner-to-be must be allowed to create in the schema for the moment of the hand-over.
grant create on schema public to banyan_platform;
alter function find_api_key (text) owner to banyan_platform;
revoke create on schema public from banyan_platform;
