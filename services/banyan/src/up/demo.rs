//! What a newcomer finds: the tenant `demo` with an API key, and the shipped industry models as its adapters. It goes
//! through the admin services like any other client, each step only if it is not done yet.

use adapters::{Files, Limits};
use domain::Reason;
use proto::v1::{ApiKey, CreateApiKeyRequest, CreateTenantRequest, GetAdapterRequest, ListModelsRequest, Role, Tenant};

use super::{
    data_dir::{DataDir, Secrets},
    shipped::{self, Industry},
    stack::Stack,
    stages::Stages,
};
use crate::{
    cli::{ConnectionArgs, DataArgs, UpArgs},
    client::{self, Admin},
    client_file::ClientFile,
    failure::Failure,
    output::last_segment,
};

const TENANT: &str = "demo";
const LIVE: &str = "live";

/// What there is to show.
pub struct Demo {
    pub endpoint: String,
    pub admin_endpoint: String,
    pub base: String,
    /// Set when the key was made by this start.
    pub new_key: Option<String>,
    pub models: Vec<String>,
}

/// Makes what is missing, and writes the client file.
///
/// # Errors
/// What the admin services refuse.
pub async fn provide(
    args: &UpArgs,
    data: &DataDir,
    secrets: &Secrets,
    stack: &Stack,
    stages: &Stages,
) -> anyhow::Result<Demo> {
    let admin = Admin::connect(&stack.admin_endpoint, secrets.operator_token.reveal()).await?;
    let base = stack.base.digest();
    if !data.is_imported(base) {
        stages.begin("importing the industry models");
        create_tenant(&admin).await?;
        import(args, &admin, stack, stages).await?;
        data.set_imported(base)?;
    }
    let mut file = ClientFile::read(data.root())?;
    file.endpoint = Some(stack.endpoint.clone());
    file.admin_endpoint = Some(stack.admin_endpoint.clone());
    file.operator_token = Some(secrets.operator_token.reveal().to_owned());
    file.write(data.root())?;
    let mut new_key = None;
    let models = match models(data, file.key.as_deref()).await? {
        Some(models) => models,
        None => {
            new_key = create_key(&admin, stages).await?;
            file.key.clone_from(&new_key);
            file.write(data.root())?;
            models(data, new_key.as_deref()).await?.unwrap_or_default()
        }
    };
    Ok(Demo {
        endpoint: stack.endpoint.clone(),
        admin_endpoint: stack.admin_endpoint.clone(),
        base: format!("{} ({base})", stack.base_dir.display()),
        new_key,
        models,
    })
}

async fn create_tenant(admin: &Admin) -> Result<(), Failure> {
    let tenant = Tenant { display_name: "Demonstration".to_owned(), ..Tenant::default() };
    let request = CreateTenantRequest { tenant_id: TENANT.to_owned(), tenant: Some(tenant) };
    let created = admin.tenants().create_tenant(request).await;
    unless(Reason::AlreadyExists, created.map_err(Failure::from)).map(|_| ())
}

/// Uploads every shipped adapter that has no `live` version yet. One that does not fit the base is left out, and said.
async fn import(args: &UpArgs, admin: &Admin, stack: &Stack, stages: &Stages) -> anyhow::Result<()> {
    let folder = args.industries.clone().unwrap_or_else(shipped::industries_folder);
    for Industry { name, dir } in shipped::industries(&folder)? {
        if is_live(admin, &name).await? {
            continue;
        }
        let limits = Limits::default();
        let judged = Files::read(&dir, &limits).and_then(|files| files.judge(&stack.base, &limits));
        if let Err(refusals) = judged {
            let reason = refusals.first().map(ToString::to_string).unwrap_or_default();
            stages.note(&format!("skipped {TENANT}/{name}: it was made for another base model ({reason})"));
            continue;
        }
        let bar = stages.bytes(&format!("importing {TENANT}/{name}"), client::upload_bytes(&dir));
        let counted = bar.clone();
        let sent = client::upload(admin, &dir, TENANT, &name, LIVE, move |bytes| counted.inc(bytes)).await;
        bar.finish_and_clear();
        sent?;
    }
    Ok(())
}

async fn is_live(admin: &Admin, name: &str) -> Result<bool, Failure> {
    let request = GetAdapterRequest { name: format!("tenants/{TENANT}/adapters/{name}") };
    let found = unless(Reason::NotFound, admin.adapters().get_adapter(request).await.map_err(Failure::from))?;
    Ok(found.is_some_and(|adapter| adapter.get_ref().aliases.iter().any(|alias| last_segment(&alias.name) == LIVE)))
}

/// `None` when the tenant was deleted: then there is nothing to make a key for.
async fn create_key(admin: &Admin, stages: &Stages) -> anyhow::Result<Option<String>> {
    let api_key = ApiKey { display_name: "banyan up".to_owned(), role: Role::Inference.into(), ..ApiKey::default() };
    let request = CreateApiKeyRequest { parent: format!("tenants/{TENANT}"), api_key: Some(api_key) };
    let created = admin.keys().create_api_key(request).await.map_err(Failure::from);
    let created = unless(Reason::NotFound, created)?;
    if created.is_none() {
        stages
            .note(&format!("the tenant `{TENANT}` is gone, so no API key was made: `banyan tenant create` makes one"));
    }
    Ok(created.map(|created| created.into_inner().key))
}

/// What the key may use; `None` without a key that is accepted.
async fn models(data: &DataDir, key: Option<&str>) -> anyhow::Result<Option<Vec<String>>> {
    let Some(key) = key else { return Ok(None) };
    let connection = ConnectionArgs {
        endpoint: None,
        admin_endpoint: None,
        key: Some(key.to_owned()),
        operator_token: None,
        data: DataArgs { data: data.root().to_owned() },
    };
    let mut client = client::inference(&connection).await?;
    let request = ListModelsRequest { page_size: 1000, page_token: String::new() };
    let listed = client.list_models(request).await.map_err(Failure::from);
    let listed = unless(Reason::Unauthenticated, listed)?;
    Ok(listed.map(|page| page.into_inner().models.into_iter().map(|model| model.name).collect()))
}

/// `None` when it was refused for this very reason.
fn unless<T>(expected: Reason, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Refused { fault, .. }) if fault.reason == expected => Ok(None),
        Err(failure) => Err(failure),
    }
}
