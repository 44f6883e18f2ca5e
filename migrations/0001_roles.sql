-- Who may do what. Two roles without a login; the service's login role (or the owner, on a laptop) is a member of both
-- and takes one of them for each transaction:
--
--   banyan_app       the tenant-scoped handle. Row-level security shows it the rows of `banyan.tenant_id` and no others.
--   banyan_platform  the operator's handle: every tenant's rows, by policy (it has no BYPASSRLS either).
--
-- Neither owns a table, and row security is forced, so an owner without superuser rights is held by it as well: a later
-- migration that must move rows takes `set local role banyan_platform`.
--
-- Roles belong to the whole cluster while migrations run per database: two databases may be migrated at the same time,
-- and then whoever comes second finds the role there.

do $$
declare
  wanted text;
begin
  foreach wanted in array array['banyan_app', 'banyan_platform'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
      begin
        execute pg_catalog.format('create role %I nologin noinherit', wanted);
      exception
        when duplicate_object or unique_violation then null;
      end;
    end if;
    -- The migrating role must be able to hand a function over to banyan_platform below. Superusers always are.
    if not pg_catalog.pg_has_role(current_user, wanted, 'member') then
      begin
        execute pg_catalog.format('grant %I to %I', wanted, current_user);
      exception
        when duplicate_object or unique_violation then null;
      end;
    end if;
  end loop;
end
$$;

-- PostgreSQL 15 does this for new databases; one that was upgraded may still let anybody create objects here.
revoke create on schema public from public;
grant usage on schema public to banyan_app, banyan_platform;

-- The tenant of this transaction, or null. A setting that was made with `set local` reads as '' after its transaction.
create function banyan_tenant_id() returns uuid
  language sql stable parallel safe
  return nullif(pg_catalog.current_setting('banyan.tenant_id', true), '')::uuid;

-- A service checks at its start that the schema is the one it was built for.
grant select on _sqlx_migrations to banyan_app, banyan_platform;
