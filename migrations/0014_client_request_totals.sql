-- How many named requests a tenant has, and the bytes of their answers, so that what is kept for one tenant has a bound. One
-- row for each tenant, written by whatever statement changes its requests; the row's lock lets claims of one tenant look at
-- the totals one after the other.

create table client_request_totals (
  tenant_id uuid not null,
  running bigint not null,
  answered bigint not null,
  answer_bytes bigint not null,
  constraint client_request_totals_pkey primary key (tenant_id),
  constraint client_request_totals_tenant_fkey foreign key (tenant_id) references tenants (id) on delete cascade,
  constraint client_request_totals_range check (running >= 0 and answered >= 0 and answer_bytes >= 0)
);

alter table client_requests no force row level security;
insert into client_request_totals
  select tenant_id, count(*) filter (where answer is null), count(answer), coalesce(sum(octet_length(answer)), 0)
    from client_requests group by tenant_id;
alter table client_requests force row level security;

alter table client_request_totals enable row level security;
alter table client_request_totals force row level security;
create policy client_request_totals_own on client_request_totals for select to banyan_app
  using (tenant_id = (select banyan_tenant_id()));
create policy client_request_totals_platform on client_request_totals to banyan_platform using (true) with check (true);
grant select on client_request_totals to banyan_app;
grant select, insert, update on client_request_totals to banyan_platform;

-- Rows are locked in the order of their tenants, so that no two statements wait for each other.
create function add_to_client_request_totals() returns trigger
  language plpgsql security definer
  set search_path = ''
  as $$
begin
  if tg_op = 'INSERT' then
    insert into public.client_request_totals as t (tenant_id, running, answered, answer_bytes)
      select tenant_id, count(*) filter (where answer is null), count(answer), coalesce(sum(octet_length(answer)), 0)
        from new_rows group by tenant_id order by tenant_id
    on conflict on constraint client_request_totals_pkey do update
      set running = t.running + excluded.running, answered = t.answered + excluded.answered,
          answer_bytes = t.answer_bytes + excluded.answer_bytes;
  elsif tg_op = 'DELETE' then
    perform from public.client_request_totals
      where tenant_id in (select tenant_id from old_rows) order by tenant_id for update;
    -- None is left of a tenant that is gone.
    update public.client_request_totals t
       set running = t.running - gone.running, answered = t.answered - gone.answered,
           answer_bytes = t.answer_bytes - gone.answer_bytes
      from (
        select tenant_id, count(*) filter (where answer is null) as running, count(answer) as answered,
               coalesce(sum(octet_length(answer)), 0) as answer_bytes
          from old_rows group by tenant_id
      ) gone
     where t.tenant_id = gone.tenant_id;
  else
    -- Of one tenant always: its own statements are the only ones that change requests. A renewal changes nothing here.
    update public.client_request_totals t
       set running = t.running + changed.running, answered = t.answered - changed.running,
           answer_bytes = t.answer_bytes + changed.answer_bytes
      from (
        select tenant_id, sum(running) as running, sum(answer_bytes) as answer_bytes
          from (
            select tenant_id, (answer is null)::int as running, coalesce(octet_length(answer), 0) as answer_bytes
              from new_rows
            union all
            select tenant_id, -(answer is null)::int, -coalesce(octet_length(answer), 0) from old_rows
          ) row
         group by tenant_id
      ) changed
     where t.tenant_id = changed.tenant_id and (changed.running <> 0 or changed.answer_bytes <> 0);
  end if;
  return null;
end
$$;
grant create on schema public to banyan_platform;
alter function add_to_client_request_totals () owner to banyan_platform;
revoke create on schema public from banyan_platform;

create trigger client_requests_inserted after insert on client_requests
  referencing new table as new_rows for each statement execute function add_to_client_request_totals();
create trigger client_requests_updated after update on client_requests
  referencing old table as old_rows new table as new_rows for each statement execute function add_to_client_request_totals();
create trigger client_requests_deleted after delete on client_requests
  referencing old table as old_rows for each statement execute function add_to_client_request_totals();
