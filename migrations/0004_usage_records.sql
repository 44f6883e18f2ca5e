-- One row for each answered (or broken off) request: what totals and invoices are derived from. Append-only.

create table usage_records (
  tenant_id uuid not null,
  -- The request's id, which the client was told.
  id uuid not null,
  api_key_id uuid not null,
  -- The model as the request named it.
  model text not null,
  -- Null for the base model.
  adapter_digest bytea,
  base_digest bytea not null,
  worker text not null,
  prompt_tokens bigint not null,
  -- Of those, how many came from the prefix cache.
  cached_prompt_tokens bigint not null,
  completion_tokens bigint not null,
  outcome text not null,
  finish_reason text,
  -- From the request's arrival to its first token, null if there was none, and to its end.
  first_token_ms bigint,
  duration_ms bigint not null,
  created_at timestamptz not null default now(),
  constraint usage_records_pkey primary key (tenant_id, id),
  constraint usage_records_adapter_digest_length check (octet_length(adapter_digest) = 32),
  constraint usage_records_base_digest_length check (octet_length(base_digest) = 32),
  constraint usage_records_tokens check (
    prompt_tokens >= 0 and completion_tokens >= 0 and cached_prompt_tokens between 0 and prompt_tokens
  ),
  constraint usage_records_outcome_known check (outcome in ('finished', 'cancelled', 'deadline_exceeded', 'failed')),
  constraint usage_records_finish_reason_known check (finish_reason in ('eos', 'stop', 'length')),
  constraint usage_records_finished check ((outcome = 'finished') = (finish_reason is not null)),
  constraint usage_records_times check (duration_ms >= 0 and first_token_ms >= 0)
);
-- No references: a record outlives the tenant, the key and the adapter that it speaks of.

create trigger usage_records_append_only before update or delete or truncate on usage_records
  for each statement execute function refuse_change();

alter table usage_records enable row level security;
alter table usage_records force row level security;
create policy usage_records_own on usage_records to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy usage_records_platform on usage_records for select to banyan_platform using (true);
grant select, insert on usage_records to banyan_app;
grant select on usage_records to banyan_platform;
