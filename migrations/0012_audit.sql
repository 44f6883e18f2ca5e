-- The audit trail: what was changed by whom, and what was refused. One hash chain for each tenant and one for the
-- platform (the nil uuid). Triggers write it in the transaction of the change, so there is no change without its entry,
-- by whatever way it comes; deferred to the commit, as the change feed's are.
--
-- Who acts is `banyan.actor`, a JSON object that the store sets for each transaction; without one it is the database's
-- user. An entry's content is a text, and its hash is SHA-256 of the hash before it and that text; the first one's before
-- it is SHA-256 of the chain's id. The head of each chain is kept apart, so that a missing tail shows too.

create table audit_heads (
  chain uuid not null,
  tenant_id uuid,
  position bigint not null,
  hash bytea not null,
  constraint audit_heads_pkey primary key (chain),
  constraint audit_heads_chain check (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = chain)
);

create table audit_entries (
  chain uuid not null,
  -- From 1, without gaps.
  position bigint not null,
  tenant_id uuid,
  content text not null,
  previous_hash bytea not null,
  hash bytea not null,
  constraint audit_entries_pkey primary key (chain, position),
  constraint audit_entries_chain check (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') = chain)
);
create trigger audit_entries_append_only before update or delete or truncate on audit_entries
  for each statement execute function refuse_change();
create trigger audit_heads_stay before delete or truncate on audit_heads
  for each statement execute function refuse_change();

alter table audit_heads enable row level security;
alter table audit_heads force row level security;
create policy audit_heads_own on audit_heads for select to banyan_app using (tenant_id = (select banyan_tenant_id()));
create policy audit_heads_platform on audit_heads to banyan_platform using (true) with check (true);
grant select on audit_heads to banyan_app;
grant select, insert, update (position, hash) on audit_heads to banyan_platform;

alter table audit_entries enable row level security;
alter table audit_entries force row level security;
create policy audit_entries_own on audit_entries for select to banyan_app using (tenant_id = (select banyan_tenant_id()));
create policy audit_entries_platform on audit_entries to banyan_platform using (true) with check (true);
grant select on audit_entries to banyan_app;
grant select, insert on audit_entries to banyan_platform;

create function append_audit(tenant uuid, entry jsonb) returns void
  language plpgsql security definer
  set search_path = ''
  as $$
declare
  of_chain uuid := coalesce(tenant, '00000000-0000-0000-0000-000000000000');
  actor jsonb := coalesce(nullif(current_setting('banyan.actor', true), '')::jsonb,
                          jsonb_build_object('actor', jsonb_build_object('kind', 'database', 'name', session_user)));
  last bigint;
  last_hash bytea;
  entry_text text;
  entry_hash bytea;
begin
  -- First the lock of the change feed: whoever takes both takes them in this order.
  perform from public.change_head for update;
  select h.position, h.hash into last, last_hash from public.audit_heads h where h.chain = of_chain for update;
  if not found then
    last := 0;
    last_hash := sha256(convert_to(of_chain::text, 'UTF8'));
    insert into public.audit_heads (chain, tenant_id, position, hash) values (of_chain, tenant, last, last_hash);
  end if;
  entry_text := (actor || entry || jsonb_build_object(
    'chain', of_chain, 'position', last + 1,
    'time', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  ))::text;
  entry_hash := sha256(last_hash || convert_to(entry_text, 'UTF8'));
  insert into public.audit_entries (chain, position, tenant_id, content, previous_hash, hash)
    values (of_chain, last + 1, tenant, entry_text, last_hash, entry_hash);
  update public.audit_heads set position = last + 1, hash = entry_hash where chain = of_chain;
end
$$;
revoke all on function append_audit (uuid, jsonb) from public;

-- A refusal, in the chain of the transaction's tenant or else in the platform's.
create function append_audit_refusal(entry jsonb) returns void
  language sql security definer
  set search_path = ''
  as $$ select public.append_audit(public.banyan_tenant_id(), entry || '{"outcome": "refused"}') $$;
revoke all on function append_audit_refusal (jsonb) from public;
grant execute on function append_audit_refusal (jsonb) to banyan_app, banyan_platform;

-- For a table whose rows are managed, as a deferred constraint trigger for each row. Arguments: the collection and the
-- column that names a row in it, and the column that names the tenant, if the table has such a one. Of adapters' parts
-- the adapter stands before. An update's entry has what has changed; secrets, and a version's long receipt, are left out.
create function audit_change() returns trigger
  language plpgsql security definer
  set search_path = ''
  as $$
declare
  hidden constant text[] := array['secret_hash', 'previous_secret_hash', 'receipt'];
  of_itself constant text[] := array['revision', 'updated_at'];
  gone jsonb := case when tg_op = 'INSERT' then '{}' else to_jsonb(old) end;
  come jsonb := case when tg_op = 'DELETE' then '{}' else to_jsonb(new) end;
  known jsonb := gone || come;
  tenant uuid := (known ->> tg_argv[2])::uuid;
  -- A digest is a bytea, which reads as `\x…`.
  resource text := concat_ws('/', tg_argv[0], replace(known ->> tg_argv[1], '\x', 'sha256:'));
  adapter text;
  entry jsonb;
  before jsonb;
  after jsonb;
begin
  select jsonb_object_agg(o.key, o.value) into before
    from jsonb_each(gone) o where tg_op <> 'UPDATE' or o.value is distinct from come -> o.key;
  select jsonb_object_agg(n.key, n.value) into after
    from jsonb_each(come) n where tg_op <> 'UPDATE' or n.value is distinct from gone -> n.key;
  if tg_op = 'UPDATE' and coalesce(after, '{}') - of_itself = '{}' then
    return null;
  end if;
  if known ? 'adapter_id' then
    select a.slug into adapter
      from public.adapters a where a.tenant_id = tenant and a.id = (known ->> 'adapter_id')::uuid;
    resource := concat_ws('/', 'adapters', coalesce(adapter, known ->> 'adapter_id'), resource);
  end if;
  entry := jsonb_build_object('outcome', 'done', 'action', lower(tg_op), 'resource', resource);
  if tg_op <> 'INSERT' then
    entry := entry || jsonb_build_object('before', before - hidden - of_itself);
  end if;
  if tg_op <> 'DELETE' then
    entry := entry || jsonb_build_object('after', after - hidden - of_itself);
  end if;
  perform public.append_audit(tenant, entry);
  -- That a tenant came or went is the platform's matter too.
  if tg_table_name = 'tenants' and tg_op <> 'UPDATE' then
    perform public.append_audit(null, entry);
  end if;
  return null;
end
$$;

grant create on schema public to banyan_platform;
alter function append_audit (uuid, jsonb) owner to banyan_platform;
alter function append_audit_refusal (jsonb) owner to banyan_platform;
alter function audit_change () owner to banyan_platform;
revoke create on schema public from banyan_platform;

create constraint trigger api_keys_audit after insert or update or delete on api_keys
  deferrable initially deferred for each row execute function audit_change('apiKeys', 'public_id', 'tenant_id');
create constraint trigger tenants_audit after insert or update or delete on tenants
  deferrable initially deferred for each row execute function audit_change('tenants', 'slug', 'id');
create constraint trigger plans_audit after insert or update or delete on plans
  deferrable initially deferred for each row execute function audit_change('plans', 'slug');
create constraint trigger adapters_audit after insert or update or delete on adapters
  deferrable initially deferred for each row execute function audit_change('adapters', 'slug', 'tenant_id');
create constraint trigger adapter_versions_audit after insert or delete on adapter_versions
  deferrable initially deferred for each row execute function audit_change('versions', 'digest', 'tenant_id');
create constraint trigger aliases_audit after insert or update or delete on aliases
  deferrable initially deferred for each row execute function audit_change('aliases', 'name', 'tenant_id');
create constraint trigger prices_audit after insert on prices
  deferrable initially deferred for each row execute function audit_change('prices', 'model', 'tenant_id');
create constraint trigger prices_change after insert on prices
  deferrable initially deferred for each row execute function announce_change('price', 'model', 'tenant_id');
