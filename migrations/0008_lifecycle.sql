-- The life of a version, and how traffic moves to it: states with their history, canary and shadow of an alias, pins,
-- scheduled changes, and what shadows were found to answer.

-- A version never changes, so where it stands in its life is kept beside it:
--
--   uploaded   its files are in the registry
--   checked    judged, loaded by a worker and probed: it may be pointed at
--   evaluated  somebody has put a report to it
--   live       an alias answers with it, always or as a canary
--   retired    for good: nothing may point at it, and it is not answered with
create table version_states (
  tenant_id uuid not null,
  adapter_id uuid not null,
  digest bytea not null,
  state text not null,
  -- Of its last evaluation.
  report jsonb,
  updated_at timestamptz not null default now(),
  constraint version_states_pkey primary key (tenant_id, adapter_id, digest),
  constraint version_states_version_fkey foreign key (tenant_id, adapter_id, digest)
    references adapter_versions (tenant_id, adapter_id, digest) on delete cascade,
  constraint version_states_state_known check (state in ('uploaded', 'checked', 'evaluated', 'live', 'retired')),
  constraint version_states_evaluated check (state <> 'evaluated' or report is not null),
  constraint version_states_report_size check (octet_length(report::text) <= 262144)
);

-- Every step of every version's life. No references: it outlives what it speaks of.
create table version_history (
  tenant_id uuid not null,
  id uuid not null,
  adapter_id uuid not null,
  digest bytea not null,
  -- Null for the first step.
  from_state text,
  to_state text not null,
  reason text not null,
  actor text not null,
  created_at timestamptz not null default now(),
  constraint version_history_pkey primary key (tenant_id, id),
  constraint version_history_state_known
    check (to_state in ('uploaded', 'checked', 'evaluated', 'live', 'retired', 'deleted')),
  constraint version_history_reason_length check (length(reason) <= 1024),
  constraint version_history_actor_length check (length(actor) between 1 and 256)
);
create index version_history_of_version on version_history (tenant_id, adapter_id, digest, id);
create trigger version_history_append_only before update or delete or truncate on version_history
  for each statement execute function refuse_change();

-- Versions that were there before states were have been judged and probed.
grant select, insert on version_states to banyan_platform;
alter table version_states enable row level security;
alter table version_states force row level security;
create policy version_states_platform on version_states to banyan_platform using (true) with check (true);
set local role banyan_platform;
insert into version_states (tenant_id, adapter_id, digest, state)
select v.tenant_id, v.adapter_id, v.digest,
       case when exists (select from aliases l
                          where l.tenant_id = v.tenant_id and l.adapter_id = v.adapter_id and l.digest = v.digest)
            then 'live' else 'checked' end
  from adapter_versions v;
reset role;
revoke insert on version_states from banyan_platform;

alter table aliases
  -- Stays for the alias's life: with it, a caller's key always falls on the same side of a weight.
  add column salt uuid not null default gen_random_uuid(),
  -- Weights in hundredths of a percent.
  add column canary_digest bytea,
  add column canary_weight integer,
  add column shadow_digest bytea,
  add column shadow_rate integer,
  add constraint aliases_canary_version_fkey foreign key (tenant_id, adapter_id, canary_digest)
    references adapter_versions (tenant_id, adapter_id, digest) on delete restrict,
  add constraint aliases_shadow_version_fkey foreign key (tenant_id, adapter_id, shadow_digest)
    references adapter_versions (tenant_id, adapter_id, digest) on delete restrict,
  add constraint aliases_canary_whole check ((canary_digest is null) = (canary_weight is null)),
  add constraint aliases_canary_weight_range check (canary_weight between 0 and 10000),
  add constraint aliases_canary_differs check (canary_digest <> digest),
  add constraint aliases_shadow_whole check ((shadow_digest is null) = (shadow_rate is null)),
  add constraint aliases_shadow_rate_range check (shadow_rate between 1 and 10000);
create index aliases_by_canary_version on aliases (tenant_id, adapter_id, canary_digest);
create index aliases_by_shadow_version on aliases (tenant_id, adapter_id, shadow_digest);

-- Whoever is pinned gets the pin's version, wherever the alias points, until the pin is over.
create table alias_pins (
  tenant_id uuid not null,
  id uuid not null,
  adapter_id uuid not null,
  alias text collate "C" not null,
  -- What `subject` is: nothing for all of the tenant, an API key's public id, or a caller's routing key.
  kind text not null,
  subject text not null,
  -- Of the API key.
  api_key_id uuid,
  digest bytea not null,
  reason text not null,
  actor text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  constraint alias_pins_pkey primary key (tenant_id, id),
  constraint alias_pins_subject_key unique (tenant_id, adapter_id, alias, kind, subject),
  constraint alias_pins_alias_fkey foreign key (tenant_id, adapter_id, alias)
    references aliases (tenant_id, adapter_id, name) on delete cascade,
  constraint alias_pins_version_fkey foreign key (tenant_id, adapter_id, digest)
    references adapter_versions (tenant_id, adapter_id, digest) on delete restrict,
  constraint alias_pins_kind_known check (kind in ('tenant', 'api_key', 'routing_key')),
  constraint alias_pins_subject_length check (length(subject) <= 256 and (kind = 'tenant') = (subject = '')),
  constraint alias_pins_api_key check ((kind = 'api_key') = (api_key_id is not null)),
  constraint alias_pins_reason_length check (length(reason) <= 1024)
);
create index alias_pins_by_version on alias_pins (tenant_id, adapter_id, digest);

-- Changes of an alias that take effect at a time. One that finds the alias changed by somebody else since it was planned
-- fails and changes nothing.
create table alias_schedules (
  tenant_id uuid not null,
  id uuid not null,
  adapter_id uuid not null,
  alias text collate "C" not null,
  action text not null,
  digest bytea,
  weight integer,
  due_at timestamptz not null,
  -- The alias as whoever planned this saw it; a planned change before this one hands its own on.
  expected_revision uuid not null,
  state text not null default 'pending',
  -- Why it failed.
  outcome text not null default '',
  actor text not null,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  constraint alias_schedules_pkey primary key (tenant_id, id),
  constraint alias_schedules_adapter_fkey foreign key (tenant_id, adapter_id)
    references adapters (tenant_id, id) on delete cascade,
  constraint alias_schedules_action_known
    check (action in ('move', 'canary', 'weight', 'clear_canary', 'promote', 'rollback')),
  constraint alias_schedules_digest check ((digest is not null) = (action in ('move', 'canary'))),
  constraint alias_schedules_weight check ((weight is not null) = (action in ('canary', 'weight'))),
  constraint alias_schedules_weight_range check (weight between 0 and 10000),
  constraint alias_schedules_state_known check (state in ('pending', 'done', 'failed', 'cancelled')),
  constraint alias_schedules_finished check ((state = 'pending') = (finished_at is null))
);
create index alias_schedules_due on alias_schedules (due_at, id) where state = 'pending';
create index alias_schedules_of_alias on alias_schedules (tenant_id, adapter_id, alias, due_at, id);

-- What shadows answered, against what was answered for real: sums for each pair of versions.
create table shadow_reports (
  tenant_id uuid not null,
  adapter_id uuid not null,
  alias text collate "C" not null,
  -- What answered.
  digest bytea not null,
  shadow_digest bytea not null,
  compared bigint not null default 0,
  -- Of those, with the same tokens throughout.
  equal bigint not null default 0,
  failed bigint not null default 0,
  -- Not even begun, because too many were under way.
  skipped bigint not null default 0,
  -- Over those that differ: tokens in front of the first difference.
  equal_tokens bigint not null default 0,
  -- In hundredths of a percent, summed.
  similarity bigint not null default 0,
  answer_ms bigint not null default 0,
  shadow_ms bigint not null default 0,
  -- What the shadow used, at the platform's cost.
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint shadow_reports_pkey primary key (tenant_id, adapter_id, alias, digest, shadow_digest),
  constraint shadow_reports_adapter_fkey foreign key (tenant_id, adapter_id)
    references adapters (tenant_id, id) on delete cascade,
  constraint shadow_reports_counts check (
    compared >= 0 and equal between 0 and compared and failed >= 0 and skipped >= 0 and equal_tokens >= 0
    and similarity >= 0 and answer_ms >= 0 and shadow_ms >= 0 and prompt_tokens >= 0 and completion_tokens >= 0
  )
);

create policy version_states_own on version_states to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
grant select, insert, update (state, report, updated_at) on version_states to banyan_app;

alter table version_history enable row level security;
alter table version_history force row level security;
create policy version_history_own on version_history to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy version_history_platform on version_history for select to banyan_platform using (true);
grant select, insert on version_history to banyan_app;
grant select on version_history to banyan_platform;

grant update (canary_digest, canary_weight, shadow_digest, shadow_rate) on aliases to banyan_app;

alter table alias_pins enable row level security;
alter table alias_pins force row level security;
create policy alias_pins_own on alias_pins to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy alias_pins_platform on alias_pins for select to banyan_platform using (true);
grant select, insert, delete on alias_pins to banyan_app;
grant select on alias_pins to banyan_platform;

alter table alias_schedules enable row level security;
alter table alias_schedules force row level security;
create policy alias_schedules_own on alias_schedules to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy alias_schedules_platform on alias_schedules for select to banyan_platform using (true);
grant select, insert, update (expected_revision, state, outcome, finished_at), delete on alias_schedules to banyan_app;
grant select on alias_schedules to banyan_platform;

alter table shadow_reports enable row level security;
alter table shadow_reports force row level security;
create policy shadow_reports_own on shadow_reports to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy shadow_reports_platform on shadow_reports for select to banyan_platform using (true);
grant select, insert, delete,
  update (compared, equal, failed, skipped, equal_tokens, similarity, answer_ms, shadow_ms, prompt_tokens,
          completion_tokens, updated_at)
  on shadow_reports to banyan_app;
grant select on shadow_reports to banyan_platform;

-- A version that is named by its digest is no more answered with from the moment that it is retired.
create constraint trigger version_states_change after update on version_states
  deferrable initially deferred for each row when (new.state = 'retired')
  execute function announce_adapter_part('adapter');
