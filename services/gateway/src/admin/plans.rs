//! `banyan.v1.PlanService`.

use domain::{Fault, Outage, PlanName, Share, Slug};
use proto::v1::{self, plan_service_server::PlanService};
use store::{NewPlan, Plan, PlanFields, Store};
use tonic::{Request, Response, Status};

use super::mask::{self, Field, fields};
use crate::{
    edge::answer,
    parse::{self, Violations, tenant_limits, wire_limits, wire_time},
    store_fault::StoreFault as _,
};

pub struct Plans {
    store: Store,
}

impl Plans {
    pub const fn new(store: Store) -> Self {
        Self { store }
    }
}

/// What an update may change.
const FIELDS: &[Field<PlanFields>] = fields![
    display_name,
    limits.requests_per_minute,
    limits.input_tokens_per_minute,
    limits.output_tokens_per_minute,
    limits.concurrent_requests,
    limits.budget_day,
    limits.budget_month,
    limits.adapters_max,
    limits.adapter_bytes_max,
    limits.adapter_rank_max,
    share.weight,
    share.priority,
    share.kv_blocks_max,
    share.resident_adapters_max,
    share.waiting_requests_max,
    outage,
];

#[tonic::async_trait]
impl PlanService for Plans {
    async fn create_plan(&self, request: Request<v1::CreatePlanRequest>) -> Result<Response<v1::Plan>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let slug = violations.parse::<Slug>("plan_id", &message.plan_id);
            let fields = read_fields(&mut violations, message.plan.unwrap_or_default());
            let new = violations.check(slug.map(|slug| NewPlan { slug, fields }))?;
            let name = PlanName { plan: new.slug.clone() };
            let store = session.acting(&self.store, &name);
            Ok(wire_plan(store.platform().create_plan(new).await.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn get_plan(&self, request: Request<v1::GetPlanRequest>) -> Result<Response<v1::Plan>, Status> {
        answer(request, |_, message| async move {
            let name: PlanName = parse::name("name", &message.name)?;
            Ok(wire_plan(self.store.platform().get_plan(&name.plan).await.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn list_plans(
        &self,
        request: Request<v1::ListPlansRequest>,
    ) -> Result<Response<v1::ListPlansResponse>, Status> {
        answer(request, |_, message| async move {
            let page = parse::page(message.page_size, message.page_token)?;
            let found = self.store.platform().list_plans(&page).await.map_err(|error| error.fault("plans"))?;
            let plans = found.items.into_iter().map(wire_plan).collect();
            Ok(v1::ListPlansResponse { plans, next_page_token: found.next_page_token })
        })
        .await
    }

    async fn update_plan(&self, request: Request<v1::UpdatePlanRequest>) -> Result<Response<v1::Plan>, Status> {
        answer(request, |session, message| async move {
            let wire = message.plan.ok_or_else(|| Fault::invalid("plan", "must be set"))?;
            let mut violations = Violations::default();
            let of = (violations.parse::<PlanName>("plan.name", &wire.name), wire.etag.clone());
            let from = read_fields(&mut violations, wire);
            mask::require(&mut violations, message.update_mask.as_ref());
            let update = mask::update(violations, of, message.update_mask, FIELDS, from)?;
            let store = session.acting(&self.store, &update.name);
            let updated =
                store.platform().update_plan(&update.name.plan, update.etag(), |plan| update.apply(plan)).await;
            Ok(wire_plan(updated.map_err(|error| error.fault(&update.name))?))
        })
        .await
    }

    async fn delete_plan(&self, request: Request<v1::DeletePlanRequest>) -> Result<Response<()>, Status> {
        answer(request, |session, message| async move {
            let name: PlanName = parse::name("name", &message.name)?;
            let store = session.acting(&self.store, &name);
            store.platform().delete_plan(&name.plan).await.map_err(|error| error.fault(name))
        })
        .await
    }
}

fn read_fields(violations: &mut Violations, wire: v1::Plan) -> PlanFields {
    violations.display_name("plan.display_name", &wire.display_name);
    let outage = match v1::Outage::try_from(wire.outage) {
        Ok(v1::Outage::Unspecified | v1::Outage::Closed) => Outage::Closed,
        Ok(v1::Outage::Leased) => Outage::Leased,
        Ok(v1::Outage::Open) => Outage::Open,
        Err(_) => {
            violations.add("plan.outage", "must be OUTAGE_CLOSED, OUTAGE_LEASED or OUTAGE_OPEN");
            Outage::Closed
        }
    };
    let share = wire.share.unwrap_or_default();
    PlanFields {
        display_name: wire.display_name,
        limits: tenant_limits(violations, "plan.limits", &wire.limits.unwrap_or_default()),
        share: Share {
            weight: share.weight,
            priority: share.priority,
            kv_blocks_max: share.kv_blocks_max,
            resident_adapters_max: share.resident_adapters_max,
            waiting_requests_max: share.waiting_requests_max,
        },
        outage,
    }
}

fn wire_plan(plan: Plan) -> v1::Plan {
    let PlanFields { display_name, limits, share, outage } = plan.fields;
    v1::Plan {
        name: PlanName { plan: plan.slug }.to_string(),
        display_name,
        limits: Some(wire_limits(limits)),
        share: Some(v1::PlanShare {
            weight: share.weight,
            priority: share.priority,
            kv_blocks_max: share.kv_blocks_max,
            resident_adapters_max: share.resident_adapters_max,
            waiting_requests_max: share.waiting_requests_max,
        }),
        outage: match outage {
            Outage::Closed => v1::Outage::Closed,
            Outage::Leased => v1::Outage::Leased,
            Outage::Open => v1::Outage::Open,
        }
        .into(),
        create_time: Some(wire_time(plan.created_at)),
        update_time: Some(wire_time(plan.updated_at)),
        etag: plan.etag,
    }
}
