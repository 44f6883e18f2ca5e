-- Adapters, their immutable versions, the aliases that point at them, and what of them lies in the registry.

create table adapters (
  tenant_id uuid not null,
  id uuid not null,
  slug text collate "C" not null,
  display_name text not null default '',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint adapters_pkey primary key (tenant_id, id),
  constraint adapters_slug_key unique (tenant_id, slug),
  constraint adapters_tenant_fkey foreign key (tenant_id) references tenants (id) on delete restrict,
  constraint adapters_slug_format check (slug ~ '^[a-z][a-z0-9-]{1,62}$'),
  constraint adapters_display_name_length check (length(display_name) <= 256)
);

-- What lies (or may lie) in the registry under the tenant's digest. The row is there before the first byte is written
-- and until the last one is gone, so that a crash at any line leaves a row to clean up by and never a lost object:
--
--   uploading  being written; after lease_until nobody is writing any more, and it is garbage
--   stored     at least one version names it
--   deleting   no version names it; claimed by whoever deletes it until lease_until, then by the next
create table adapter_blobs (
  tenant_id uuid not null,
  digest bytea not null,
  state text not null,
  size_bytes bigint not null,
  lease_until timestamptz,
  -- Changes with every claim: only the last claimant may say that the blob is gone.
  claim uuid,
  updated_at timestamptz not null default now(),
  constraint adapter_blobs_pkey primary key (tenant_id, digest),
  constraint adapter_blobs_state_known check (state in ('uploading', 'stored', 'deleting')),
  constraint adapter_blobs_lease check ((state = 'uploading') <= (lease_until is not null)),
  constraint adapter_blobs_digest_length check (octet_length(digest) = 32),
  constraint adapter_blobs_size check (size_bytes >= 0)
);
-- No reference to tenants: the blobs of a deleted tenant are still to be deleted.

create table adapter_versions (
  tenant_id uuid not null,
  adapter_id uuid not null,
  digest bytea not null,
  base_digest bytea not null,
  size_bytes bigint not null,
  receipt jsonb not null,
  created_at timestamptz not null default now(),
  constraint adapter_versions_pkey primary key (tenant_id, adapter_id, digest),
  constraint adapter_versions_adapter_fkey foreign key (tenant_id, adapter_id)
    references adapters (tenant_id, id) on delete restrict,
  constraint adapter_versions_blob_fkey foreign key (tenant_id, digest)
    references adapter_blobs (tenant_id, digest) on delete restrict,
  constraint adapter_versions_digest_length check (octet_length(digest) = 32),
  constraint adapter_versions_base_digest_length check (octet_length(base_digest) = 32),
  constraint adapter_versions_size check (size_bytes >= 0)
);
create index adapter_versions_newest on adapter_versions (tenant_id, adapter_id, created_at desc, digest desc);
create index adapter_versions_by_digest on adapter_versions (tenant_id, digest);

create function refuse_change() returns trigger
  language plpgsql
  set search_path = ''
  as $$
begin
  raise exception '% of % is refused: its rows never change', tg_op, tg_table_name
    using errcode = 'restrict_violation', constraint = tg_name, table = tg_table_name, schema = tg_table_schema;
end
$$;

-- A version is its content: it can be deleted, never changed.
create trigger adapter_versions_immutable before update on adapter_versions
  for each statement execute function refuse_change();

create table aliases (
  tenant_id uuid not null,
  adapter_id uuid not null,
  name text collate "C" not null,
  digest bytea not null,
  -- Where it pointed before its last move.
  previous_digest bytea,
  -- A fresh id at every move, also across deletion: the etag.
  revision uuid not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint aliases_pkey primary key (tenant_id, adapter_id, name),
  constraint aliases_adapter_fkey foreign key (tenant_id, adapter_id)
    references adapters (tenant_id, id) on delete restrict,
  constraint aliases_version_fkey foreign key (tenant_id, adapter_id, digest)
    references adapter_versions (tenant_id, adapter_id, digest) on delete restrict,
  constraint aliases_previous_version_fkey foreign key (tenant_id, adapter_id, previous_digest)
    references adapter_versions (tenant_id, adapter_id, digest) on delete set null (previous_digest),
  constraint aliases_name_format check (name ~ '^[a-z][a-z0-9-]{1,62}$')
);
create index aliases_by_version on aliases (tenant_id, adapter_id, digest);
create index aliases_by_previous_version on aliases (tenant_id, adapter_id, previous_digest);

alter table adapters enable row level security;
alter table adapters force row level security;
create policy adapters_own on adapters to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy adapters_platform on adapters to banyan_platform using (true) with check (true);
grant select, insert, update (display_name, updated_at), delete on adapters to banyan_app;
-- Deleting a tenant locks its adapters first, and locking takes the right to update something.
grant select, update (updated_at), delete on adapters to banyan_platform;

alter table adapter_blobs enable row level security;
alter table adapter_blobs force row level security;
create policy adapter_blobs_own on adapter_blobs to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy adapter_blobs_platform on adapter_blobs to banyan_platform using (true) with check (true);
grant select, insert, update (state, lease_until, claim, updated_at) on adapter_blobs to banyan_app;
grant select, update (state, lease_until, claim, updated_at), delete on adapter_blobs to banyan_platform;

alter table adapter_versions enable row level security;
alter table adapter_versions force row level security;
create policy adapter_versions_own on adapter_versions to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy adapter_versions_platform on adapter_versions to banyan_platform using (true) with check (true);
grant select, insert, delete on adapter_versions to banyan_app;
grant select, delete on adapter_versions to banyan_platform;

alter table aliases enable row level security;
alter table aliases force row level security;
create policy aliases_own on aliases to banyan_app
  using (tenant_id = (select banyan_tenant_id())) with check (tenant_id = (select banyan_tenant_id()));
create policy aliases_platform on aliases to banyan_platform using (true) with check (true);
grant select, insert, update (digest, previous_digest, revision, updated_at), delete on aliases to banyan_app;
grant select, delete on aliases to banyan_platform;
