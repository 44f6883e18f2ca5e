//! What an operator, or the platform on its own behalf, does across tenants. Explicit: whoever holds a [`Platform`] has
//! asked for it by name.

use std::time::Duration;

use domain::{RequestId, Slug, TenantId, TenantLimits};
use uuid::Uuid;

use crate::{
    Balances, BlobDeletion, LedgerEntry, ListedPrice, NewPlan, NewPrice, NewTenant, OpenHold, Page, PageOf, Plan,
    PlanFields, Posted, Precondition, PriceList, Resource, Store, StoreError, Tenant, TenantFields, blobs,
    connection::Scope, ledger, plans, prices, rows::ReadRow, tenant::client_requests, tenants, usage,
};

#[derive(Clone, Debug)]
pub struct Platform {
    pub(crate) store: Store,
}

/// What to do about what a tenant still has when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteTenant {
    /// Refuse while it has adapters.
    IfWithoutAdapters,
    /// Delete its adapters with it.
    WithAdapters,
}

impl Platform {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Errors: [`StoreError::AlreadyExists`].
    pub async fn create_tenant(&self, new: NewTenant) -> Result<Tenant, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let tenant = tenants::create(&mut transaction, &new).await?;
                transaction.commit().await?;
                Ok(tenant)
            })
            .await
    }

    pub async fn get_tenant(&self, slug: &Slug) -> Result<Tenant, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let tenant = tenants::by_slug(&mut transaction, slug).await?;
                transaction.commit().await?;
                Ok(tenant)
            })
            .await
    }

    /// The tenant, and its limits with its plan's filled in.
    pub async fn get_tenant_with_limits(&self, slug: &Slug) -> Result<(Tenant, TenantLimits), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let tenant = tenants::by_slug(&mut transaction, slug).await?;
                let plan = plans::get(&mut transaction, &tenant.fields.plan).await?;
                transaction.commit().await?;
                let limits = tenant.fields.limits.or(plan.fields.limits);
                Ok((tenant, limits))
            })
            .await
    }

    /// By slug.
    pub async fn list_tenants(&self, page: &Page) -> Result<PageOf<Tenant>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let tenants = tenants::list(&mut transaction, page).await?;
                transaction.commit().await?;
                Ok(tenants)
            })
            .await
    }

    /// Changes what `change` changes, against every other update in turn. With an `etag` only if the tenant still has it.
    ///
    /// Errors: [`StoreError::NotFound`] for the tenant and its new plan, [`StoreError::Conflict`] for the etag.
    pub async fn update_tenant(
        &self,
        slug: &Slug,
        etag: Option<&str>,
        change: impl FnOnce(&mut TenantFields) + Send,
    ) -> Result<Tenant, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let found = tenants::by_slug_for_update(&mut transaction, slug).await?;
                if etag.is_some_and(|etag| etag != found.etag) {
                    return Err(StoreError::conflict(Resource::Tenant, slug));
                }
                let Tenant { id, mut fields, .. } = found;
                change(&mut fields);
                let tenant = tenants::update(&mut transaction, id, &fields).await?;
                transaction.commit().await?;
                Ok(tenant)
            })
            .await
    }

    /// Deletes the tenant, its keys and what `delete` says; files in the registry are handed over to deletion. Usage
    /// records stay.
    pub async fn delete_tenant(&self, slug: &Slug, delete: DeleteTenant) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                // Locked, so that nothing can be added to it any more: what refers to it waits, and then finds it gone.
                let tenant = tenants::by_slug_for_update(&mut transaction, slug).await?.id;
                if delete == DeleteTenant::IfWithoutAdapters && has_adapters(&mut transaction, tenant).await? {
                    return Err(StoreError::FailedPrecondition(Precondition::TenantHasAdapters));
                }
                delete_contents(&mut transaction, tenant).await?;
                sqlx::query("delete from tenants where id = $1").bind(tenant.uuid()).execute(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }

    /// Errors: [`StoreError::AlreadyExists`].
    pub async fn create_plan(&self, new: NewPlan) -> Result<Plan, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let plan = plans::create(&mut transaction, &new).await?;
                transaction.commit().await?;
                Ok(plan)
            })
            .await
    }

    pub async fn get_plan(&self, slug: &Slug) -> Result<Plan, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let plan = plans::get(&mut transaction, slug).await?;
                transaction.commit().await?;
                Ok(plan)
            })
            .await
    }

    /// By slug.
    pub async fn list_plans(&self, page: &Page) -> Result<PageOf<Plan>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let plans = plans::list(&mut transaction, page).await?;
                transaction.commit().await?;
                Ok(plans)
            })
            .await
    }

    /// As [`Platform::update_tenant`].
    pub async fn update_plan(
        &self,
        slug: &Slug,
        etag: Option<&str>,
        change: impl FnOnce(&mut PlanFields) + Send,
    ) -> Result<Plan, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let Plan { mut fields, .. } = plans::lock(&mut transaction, slug, etag).await?;
                change(&mut fields);
                let plan = plans::update(&mut transaction, slug, &fields).await?;
                transaction.commit().await?;
                Ok(plan)
            })
            .await
    }

    /// Errors: [`StoreError::NotFound`], [`Precondition::PlanInUse`], [`Precondition::PlanIsDefault`].
    pub async fn delete_plan(&self, slug: &Slug) -> Result<(), StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                plans::delete(&mut transaction, slug).await?;
                transaction.commit().await?;
                Ok(())
            })
            .await
    }

    /// Errors: [`StoreError::InvalidValue`] for a time in the past.
    pub async fn set_price(&self, new: &NewPrice) -> Result<ListedPrice, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let price = prices::insert(&mut transaction, new).await?;
                transaction.commit().await?;
                Ok(price)
            })
            .await
    }

    /// The platform's own price list with its history, newest first.
    pub async fn list_prices(&self, page: &Page) -> Result<PageOf<ListedPrice>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let prices = prices::list(&mut transaction, None, page).await?;
                transaction.commit().await?;
                Ok(prices)
            })
            .await
    }

    /// What tokens cost each of these tenants, now and later; in their order.
    pub async fn price_lists(&self, tenants: &[TenantId]) -> Result<Vec<PriceList>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let lists = prices::of_tenants(&mut transaction, tenants).await?;
                transaction.commit().await?;
                Ok(lists)
            })
            .await
    }

    /// All of them, of whichever tenants, in one transaction. Idempotent: entries that are there already are left as they
    /// are. `gateway` says whose log they come from.
    pub async fn post(&self, gateway: Uuid, entries: &[LedgerEntry]) -> Result<Posted, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let posted = ledger::post(&mut transaction, gateway, entries).await?;
                transaction.commit().await?;
                Ok(posted)
            })
            .await
    }

    /// Requests without an end, the oldest first: of `gateway` those before the request id `before` or past their deadline
    /// by `own_grace`, of any gateway those past it by `grace`.
    pub async fn open_holds(
        &self,
        gateway: Uuid,
        before: RequestId,
        own_grace: Duration,
        grace: Duration,
        limit: u16,
    ) -> Result<Vec<OpenHold>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let (own, any) = (own_grace.as_secs_f64(), grace.as_secs_f64());
                let holds = ledger::open_holds(&mut transaction, gateway, before, own, any, limit).await?;
                transaction.commit().await?;
                Ok(holds)
            })
            .await
    }

    /// The newest answers that finished, of all tenants: prompt and completion tokens together.
    pub async fn newest_finished(&self, limit: u16) -> Result<Vec<(RequestId, u64)>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let answers = usage::newest_finished(&mut transaction, limit).await?;
                transaction.commit().await?;
                Ok(answers)
            })
            .await
    }

    /// The whole ledger at one moment.
    pub async fn ledger_balances(&self) -> Result<Balances, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let balances = ledger::balances(&mut transaction).await?;
                transaction.commit().await?;
                Ok(balances)
            })
            .await
    }

    /// Claims up to `limit` digests whose files are to be deleted from the registry: those that no version names any
    /// more, and uploads that were given up. Delete the files within `lease`, then call
    /// [`Platform::finish_blob_deletion`]; whoever crashes in between leaves the claim to run out, and the next one does
    /// it again. `lease` must be longer than the registry can take over one deletion.
    pub async fn claim_blob_deletions(&self, limit: u16, lease: Duration) -> Result<Vec<BlobDeletion>, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let deletions = blobs::claim_deletions(&mut transaction, limit, lease).await?;
                transaction.commit().await?;
                Ok(deletions)
            })
            .await
    }

    /// The files are gone. `false` when the claim had run out and somebody else has taken it over: nothing to be done.
    pub async fn finish_blob_deletion(&self, deletion: &BlobDeletion) -> Result<bool, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let finished = blobs::finish_deletion(&mut transaction, deletion).await?;
                transaction.commit().await?;
                Ok(finished)
            })
            .await
    }

    /// Forgets up to `limit` named requests whose window is over; says how many that were.
    pub async fn delete_expired_client_requests(&self, limit: u32) -> Result<u64, StoreError> {
        self.store
            .bounded(async {
                let mut transaction = self.store.begin(Scope::Platform).await?;
                let deleted = client_requests::delete_expired(&mut transaction, limit).await?;
                transaction.commit().await?;
                Ok(deleted)
            })
            .await
    }
}

async fn has_adapters(connection: &mut sqlx::PgConnection, tenant: TenantId) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar("select exists (select from adapters where tenant_id = $1)")
        .bind(tenant.uuid())
        .fetch_one(connection)
        .await?;
    Ok(found)
}

async fn delete_contents(connection: &mut sqlx::PgConnection, tenant: TenantId) -> Result<(), StoreError> {
    // Waits for transactions that are adding versions; what they added is then seen by the deletions below.
    sqlx::query("select from adapters where tenant_id = $1 order by id for update")
        .bind(tenant.uuid())
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from aliases where tenant_id = $1").bind(tenant.uuid()).execute(&mut *connection).await?;
    let rows = sqlx::query("delete from adapter_versions where tenant_id = $1 returning digest")
        .bind(tenant.uuid())
        .fetch_all(&mut *connection)
        .await?;
    let digests = rows.iter().map(|row| row.digest("digest")).collect::<Result<Vec<_>, _>>()?;
    blobs::abandon(connection, tenant, &digests).await?;
    sqlx::query("delete from adapters where tenant_id = $1").bind(tenant.uuid()).execute(&mut *connection).await?;
    sqlx::query("delete from api_keys where tenant_id = $1").bind(tenant.uuid()).execute(&mut *connection).await?;
    Ok(())
}
