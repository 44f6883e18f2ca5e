-- The change feed: what gateways remember of the database, in the order in which it changed; and the gateways that read
-- it.
--
-- A position is taken by counting up the one row of change_head, which stays locked until the transaction ends. So
-- positions become visible in their own order and without gaps: a reader that sees N sees all below N, for good. Triggers
-- announce, so no way of writing can forget to; they are deferred to the commit, so the lock is the last one that a
-- transaction takes and is held for the length of a commit alone.

create table change_head (
  one boolean not null default true,
  position bigint not null,
  constraint change_head_pkey primary key (one),
  constraint change_head_one check (one)
);
insert into change_head (position) values (0);

create table changes (
  position bigint not null,
  kind text not null,
  -- Null: of no tenant in particular.
  tenant_id uuid,
  -- What has changed, by the last segments of its name.
  subject text not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint changes_pkey primary key (position)
);
create index changes_by_age on changes (created_at);

create table gateways (
  -- Of the process: another one after every start.
  id uuid not null,
  name text not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  -- All changes up to this position hold in this gateway.
  seen_change bigint not null,
  constraint gateways_pkey primary key (id),
  constraint gateways_name_length check (length(name) <= 256)
);

alter table change_head enable row level security;
alter table change_head force row level security;
create policy change_head_platform on change_head to banyan_platform using (true) with check (true);
grant select, update (position) on change_head to banyan_platform;

alter table changes enable row level security;
alter table changes force row level security;
create policy changes_own on changes for select to banyan_app using (tenant_id = (select banyan_tenant_id()));
create policy changes_platform on changes to banyan_platform using (true) with check (true);
grant select on changes to banyan_app;
grant select, insert, delete on changes to banyan_platform;

alter table gateways enable row level security;
alter table gateways force row level security;
create policy gateways_platform on gateways to banyan_platform using (true) with check (true);
grant select, insert, update (seen_at, seen_change), delete on gateways to banyan_platform;

create function append_change(kind text, tenant uuid, subject text) returns void
  language sql security definer
  set search_path = ''
  as $$
    with next as (update public.change_head set position = position + 1 returning position)
    insert into public.changes (position, kind, tenant_id, subject) select next.position, $1, $2, $3 from next
  $$;
revoke all on function append_change (text, uuid, text) from public;

-- For a table whose rows gateways remember, as a deferred constraint trigger for each row. Arguments: the kind, the column
-- that names the subject, and the one that names the tenant, if the table has such a one.
create function announce_change() returns trigger
  language plpgsql security definer
  set search_path = ''
  as $$
declare
  changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
begin
  perform public.append_change(tg_argv[0], (changed ->> tg_argv[2])::uuid, changed ->> tg_argv[1]);
  return null;
end
$$;

-- Of aliases, `<adapter>@<alias>`; of versions, their adapter. One whose adapter is gone was announced with it.
create function announce_adapter_part() returns trigger
  language plpgsql security definer
  set search_path = ''
  as $$
declare
  changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
  adapter text;
begin
  select a.slug into adapter
    from public.adapters a
   where a.tenant_id = (changed ->> 'tenant_id')::uuid and a.id = (changed ->> 'adapter_id')::uuid;
  if found then
    perform public.append_change(tg_argv[0], (changed ->> 'tenant_id')::uuid,
                                 concat_ws('@', adapter, case tg_argv[0] when 'alias' then changed ->> 'name' end));
  end if;
  return null;
end
$$;

grant create on schema public to banyan_platform;
alter function append_change (text, uuid, text) owner to banyan_platform;
alter function announce_change () owner to banyan_platform;
alter function announce_adapter_part () owner to banyan_platform;
revoke create on schema public from banyan_platform;

create constraint trigger api_keys_change after insert or update or delete on api_keys
  deferrable initially deferred for each row execute function announce_change('api_key', 'public_id', 'tenant_id');
create constraint trigger tenants_change after insert or update or delete on tenants
  deferrable initially deferred for each row execute function announce_change('tenant', 'slug', 'id');
create constraint trigger plans_change after insert or update or delete on plans
  deferrable initially deferred for each row execute function announce_change('plan', 'slug');
create constraint trigger adapters_change after insert or update or delete on adapters
  deferrable initially deferred for each row execute function announce_change('adapter', 'slug', 'tenant_id');
create constraint trigger adapter_versions_change after delete on adapter_versions
  deferrable initially deferred for each row execute function announce_adapter_part('adapter');
create constraint trigger aliases_change after insert or update or delete on aliases
  deferrable initially deferred for each row execute function announce_adapter_part('alias');
