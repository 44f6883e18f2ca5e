-- Money: what tokens cost, and the ledger of what was held and charged for each request. Amounts are whole micro-units
-- (millionths) of the currency; prices are for a million tokens. Both tables are append-only.

create table prices (
  -- UUID version 7: of two prices that take effect at the same time, the one made later holds.
  id uuid not null,
  -- Null: the platform's list, behind every tenant's own.
  tenant_id uuid,
  -- `base`, `<tenant>/<adapter>`, or `*` for every model that has no price of its own in the same list.
  model text collate "C" not null,
  input_micros bigint not null,
  cached_input_micros bigint not null,
  output_micros bigint not null,
  effective_at timestamptz not null,
  created_at timestamptz not null default now(),
  constraint prices_pkey primary key (id),
  -- Adapters belong to tenants, and so do their prices: the platform's list, which everybody sees, names none.
  constraint prices_model_format check (
    model in ('*', 'base')
    or (tenant_id is not null and model ~ '^[a-z][a-z0-9-]{1,62}/[a-z][a-z0-9-]{1,62}$')
  ),
  constraint prices_range check (
    input_micros between 0 and (1::bigint << 53) - 1 and cached_input_micros between 0 and (1::bigint << 53) - 1
    and output_micros between 0 and (1::bigint << 53) - 1
  ),
  -- What held yesterday is not to be changed today.
  constraint prices_not_in_the_past check (effective_at >= created_at)
);
create index prices_by_model on prices (tenant_id, model, effective_at desc, id desc);
create trigger prices_append_only before update or delete or truncate on prices
  for each statement execute function refuse_change();

alter table prices enable row level security;
alter table prices force row level security;
create policy prices_own on prices for select to banyan_app
  using (tenant_id is null or tenant_id = (select banyan_tenant_id()));
create policy prices_platform on prices to banyan_platform using (true) with check (true);
grant select on prices to banyan_app;
grant select, insert on prices to banyan_platform;

-- One `reserved` entry for each request that was let through, before it ran, and one that ends it:
--
--   reserved   what the limits charged for its beginning is held
--   posted     it is released, and what was used is charged
--   voided     it is released: nothing ran
--   expired    it is released: nobody knows what ran, so nothing is charged
create table ledger_entries (
  tenant_id uuid not null,
  request_id uuid not null,
  kind text collate "C" not null,
  -- When the request was let through, in all of its entries: the day and month of UTC that its cost belongs to.
  at timestamptz not null,
  api_key_id uuid not null,
  -- `base` or `<tenant>/<adapter>`.
  model text collate "C" not null,
  -- The price that held then, for a million tokens.
  price_input_micros bigint not null,
  price_cached_input_micros bigint not null,
  price_output_micros bigint not null,
  -- Of a posted entry: used. Of a reserved one: the prompt's, and the most that the answer may have.
  prompt_tokens bigint not null,
  cached_prompt_tokens bigint not null,
  completion_tokens bigint not null,
  held_micros bigint not null,
  charged_micros bigint not null,
  -- Whose log it came from.
  gateway_id uuid not null,
  created_at timestamptz not null default now(),
  constraint ledger_entries_pkey primary key (tenant_id, request_id, kind),
  constraint ledger_entries_kind_known check (kind in ('reserved', 'posted', 'voided', 'expired')),
  constraint ledger_entries_amounts check (
    held_micros >= 0 and charged_micros >= 0 and (kind = 'posted' or charged_micros = 0)
    and price_input_micros >= 0 and price_cached_input_micros >= 0 and price_output_micros >= 0
  ),
  constraint ledger_entries_tokens check (
    prompt_tokens >= 0 and completion_tokens >= 0 and cached_prompt_tokens between 0 and prompt_tokens
    and (kind in ('reserved', 'posted') or prompt_tokens + completion_tokens = 0)
  )
);
-- A request ends once.
create unique index ledger_entries_end_key on ledger_entries (tenant_id, request_id) where kind <> 'reserved';
create index ledger_entries_by_time on ledger_entries (tenant_id, at desc, request_id desc, kind desc);
-- No references: an entry outlives the tenant, the key and the adapter that it speaks of.
create trigger ledger_entries_append_only before update or delete or truncate on ledger_entries
  for each statement execute function refuse_change();

-- The entries as transfers between a tenant's accounts: debits and credits are equal because every row is both.
--   customer   what the tenant owes (debits over credits)
--   held       what running requests may come to; back at zero when none runs
--   revenue    what was charged
create view ledger_transfers with (security_invoker = true) as
  select tenant_id, request_id, kind, at, api_key_id, 'customer' as debit, 'held' as credit, held_micros as amount_micros
    from ledger_entries where kind = 'reserved'
  union all
  select tenant_id, request_id, kind, at, api_key_id, 'held', 'customer', held_micros
    from ledger_entries where kind <> 'reserved'
  union all
  select tenant_id, request_id, kind, at, api_key_id, 'customer', 'revenue', charged_micros
    from ledger_entries where kind = 'posted';

-- The reserved entries that have no end yet, with what it takes to end them: a list of work, kept in the transactions that
-- write entries. It says nothing that the ledger does not say.
create table ledger_open (
  tenant_id uuid not null,
  request_id uuid not null,
  api_key_id uuid not null,
  at timestamptz not null,
  held_micros bigint not null,
  gateway_id uuid not null,
  -- When the request has surely ended.
  deadline timestamptz not null,
  -- As the request named it, and what it meant.
  model text not null,
  adapter_digest bytea,
  base_digest bytea not null,
  constraint ledger_open_pkey primary key (tenant_id, request_id),
  constraint ledger_open_adapter_digest_length check (octet_length(adapter_digest) = 32),
  constraint ledger_open_base_digest_length check (octet_length(base_digest) = 32)
);
create index ledger_open_by_deadline on ledger_open (deadline);

alter table ledger_entries enable row level security;
alter table ledger_entries force row level security;
create policy ledger_entries_own on ledger_entries for select to banyan_app
  using (tenant_id = (select banyan_tenant_id()));
create policy ledger_entries_platform on ledger_entries to banyan_platform using (true) with check (true);
grant select on ledger_entries, ledger_transfers to banyan_app;
grant select, insert on ledger_entries to banyan_platform;
grant select on ledger_transfers to banyan_platform;

alter table ledger_open enable row level security;
alter table ledger_open force row level security;
create policy ledger_open_own on ledger_open for select to banyan_app
  using (tenant_id = (select banyan_tenant_id()));
create policy ledger_open_platform on ledger_open to banyan_platform using (true) with check (true);
grant select on ledger_open to banyan_app;
grant select, insert, delete on ledger_open to banyan_platform;

-- Usage records come with the entries that end requests, of all tenants in one transaction: tenants read them.
drop policy usage_records_own on usage_records;
drop policy usage_records_platform on usage_records;
create policy usage_records_own on usage_records for select to banyan_app
  using (tenant_id = (select banyan_tenant_id()));
create policy usage_records_platform on usage_records to banyan_platform using (true) with check (true);
revoke insert on usage_records from banyan_app;
grant insert on usage_records to banyan_platform;
