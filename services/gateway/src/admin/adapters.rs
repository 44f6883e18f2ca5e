//! `banyan.v1.AdapterService`.

mod versions;
mod wire;

use domain::{AdapterName, AliasChange, AliasName, Digest, Fault, Limits, Slug, TenantName, VersionName};
use futures::StreamExt as _;
use proto::v1::{self, adapter_service_server::AdapterService};
use store::{Resource, Store, StoreError};
use tonic::{Request, Response, Status, Streaming};

use super::{Reach, reach};
use crate::{
    edge::{answer, refuse, session},
    guard::Session,
    models::Models,
    parse::{self, Violations},
    store_fault::StoreFault as _,
    sweeper::Sweeper,
    uploads::{Target, Uploads},
};
pub use versions::reason;
use wire::{read_message, wire_adapter, wire_version};
pub use wire::{wire_alias, wire_part};

pub struct Adapters {
    store: Store,
    models: Models,
    uploads: Uploads,
    sweeper: Sweeper,
    defaults: Limits,
}

impl Adapters {
    pub const fn new(store: Store, models: Models, uploads: Uploads, sweeper: Sweeper, defaults: Limits) -> Self {
        Self { store, models, uploads, sweeper, defaults }
    }

    /// To the rows of the tenant that owns this adapter.
    async fn reach(&self, session: &Session, adapter: &AdapterName) -> Result<Reach, Fault> {
        reach(&self.store, session, &adapter.tenant, "adapter", adapter, self.defaults).await
    }

    async fn receive(
        &self,
        session: &Session,
        mut messages: Streaming<v1::UploadAdapterVersionRequest>,
    ) -> Result<v1::AdapterVersion, Fault> {
        let first = messages.message().await.map_err(|status| broken_upload(&status))?;
        let start = match first.and_then(|first| first.message) {
            Some(v1::upload_adapter_version_request::Message::Start(start)) => start,
            _ => return Err(Fault::invalid("start", "must be the first message")),
        };
        let mut violations = Violations::default();
        let parent = violations.parse::<AdapterName>("start.parent", &start.parent);
        let alias = violations.parse_optional::<Slug>("start.alias", &start.alias);
        let parent = violations.check(parent)?;
        let Reach { rows, limits } = self.reach(session, &parent).await?;
        rows.get_adapter(&parent.adapter).await.map_err(|error| error.fault(&parent))?;
        let tenant = rows.id();
        let target = Target { rows, adapter: parent.clone(), alias, limits };
        let chunks = messages.map(|message| read_message(message.map_err(|status| broken_upload(&status))?));
        let version = self.uploads.take(session, target, chunks).await?;
        self.models.forget(tenant, &parent.adapter);
        Ok(wire_version(&parent, version))
    }
}

#[tonic::async_trait]
impl AdapterService for Adapters {
    async fn create_adapter(
        &self,
        request: Request<v1::CreateAdapterRequest>,
    ) -> Result<Response<v1::Adapter>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let parent = violations.parse::<TenantName>("parent", &message.parent);
            let slug = violations.parse::<Slug>("adapter_id", &message.adapter_id);
            let wire = message.adapter.unwrap_or_default();
            violations.display_name("adapter.display_name", &wire.display_name);
            let (parent, adapter) = violations.check(parent.zip(slug))?;
            let reach = reach(&self.store, &session, &parent.tenant, "tenant", &parent, self.defaults).await?;
            let name = AdapterName { tenant: parent.tenant, adapter };
            let made = reach.rows.create_adapter(&name.adapter, &wire.display_name, reach.limits.adapters_max).await;
            Ok(wire_adapter(&name.tenant, made.map_err(|error| error.fault(&name))?))
        })
        .await
    }

    async fn get_adapter(&self, request: Request<v1::GetAdapterRequest>) -> Result<Response<v1::Adapter>, Status> {
        answer(request, |session, message| async move {
            let name: AdapterName = parse::name("name", &message.name)?;
            let rows = self.reach(&session, &name).await?.rows;
            let found = rows.get_adapter(&name.adapter).await.map_err(|error| error.fault(&name))?;
            Ok(wire_adapter(&name.tenant, found))
        })
        .await
    }

    async fn list_adapters(
        &self,
        request: Request<v1::ListAdaptersRequest>,
    ) -> Result<Response<v1::ListAdaptersResponse>, Status> {
        answer(request, |session, message| async move {
            let parent: TenantName = parse::name("parent", &message.parent)?;
            let page = parse::page(message.page_size, message.page_token)?;
            let rows = reach(&self.store, &session, &parent.tenant, "tenant", &parent, self.defaults).await?.rows;
            let found = rows.list_adapters(&page).await.map_err(|error| error.fault(&parent))?;
            let adapters = found.items.into_iter().map(|adapter| wire_adapter(&parent.tenant, adapter)).collect();
            Ok(v1::ListAdaptersResponse { adapters, next_page_token: found.next_page_token })
        })
        .await
    }

    async fn delete_adapter(&self, request: Request<v1::DeleteAdapterRequest>) -> Result<Response<()>, Status> {
        answer(request, |session, message| async move {
            let name: AdapterName = parse::name("name", &message.name)?;
            let rows = self.reach(&session, &name).await?.rows;
            rows.delete_adapter(&name.adapter).await.map_err(|error| error.fault(&name))?;
            self.models.forget(rows.id(), &name.adapter);
            self.sweeper.nudge();
            Ok(())
        })
        .await
    }

    async fn upload_adapter_version(
        &self,
        request: Request<Streaming<v1::UploadAdapterVersionRequest>>,
    ) -> Result<Response<v1::AdapterVersion>, Status> {
        let session = session(request.extensions())?;
        let taken = self.receive(&session, request.into_inner()).await;
        taken.map(Response::new).map_err(|fault| refuse(&fault, session.id))
    }

    async fn get_adapter_version(
        &self,
        request: Request<v1::GetAdapterVersionRequest>,
    ) -> Result<Response<v1::AdapterVersion>, Status> {
        answer(request, |session, message| async move {
            let name: VersionName = parse::name("name", &message.name)?;
            let adapter = AdapterName { tenant: name.tenant.clone(), adapter: name.adapter.clone() };
            let rows = self.reach(&session, &adapter).await?.rows;
            let found = rows.get_version(&name.adapter, name.digest).await;
            Ok(wire_version(&adapter, found.map_err(|error| fault(error, &adapter, Some(name.digest), &name))?))
        })
        .await
    }

    async fn list_adapter_versions(
        &self,
        request: Request<v1::ListAdapterVersionsRequest>,
    ) -> Result<Response<v1::ListAdapterVersionsResponse>, Status> {
        answer(request, |session, message| async move {
            let parent: AdapterName = parse::name("parent", &message.parent)?;
            let page = parse::page(message.page_size, message.page_token)?;
            let rows = self.reach(&session, &parent).await?.rows;
            let found = rows.list_versions(&parent.adapter, &page).await.map_err(|error| error.fault(&parent))?;
            let versions = found.items.into_iter().map(|version| wire_version(&parent, version)).collect();
            Ok(v1::ListAdapterVersionsResponse { versions, next_page_token: found.next_page_token })
        })
        .await
    }

    async fn evaluate_adapter_version(
        &self,
        request: Request<v1::EvaluateAdapterVersionRequest>,
    ) -> Result<Response<v1::AdapterVersion>, Status> {
        answer(request, |session, message| async move { self.evaluate(&session, message).await }).await
    }

    async fn retire_adapter_version(
        &self,
        request: Request<v1::RetireAdapterVersionRequest>,
    ) -> Result<Response<v1::AdapterVersion>, Status> {
        answer(request, |session, message| async move { self.retire(&session, message).await }).await
    }

    async fn list_adapter_version_steps(
        &self,
        request: Request<v1::ListAdapterVersionStepsRequest>,
    ) -> Result<Response<v1::ListAdapterVersionStepsResponse>, Status> {
        answer(request, |session, message| async move { self.steps(&session, message).await }).await
    }

    async fn delete_adapter_version(
        &self,
        request: Request<v1::DeleteAdapterVersionRequest>,
    ) -> Result<Response<()>, Status> {
        answer(request, |session, message| async move {
            let name: VersionName = parse::name("name", &message.name)?;
            let adapter = AdapterName { tenant: name.tenant.clone(), adapter: name.adapter.clone() };
            let rows = self.reach(&session, &adapter).await?.rows;
            let deleted = rows.delete_version(&name.adapter, name.digest).await;
            deleted.map_err(|error| fault(error, &adapter, Some(name.digest), &name))?;
            self.models.forget(rows.id(), &name.adapter);
            self.sweeper.nudge();
            Ok(())
        })
        .await
    }

    async fn move_alias(&self, request: Request<v1::MoveAliasRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let name = violations.parse::<AliasName>("name", &message.name);
            let digest = violations.parse::<Digest>("digest", &message.digest);
            let (name, digest) = violations.check(name.zip(digest))?;
            let adapter = name.parent();
            let rows = self.reach(&session, &adapter).await?.rows;
            let moved = rows.move_alias(&name.adapter, &name.alias, digest, etag(&message.etag)).await;
            let moved = moved.map_err(|error| fault(error, &adapter, Some(digest), &name))?;
            self.models.forget(rows.id(), &name.adapter);
            Ok(wire_alias(&adapter, moved))
        })
        .await
    }

    async fn rollback_alias(&self, request: Request<v1::RollbackAliasRequest>) -> Result<Response<v1::Alias>, Status> {
        answer(request, |session, message| async move {
            let name: AliasName = parse::name("name", &message.name)?;
            let adapter = name.parent();
            let rows = self.reach(&session, &adapter).await?.rows;
            let rollback = AliasChange::Rollback;
            let moved = rows.change_alias(&name.adapter, &name.alias, rollback, etag(&message.etag)).await;
            let moved = moved.map_err(|error| fault(error, &adapter, None, &name))?;
            self.models.forget(rows.id(), &name.adapter);
            Ok(wire_alias(&adapter, moved))
        })
        .await
    }

    async fn delete_alias(&self, request: Request<v1::DeleteAliasRequest>) -> Result<Response<()>, Status> {
        answer(request, |session, message| async move {
            let name: AliasName = parse::name("name", &message.name)?;
            let adapter = name.parent();
            let rows = self.reach(&session, &adapter).await?.rows;
            let deleted = rows.delete_alias(&name.adapter, &name.alias).await;
            deleted.map_err(|error| fault(error, &adapter, None, &name))?;
            self.models.forget(rows.id(), &name.adapter);
            Ok(())
        })
        .await
    }
}

/// Empty is none.
pub fn etag(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Calls each thing by the name of its own: what is missing may be the adapter, or the version that an alias is to have.
pub fn fault(error: StoreError, adapter: &AdapterName, digest: Option<Digest>, leaf: &impl ToString) -> Fault {
    match (&error, digest) {
        (StoreError::NotFound { what: Resource::Adapter, .. }, _) => error.fault(adapter),
        (StoreError::NotFound { what: Resource::AdapterVersion, .. }, Some(digest)) => {
            error.fault(VersionName { tenant: adapter.tenant.clone(), adapter: adapter.adapter.clone(), digest })
        }
        _ => error.fault(leaf.to_string()),
    }
}

/// The client went away, or sent what cannot be read.
fn broken_upload(status: &Status) -> Fault {
    chassis::status::fault_of(status)
}
