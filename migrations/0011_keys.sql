-- Roles that look and roles that build, rotation of keys with overlap, and when a key was last used.

alter table api_keys
  -- The secret before the last rotation, good until then.
  add column previous_secret_hash bytea,
  add column previous_expires_at timestamptz,
  -- A fresh id at every change: the etag.
  add column revision uuid not null default gen_random_uuid(),
  add constraint api_keys_previous_secret check (
    octet_length(previous_secret_hash) = 32 and (previous_secret_hash is null) = (previous_expires_at is null)
  ),
  drop constraint api_keys_role_known,
  add constraint api_keys_role_known
    check (role in ('inference', 'tenant_developer', 'tenant_admin', 'tenant_auditor'));

-- What a key is called, what it may cost and reach, and its secret change; whose it is and its role never do.
grant update (secret_hash, previous_secret_hash, previous_expires_at, display_name, expires_at, models, methods,
              requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrent_requests,
              budget_day_micros, budget_month_micros, revision) on api_keys to banyan_app;

-- Apart from the keys, so that accounting never writes what decides who gets in. Written in batches, so a little late.
create table api_key_uses (
  tenant_id uuid not null,
  api_key_id uuid not null,
  used_at timestamptz not null,
  constraint api_key_uses_pkey primary key (tenant_id, api_key_id),
  constraint api_key_uses_key_fkey foreign key (tenant_id, api_key_id)
    references api_keys (tenant_id, id) on delete cascade
);
alter table api_key_uses enable row level security;
alter table api_key_uses force row level security;
create policy api_key_uses_own on api_key_uses for select to banyan_app
  using (tenant_id = (select banyan_tenant_id()));
create policy api_key_uses_platform on api_key_uses to banyan_platform using (true) with check (true);
grant select on api_key_uses to banyan_app;
grant select, insert, update (used_at) on api_key_uses to banyan_platform;

-- find_api_key for many keys at once, and with the secret before the last rotation. The old one stays for gateways of
-- the version before.
create function find_api_keys(wanted text[])
  returns table (
    tenant_id uuid, id uuid, public_id text, secret_hash bytea, previous_secret_hash bytea,
    previous_expires_at timestamptz, role text, expires_at timestamptz, revoked_at timestamptz,
    models text[], methods text[], tenant_slug text, share_group uuid,
    requests_per_minute bigint, input_tokens_per_minute bigint, output_tokens_per_minute bigint,
    concurrent_requests bigint, budget_day_micros bigint, budget_month_micros bigint,
    adapters_max bigint, adapter_bytes_max bigint, adapter_rank_max bigint,
    key_requests_per_minute bigint, key_input_tokens_per_minute bigint, key_output_tokens_per_minute bigint,
    key_concurrent_requests bigint, key_budget_day_micros bigint, key_budget_month_micros bigint,
    weight bigint, priority bigint, kv_blocks_max bigint, resident_adapters_max bigint, waiting_requests_max bigint,
    limits_outage text
  )
  language sql stable security definer
  set search_path = ''
  as $$
    select k.tenant_id, k.id, k.public_id, k.secret_hash, k.previous_secret_hash, k.previous_expires_at,
           k.role, k.expires_at, k.revoked_at, k.models, k.methods, t.slug, t.share_group,
           coalesce(t.requests_per_minute, p.requests_per_minute),
           coalesce(t.input_tokens_per_minute, p.input_tokens_per_minute),
           coalesce(t.output_tokens_per_minute, p.output_tokens_per_minute),
           coalesce(t.concurrent_requests, p.concurrent_requests),
           coalesce(t.budget_day_micros, p.budget_day_micros),
           coalesce(t.budget_month_micros, p.budget_month_micros),
           coalesce(t.adapters_max, p.adapters_max),
           coalesce(t.adapter_bytes_max, p.adapter_bytes_max),
           coalesce(t.adapter_rank_max, p.adapter_rank_max),
           k.requests_per_minute, k.input_tokens_per_minute, k.output_tokens_per_minute,
           k.concurrent_requests, k.budget_day_micros, k.budget_month_micros,
           p.weight, p.priority, p.kv_blocks_max, p.resident_adapters_max, p.waiting_requests_max,
           p.limits_outage
      from public.api_keys k
      join public.tenants t on t.id = k.tenant_id
      join public.plans p on p.slug = t.plan
     where k.public_id = any (wanted)
  $$;
revoke all on function find_api_keys (text[]) from public;
grant execute on function find_api_keys (text[]) to banyan_app, banyan_platform;
grant create on schema public to banyan_platform;
alter function find_api_keys (text[]) owner to banyan_platform;
revoke create on schema public from banyan_platform;
