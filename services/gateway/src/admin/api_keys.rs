//! `banyan.v1.ApiKeyService`.

use domain::{ApiKeyName, ApiKeyText, Limits, ModelName, Role, Slug, TenantName};
use proto::v1::{self, api_key_service_server::ApiKeyService};
use store::{ApiKey, NewApiKey, Store};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::reach;
use crate::{
    access,
    auth::KeyHasher,
    edge::answer,
    parse::{self, Violations, wire_time},
    store_fault::StoreFault as _,
};

/// Models, or methods, that one key names.
const SCOPES_MAX: usize = 64;

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
            violations.display_name("api_key.display_name", &wire.display_name);
            let role = match v1::Role::try_from(wire.role) {
                Ok(v1::Role::Inference) => Some(Role::Inference),
                Ok(v1::Role::TenantAdmin) => Some(Role::TenantAdmin),
                _ => {
                    violations.add("api_key.role", "must be ROLE_INFERENCE or ROLE_TENANT_ADMIN");
                    None
                }
            };
            let field = "api_key.expire_time";
            let expires_at = wire.expire_time.and_then(|time| parse::timestamp(&mut violations, field, &time));
            let future = expires_at.is_none_or(|at| at > OffsetDateTime::now_utc());
            violations.require(field, future, "must be in the future");
            let models = read_models(&mut violations, wire.models);
            let methods = read_methods(&mut violations, wire.methods);
            let limits = parse::key_limits(&mut violations, "api_key.limits", &wire.limits.unwrap_or_default());
            let (parent, role) = violations.check(parent.zip(role))?;
            let tenant = reach(&self.store, &session, &parent.tenant, "tenant", &parent, self.defaults).await?;

            let mut random = [0; 52];
            rand::fill(&mut random);
            let key = ApiKeyText::from_random(&random);
            let new = NewApiKey {
                public_id: key.public_id().to_owned(),
                secret_hash: self.hasher.hash(key.secret()),
                display_name: wire.display_name,
                role,
                limits,
                models,
                methods,
                expires_at,
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
        Role::TenantAdmin => v1::Role::TenantAdmin,
    };
    v1::ApiKey {
        name: ApiKeyName { tenant: tenant.clone(), public_id: key.public_id }.to_string(),
        display_name: key.display_name,
        role: role.into(),
        create_time: Some(wire_time(key.created_at)),
        expire_time: key.expires_at.map(wire_time),
        revoke_time: key.revoked_at.map(wire_time),
        limits: Some(parse::wire_key_limits(key.limits)),
        models: key.models.unwrap_or_default(),
        methods: key.methods.unwrap_or_default(),
    }
}
