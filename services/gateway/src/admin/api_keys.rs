//! `banyan.v1.ApiKeyService`.

use std::time::Duration;

use domain::{ApiKeyName, ApiKeyText, Fault, Limits, ModelName, Role, Slug, TenantName};
use proto::v1::{self, api_key_service_server::ApiKeyService};
use store::{ApiKey, ApiKeyFields, NewApiKey, Store};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{
    mask::{self, Field, fields},
    reach,
};
use crate::{
    access,
    auth::KeyHasher,
    edge::answer,
    parse::{self, Violations, wire_time},
    store_fault::StoreFault as _,
};

/// Models, or methods, that one key names.
const SCOPES_MAX: usize = 64;
/// Longest that a secret may outlive its rotation.
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub struct ApiKeys {
    store: Store,
    hasher: KeyHasher,
    defaults: Limits,
}

impl ApiKeys {
    pub const fn new(store: Store, hasher: KeyHasher, defaults: Limits) -> Self {
        Self { store, hasher, defaults }
    }
}

#[tonic::async_trait]
impl ApiKeyService for ApiKeys {
    async fn create_api_key(
        &self,
        request: Request<v1::CreateApiKeyRequest>,
    ) -> Result<Response<v1::CreateApiKeyResponse>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let parent = violations.parse::<TenantName>("parent", &message.parent);
            let wire = message.api_key.unwrap_or_default();
            let role = read_role(&mut violations, wire.role);
            let fields = read_fields(&mut violations, wire);
            let (parent, role) = violations.check(parent.zip(role))?;
            let tenant = reach(&self.store, &session, &parent.tenant, "tenant", &parent, self.defaults).await?;

            let mut random = [0; 52];
            rand::fill(&mut random);
            let key = ApiKeyText::from_random(&random);
            let new = NewApiKey {
                public_id: key.public_id().to_owned(),
                secret_hash: self.hasher.hash(key.secret()),
                role,
                fields,
            };
            let made = tenant.rows.create_api_key(new).await.map_err(|error| error.fault(&parent))?;
            let api_key = Some(wire_key(&parent.tenant, made));
            Ok(v1::CreateApiKeyResponse { api_key, key: key.reveal().to_owned() })
        })
        .await
    }

    async fn get_api_key(&self, request: Request<v1::GetApiKeyRequest>) -> Result<Response<v1::ApiKey>, Status> {
        answer(request, |session, message| async move {
            let name: ApiKeyName = parse::name("name", &message.name)?;
            let tenant = reach(&self.store, &session, &name.tenant, "API key", &name, self.defaults).await?;
            let found = tenant.rows.get_api_key(&name.public_id).await.map_err(|error| error.fault(&name))?;
            Ok(wire_key(&name.tenant, found))
        })
        .await
    }

    async fn list_api_keys(
        &self,
        request: Request<v1::ListApiKeysRequest>,
    ) -> Result<Response<v1::ListApiKeysResponse>, Status> {
        answer(request, |session, message| async move {
            let parent: TenantName = parse::name("parent", &message.parent)?;
            let page = parse::page(message.page_size, message.page_token)?;
            let tenant = reach(&self.store, &session, &parent.tenant, "tenant", &parent, self.defaults).await?;
            let found = tenant.rows.list_api_keys(&page).await.map_err(|error| error.fault(&parent))?;
            let api_keys = found.items.into_iter().map(|key| wire_key(&parent.tenant, key)).collect();
            Ok(v1::ListApiKeysResponse { api_keys, next_page_token: found.next_page_token })
        })
        .await
    }

    async fn update_api_key(&self, request: Request<v1::UpdateApiKeyRequest>) -> Result<Response<v1::ApiKey>, Status> {
        answer(request, |session, message| async move {
            let wire = message.api_key.ok_or_else(|| Fault::invalid("api_key", "must be set"))?;
            let mut violations = Violations::default();
            let of = (violations.parse::<ApiKeyName>("api_key.name", &wire.name), wire.etag.clone());
            let from = read_fields(&mut violations, wire);
            mask::require(&mut violations, message.update_mask.as_ref());
            let update = mask::update(violations, of, message.update_mask, FIELDS, from)?;
            let name = &update.name;
            let tenant = reach(&self.store, &session, &name.tenant, "API key", name, self.defaults).await?;
            let change = |key: &mut ApiKeyFields| update.apply(key);
            let updated = tenant.rows.update_api_key(&name.public_id, update.etag(), change).await;
            Ok(wire_key(&name.tenant, updated.map_err(|error| error.fault(name))?))
        })
        .await
    }

    async fn rotate_api_key(
        &self,
        request: Request<v1::RotateApiKeyRequest>,
    ) -> Result<Response<v1::RotateApiKeyResponse>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let name = violations.parse::<ApiKeyName>("name", &message.name);
            let overlap = parse::duration(&mut violations, "overlap", &message.overlap.unwrap_or_default());
            let fits = overlap.is_none_or(|overlap| overlap <= OVERLAP_MAX);
            violations.require("overlap", fits, "must be at most 30 days");
            let (name, overlap) = violations.check(name.zip(overlap))?;
            let tenant = reach(&self.store, &session, &name.tenant, "API key", &name, self.defaults).await?;

            let mut random = [0; 40];
            rand::fill(&mut random);
            // A public id that is none is nobody's.
            let key = ApiKeyText::rotated(&name.public_id, &random)
                .map_err(|_| Fault::not_found("API key", name.to_string()))?;
            let etag = (!message.etag.is_empty()).then_some(message.etag.as_str());
            let hash = self.hasher.hash(key.secret());
            let rotated = tenant.rows.rotate_api_key(&name.public_id, etag, &hash, overlap).await;
            let api_key = Some(wire_key(&name.tenant, rotated.map_err(|error| error.fault(&name))?));
            Ok(v1::RotateApiKeyResponse { api_key, key: key.reveal().to_owned() })
        })
        .await
    }

    async fn revoke_api_key(&self, request: Request<v1::RevokeApiKeyRequest>) -> Result<Response<v1::ApiKey>, Status> {
        answer(request, |session, message| async move {
            let name: ApiKeyName = parse::name("name", &message.name)?;
            let tenant = reach(&self.store, &session, &name.tenant, "API key", &name, self.defaults).await?;
            let revoked = tenant.rows.revoke_api_key(&name.public_id).await.map_err(|error| error.fault(&name))?;
            Ok(wire_key(&name.tenant, revoked))
        })
        .await
    }
}

/// What an update may change.
const FIELDS: &[Field<ApiKeyFields>] = fields![
    display_name,
    expires_at => "expire_time",
    limits.requests_per_minute,
    limits.input_tokens_per_minute,
    limits.output_tokens_per_minute,
    limits.concurrent_requests,
    limits.budget_day,
    limits.budget_month,
    models,
    methods,
];

/// Fields at `api_key.`.
fn read_fields(violations: &mut Violations, wire: v1::ApiKey) -> ApiKeyFields {
    violations.display_name("api_key.display_name", &wire.display_name);
    let field = "api_key.expire_time";
    let expires_at = wire.expire_time.and_then(|time| parse::timestamp(violations, field, &time));
    let future = expires_at.is_none_or(|at| at > OffsetDateTime::now_utc());
    violations.require(field, future, "must be in the future");
    ApiKeyFields {
        display_name: wire.display_name,
        limits: parse::key_limits(violations, "api_key.limits", &wire.limits.unwrap_or_default()),
        models: read_models(violations, wire.models),
        methods: read_methods(violations, wire.methods),
        expires_at,
    }
}

fn read_role(violations: &mut Violations, role: i32) -> Option<Role> {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Inference) => Some(Role::Inference),
        Ok(v1::Role::TenantDeveloper) => Some(Role::TenantDeveloper),
        Ok(v1::Role::TenantAdmin) => Some(Role::TenantAdmin),
        Ok(v1::Role::TenantAuditor) => Some(Role::TenantAuditor),
        Ok(v1::Role::Unspecified) | Err(_) => {
            violations.add("api_key.role", "must be a role, such as ROLE_INFERENCE");
            None
        }
    }
}

/// Names of models; none of them means all.
fn read_models(violations: &mut Violations, models: Vec<String>) -> Option<Vec<String>> {
    let field = "api_key.models";
    violations.require(field, models.len() <= SCOPES_MAX, format!("must be at most {SCOPES_MAX}"));
    for model in models.iter().take(SCOPES_MAX) {
        if let Some(name) = violations.parse::<ModelName>(field, model) {
            // Otherwise `<adapter>@live` would read as every version of the adapter.
            violations.require(field, name.to_string() == *model, format!("must be written `{name}`"));
        }
    }
    (!models.is_empty()).then_some(models)
}

/// Names of RPCs that an API key can call; none of them means all.
fn read_methods(violations: &mut Violations, methods: Vec<String>) -> Option<Vec<String>> {
    let field = "api_key.methods";
    violations.require(field, methods.len() <= SCOPES_MAX, format!("must be at most {SCOPES_MAX}"));
    for method in methods.iter().take(SCOPES_MAX) {
        let shown: String = method.chars().take(64).collect();
        violations.require(field, access::is_method(method), format!("`{shown}` is not an RPC, such as `Generate`"));
    }
    (!methods.is_empty()).then_some(methods)
}

fn wire_key(tenant: &Slug, key: ApiKey) -> v1::ApiKey {
    let role = match key.role {
        Role::Inference => v1::Role::Inference,
        Role::TenantDeveloper => v1::Role::TenantDeveloper,
        Role::TenantAdmin => v1::Role::TenantAdmin,
        Role::TenantAuditor => v1::Role::TenantAuditor,
    };
    let fields = key.fields;
    v1::ApiKey {
        name: ApiKeyName { tenant: tenant.clone(), public_id: key.public_id }.to_string(),
        display_name: fields.display_name,
        role: role.into(),
        create_time: Some(wire_time(key.created_at)),
        expire_time: fields.expires_at.map(wire_time),
        revoke_time: key.revoked_at.map(wire_time),
        limits: Some(parse::wire_key_limits(fields.limits)),
        models: fields.models.unwrap_or_default(),
        methods: fields.methods.unwrap_or_default(),
        etag: key.etag,
        last_use_time: key.last_used_at.map(wire_time),
        previous_secret_expire_time: key.previous_secret_expires_at.map(wire_time),
    }
}
