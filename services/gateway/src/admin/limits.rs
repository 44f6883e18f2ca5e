//! `banyan.v1.LimitService`, and what the public door tells a key of its own limits.

use domain::{ApiKeyName, Caller, Fault, KeyLimits, Limits, ModelName, Outage, PlanName, TenantLimits, TenantName};
use proto::v1::{self, limit_service_server::LimitService, try_limits_request};
use store::{Page, Store};
use tonic::{Request, Response, Status};

use super::reach;
use crate::{
    edge::answer,
    explain::{Explainer, Hypothetical, Whose},
    guard::Session,
    limits::{Effect, Explained, Standing},
    parse::{self, Violations, wire_time},
    store_fault::StoreFault as _,
    trial::{Changed, Trial, Tried, at},
};

pub struct LimitQuestions {
    store: Store,
    explainer: Explainer,
    trial: Trial,
    defaults: Limits,
}

/// Who is asked about.
enum Name {
    Tenant(TenantName),
    Key(ApiKeyName),
    Plan(PlanName),
}

impl LimitQuestions {
    pub const fn new(store: Store, explainer: Explainer, trial: Trial, defaults: Limits) -> Self {
        Self { store, explainer, trial, defaults }
    }

    async fn explain(
        &self,
        session: &Session,
        message: v1::ExplainLimitsRequest,
    ) -> Result<v1::ExplainLimitsResponse, Fault> {
        let mut violations = Violations::default();
        let name = read_name(&mut violations, &message.name);
        let request = hypothetical(&mut violations, &message);
        let (name, request) = violations.check(name.zip(request))?;
        let whose = match name {
            Name::Plan(_) => return Err(Fault::invalid("name", "must be a tenant or an API key")),
            Name::Tenant(name) => {
                let tenant = reach(&self.store, session, &name.tenant, "tenant", &name, self.defaults).await?;
                Whose { tenant: tenant.rows.id(), key: None, limits: tenant.limits, outage: Outage::Closed }
            }
            Name::Key(name) => {
                let tenant = reach(&self.store, session, &name.tenant, "API key", &name, self.defaults).await?;
                let key = tenant.rows.get_api_key(&name.public_id).await.map_err(|error| error.fault(&name))?;
                let key = Some((key.id, key.fields.limits));
                Whose { tenant: tenant.rows.id(), key, limits: tenant.limits, outage: Outage::Closed }
            }
        };
        Ok(wire_explained(&self.explainer.explain(whose, request).await?))
    }

    async fn run_trial(
        &self,
        session: &Session,
        message: v1::TryLimitsRequest,
    ) -> Result<v1::TryLimitsResponse, Fault> {
        let mut violations = Violations::default();
        let name = read_name(&mut violations, &message.name);
        let (mut of_tenant, mut of_key) = (None, None);
        match &message.limits {
            Some(try_limits_request::Limits::Tenant(wire)) => {
                of_tenant = Some(parse::tenant_limits(&mut violations, "tenant", wire));
            }
            Some(try_limits_request::Limits::Key(wire)) => {
                of_key = Some(parse::key_limits(&mut violations, "key", wire));
            }
            None => violations.add("limits", "must be set"),
        }
        let name = violations.check(name)?;
        let changed = match (name, of_tenant, of_key) {
            (Name::Tenant(name), Some(limits), _) => {
                let tenant = reach(&self.store, session, &name.tenant, "tenant", &name, self.defaults).await?;
                vec![Changed { tenant: tenant.rows.id(), limits: tenant.limits.with(limits), key: None }]
            }
            (Name::Key(name), _, Some(limits)) => {
                let tenant = reach(&self.store, session, &name.tenant, "API key", &name, self.defaults).await?;
                let key = tenant.rows.get_api_key(&name.public_id).await.map_err(|error| error.fault(&name))?;
                let key = Some((key.id, over(limits, key.fields.limits)));
                vec![Changed { tenant: tenant.rows.id(), limits: tenant.limits, key }]
            }
            (Name::Plan(name), Some(limits), _) => self.tenants_of(session, &name, limits).await?,
            _ => {
                return Err(Fault::invalid(
                    "limits",
                    "must be of a key for a key, and of a tenant for a tenant or a plan",
                ));
            }
        };
        Ok(wire_tried(self.trial.run(&changed).await?))
    }

    /// All tenants of a plan, as they would be if it had these limits.
    async fn tenants_of(
        &self,
        session: &Session,
        name: &PlanName,
        limits: TenantLimits,
    ) -> Result<Vec<Changed>, Fault> {
        if let Caller::Tenant { .. } = session.identity.caller {
            return Err(Fault::not_found("plan", name.to_string()));
        }
        let platform = self.store.platform();
        let plan = platform.get_plan(&name.plan).await.map_err(|error| error.fault(name))?;
        let behind = limits.or(plan.fields.limits);
        let (mut changed, mut token) = (Vec::new(), String::new());
        loop {
            let page = platform.list_tenants(&Page { token, ..Page::first(1_000) }).await;
            let page = page.map_err(|error| error.fault("tenants"))?;
            let own = page.items.into_iter().filter(|tenant| tenant.fields.plan == name.plan);
            changed.extend(own.map(|tenant| {
                let limits = self.defaults.with(tenant.fields.limits.or(behind));
                Changed { tenant: tenant.id, limits, key: None }
            }));
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(changed);
            }
        }
    }
}

#[tonic::async_trait]
impl LimitService for LimitQuestions {
    async fn explain_limits(
        &self,
        request: Request<v1::ExplainLimitsRequest>,
    ) -> Result<Response<v1::ExplainLimitsResponse>, Status> {
        answer(request, |session, message| async move { self.explain(&session, message).await }).await
    }

    async fn try_limits(
        &self,
        request: Request<v1::TryLimitsRequest>,
    ) -> Result<Response<v1::TryLimitsResponse>, Status> {
        answer(request, |session, message| async move { self.run_trial(&session, message).await }).await
    }
}

/// What a message says of the request that is not made.
pub fn hypothetical(violations: &mut Violations, message: &v1::ExplainLimitsRequest) -> Option<Hypothetical> {
    let model = match message.model.as_str() {
        "" => None,
        model => Some(violations.parse::<ModelName>("model", model)?),
    };
    let max_tokens = (message.max_tokens > 0).then_some(message.max_tokens);
    Some(Hypothetical { model, input_tokens: message.input_tokens, max_tokens })
}

pub fn wire_explained(explained: &Explained) -> v1::ExplainLimitsResponse {
    v1::ExplainLimitsResponse {
        admitted: explained.admitted(),
        limits: explained.limits.iter().map(wire_standing).collect(),
        room_tokens: u32::try_from(explained.room()).unwrap_or(u32::MAX),
        decided_by: explained.decides().map(|limit| limit.to_string()).unwrap_or_default(),
        retry_after: explained.retry_after().and_then(|after| after.try_into().ok()),
    }
}

fn wire_standing(standing: &Standing) -> v1::LimitState {
    v1::LimitState {
        limit: standing.limit.to_string(),
        most: standing.most,
        used: standing.used,
        reserved: standing.reserved,
        remaining: standing.remaining(),
        needed: standing.needed,
        refuses: standing.refuses,
        refills_after: standing.refills_after.and_then(|after| after.try_into().ok()),
    }
}

fn wire_tried(tried: Tried) -> v1::TryLimitsResponse {
    let Tried { from, to, truncated, replayed } = tried;
    v1::TryLimitsResponse {
        start_time: Some(wire_time(from)),
        end_time: Some(wire_time(to)),
        requests: replayed.requests,
        refused: replayed.refused,
        cut_short: replayed.cut_short,
        tokens: replayed.tokens,
        effects: replayed.effects.iter().map(wire_effect).collect(),
        truncated,
    }
}

fn wire_effect(effect: &Effect) -> v1::LimitEffect {
    v1::LimitEffect {
        limit: effect.limit.to_string(),
        refused: effect.refused,
        cut_short: effect.cut_short,
        tokens: effect.tokens,
        first_request_id: effect.first.to_string(),
        first_time: Some(wire_time(at(effect.first_ms))),
        first_over: effect.first_over,
    }
}

fn read_name(violations: &mut Violations, name: &str) -> Option<Name> {
    if let Ok(name) = name.parse() {
        return Some(Name::Key(name));
    }
    if name.starts_with("plans/") {
        return violations.parse("name", name).map(Name::Plan);
    }
    violations.parse("name", name).map(Name::Tenant)
}

/// A key's limits with others put over them.
fn over(changed: KeyLimits, own: KeyLimits) -> KeyLimits {
    KeyLimits {
        requests_per_minute: changed.requests_per_minute.or(own.requests_per_minute),
        input_tokens_per_minute: changed.input_tokens_per_minute.or(own.input_tokens_per_minute),
        output_tokens_per_minute: changed.output_tokens_per_minute.or(own.output_tokens_per_minute),
        concurrent_requests: changed.concurrent_requests.or(own.concurrent_requests),
        budget_day: changed.budget_day.or(own.budget_day),
        budget_month: changed.budget_month.or(own.budget_month),
    }
}
