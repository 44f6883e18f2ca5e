-- Plans: terms that tenants share. A tenant's limit is its own, else its plan's, else the platform's default. Limits are
-- of input and output tokens apart, of money, and for each key besides.

create table plans (
  -- The last segment of the plan's name.
  slug text collate "C" not null,
  display_name text not null default '',
  -- Limits; null means the platform's default. Money in millionths of the currency, for a day and a month of UTC.
  requests_per_minute bigint,
  input_tokens_per_minute bigint,
  output_tokens_per_minute bigint,
  concurrent_requests bigint,
  budget_day_micros bigint,
  budget_month_micros bigint,
  adapters_max bigint,
  adapter_bytes_max bigint,
  adapter_rank_max bigint,
  -- A tenant's part in each worker; 0 means the worker's default.
  weight bigint not null default 0,
  priority bigint not null default 0,
  kv_blocks_max bigint not null default 0,
  resident_adapters_max bigint not null default 0,
  waiting_requests_max bigint not null default 0,
  -- What happens to requests while the shared limits do not answer.
  limits_outage text not null default 'closed',
  -- A fresh id at every change: the etag.
  revision uuid not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint plans_pkey primary key (slug),
  constraint plans_slug_format check (slug ~ '^[a-z][a-z0-9-]{1,62}$'),
  constraint plans_display_name_length check (length(display_name) <= 256),
  constraint plans_limits_positive check (
    requests_per_minute > 0 and input_tokens_per_minute > 0 and output_tokens_per_minute > 0
    and concurrent_requests > 0 and budget_day_micros > 0 and budget_month_micros > 0
    and adapters_max > 0 and adapter_bytes_max > 0 and adapter_rank_max > 0
  ),
  -- Counted exactly where numbers are doubles.
  constraint plans_budgets_exact check (budget_day_micros < 1::bigint << 53 and budget_month_micros < 1::bigint << 53),
  constraint plans_share_range check (
    weight between 0 and 4294967295 and priority between 0 and 4294967295 and kv_blocks_max between 0 and 4294967295
    and resident_adapters_max between 0 and 4294967295 and waiting_requests_max between 0 and 4294967295
  ),
  constraint plans_limits_outage_known check (limits_outage in ('closed', 'open'))
);

-- Every tenant has a plan, so there always is this one.
insert into plans (slug, display_name, revision) values ('default', 'Default', gen_random_uuid());
create trigger plans_default_stays before delete on plans
  for each row when (old.slug = 'default') execute function refuse_change();

alter table tenants drop constraint tenants_limits_positive;
alter table tenants
  drop column tokens_per_minute,
  add column plan text collate "C" not null default 'default',
  add column input_tokens_per_minute bigint,
  add column output_tokens_per_minute bigint,
  add column budget_day_micros bigint,
  add column budget_month_micros bigint,
  -- A fresh id at every change: the etag.
  add column revision uuid not null default gen_random_uuid(),
  add constraint tenants_plan_fkey foreign key (plan) references plans (slug) on delete restrict,
  add constraint tenants_limits_positive check (
    requests_per_minute > 0 and input_tokens_per_minute > 0 and output_tokens_per_minute > 0
    and concurrent_requests > 0 and budget_day_micros > 0 and budget_month_micros > 0
    and adapters_max > 0 and adapter_bytes_max > 0 and adapter_rank_max > 0
  ),
  add constraint tenants_budgets_exact check (
    budget_day_micros < 1::bigint << 53 and budget_month_micros < 1::bigint << 53
  );
create index tenants_by_plan on tenants (plan);

alter table plans enable row level security;
alter table plans force row level security;
-- A tenant sees the plan that it has.
create policy plans_own on plans for select to banyan_app
  using (slug = (select t.plan from tenants t where t.id = (select banyan_tenant_id())));
create policy plans_platform on plans to banyan_platform using (true) with check (true);
grant select on plans to banyan_app;
grant select, insert, delete,
  update (display_name, requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrent_requests,
          budget_day_micros, budget_month_micros, adapters_max, adapter_bytes_max, adapter_rank_max, weight, priority,
          kv_blocks_max, resident_adapters_max, waiting_requests_max, limits_outage, revision, updated_at)
  on plans to banyan_platform;

alter table api_keys
  -- The key's own limits, beside its tenant's; null means none.
  add column requests_per_minute bigint,
  add column input_tokens_per_minute bigint,
  add column output_tokens_per_minute bigint,
  add column concurrent_requests bigint,
  add column budget_day_micros bigint,
  add column budget_month_micros bigint,
  -- What the key may be used for; null means everything.
  add column models text[],
  add column methods text[],
  add constraint api_keys_limits_positive check (
    requests_per_minute > 0 and input_tokens_per_minute > 0 and output_tokens_per_minute > 0
    and concurrent_requests > 0 and budget_day_micros > 0 and budget_month_micros > 0
  ),
  add constraint api_keys_budgets_exact check (
    budget_day_micros < 1::bigint << 53 and budget_month_micros < 1::bigint << 53
  ),
  add constraint api_keys_scopes check (cardinality(models) > 0 and cardinality(methods) > 0);

-- As before, and with what plans and keys say: a tenant's limits come with its plan's filled in.
drop function find_api_key (text);
create function find_api_key(wanted text)
  returns table (
    tenant_id uuid, id uuid, public_id text, secret_hash bytea, role text, expires_at timestamptz, revoked_at timestamptz,
    models text[], methods text[], tenant_slug text, share_group uuid,
    requests_per_minute bigint, input_tokens_per_minute bigint, output_tokens_per_minute bigint,
    concurrent_requests bigint, budget_day_micros bigint, budget_month_micros bigint,
    adapters_max bigint, adapter_bytes_max bigint, adapter_rank_max bigint,
    key_requests_per_minute bigint, key_input_tokens_per_minute bigint, key_output_tokens_per_minute bigint,
    key_concurrent_requests bigint, key_budget_day_micros bigint, key_budget_month_micros bigint,
    weight bigint, priority bigint, kv_blocks_max bigint, resident_adapters_max bigint, waiting_requests_max bigint,
    limits_outage text
  )
  language sql stable security definer rows 1
  set search_path = ''
  as $$
    select k.tenant_id, k.id, k.public_id, k.secret_hash, k.role, k.expires_at, k.revoked_at,
           k.models, k.methods, t.slug, t.share_group,
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
     where k.public_id = wanted
  $$;
revoke all on function find_api_key (text) from public;
grant execute on function find_api_key (text) to banyan_app, banyan_platform;
grant create on schema public to banyan_platform;
alter function find_api_key (text) owner to banyan_platform;
revoke create on schema public from banyan_platform;

-- An answer also ends when a limit leaves no more tokens for it.
alter table usage_records drop constraint usage_records_finish_reason_known;
alter table usage_records add constraint usage_records_finish_reason_known
  check (finish_reason in ('eos', 'stop', 'length', 'budget'));
