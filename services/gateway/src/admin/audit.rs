//! `banyan.v1.AuditService`.

mod wire;

use std::pin::Pin;

use domain::{AuditLink, BrokenChain, Caller, ChainCheck, ChainHead, Digest, Fault, Reason, TenantName};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use proto::v1::{self, audit_service_server::AuditService};
use store::{PageOf, Platform, Store, StoreError, TenantScope};
use tonic::{Request, Response, Status};

use crate::{
    access,
    edge::{answer, refuse, session},
    guard::Session,
    parse::{self, Violations},
    store_fault::StoreFault as _,
};
use wire::wire_entry;

/// The name of the platform's own trail.
const PLATFORM: &str = "platform";

pub struct Audit {
    store: Store,
    /// Entries read at a time.
    batch: u16,
}

/// Whose trail is read.
#[derive(Clone)]
enum Trail {
    Platform(Platform),
    Tenant(TenantScope),
}

impl Audit {
    pub const fn new(store: Store, batch: u16) -> Self {
        Self { store, batch }
    }

    async fn trail(&self, session: &Session, parent: &str) -> Result<Trail, Fault> {
        let caller = &session.identity.caller;
        if parent == PLATFORM {
            return match caller {
                Caller::Operator | Caller::Auditor => Ok(Trail::Platform(self.store.platform())),
                Caller::Tenant { .. } => Err(Fault::new(
                    Reason::PermissionDenied,
                    "the platform's trail is for the operator and the auditor",
                )),
            };
        }
        let name: TenantName = parse::name("parent", parent)?;
        access::sees(caller, &name.tenant, "tenant", &name)?;
        let id = match caller {
            Caller::Tenant { tenant, .. } => *tenant,
            Caller::Operator | Caller::Auditor => {
                self.store.platform().get_tenant(&name.tenant).await.map_err(|error| error.fault(name))?.id
            }
        };
        Ok(Trail::Tenant(self.store.tenant(id)))
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type ExportAuditEntriesStream = Pin<Box<dyn Stream<Item = Result<v1::AuditEntry, Status>> + Send>>;

    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        answer(request, |session, message| async move {
            let page = parse::page(message.page_size, message.page_token)?;
            let trail = self.trail(&session, &message.parent).await?;
            let found = trail.list(&page).await.map_err(|error| error.fault("audit entries"))?;
            let entries = found.items.iter().map(wire_entry).collect();
            Ok(v1::ListAuditEntriesResponse { entries, next_page_token: found.next_page_token })
        })
        .await
    }

    async fn export_audit_entries(
        &self,
        request: Request<v1::ExportAuditEntriesRequest>,
    ) -> Result<Response<Self::ExportAuditEntriesStream>, Status> {
        let session = session(request.extensions())?;
        let (id, message) = (session.id, request.into_inner());
        let opened = async {
            let after = u64::try_from(message.after_position)
                .map_err(|_| Fault::invalid("after_position", "must not be negative"))?;
            Ok::<_, Fault>((self.trail(&session, &message.parent).await?, after))
        };
        let (trail, after) = opened.await.map_err(|fault| refuse(&fault, id))?;
        let links = trail.links(after, self.batch);
        let entries = links.map(move |link| match link {
            Ok(link) => Ok(wire_entry(&link)),
            Err(error) => Err(refuse(&error.fault("audit entries"), id)),
        });
        Ok(Response::new(entries.boxed()))
    }

    async fn verify_audit_entries(
        &self,
        request: Request<v1::VerifyAuditEntriesRequest>,
    ) -> Result<Response<v1::VerifyAuditEntriesResponse>, Status> {
        answer(request, |session, message| async move {
            let mut violations = Violations::default();
            let known = read_known(&mut violations, &message);
            let known = violations.check(Some(known))?;
            let trail = self.trail(&session, &message.parent).await?;
            let checked = trail.check(known, self.batch).await.map_err(|error| error.fault("audit entries"))?;
            Ok(checked)
        })
        .await
    }
}

fn read_known(violations: &mut Violations, message: &v1::VerifyAuditEntriesRequest) -> Option<ChainHead> {
    let hash = violations.parse_optional::<Digest>("known_hash", &message.known_hash)?;
    let position = u64::try_from(message.known_position).ok().filter(|position| *position > 0);
    violations.require("known_position", position.is_some(), "must be that of the known hash, above zero");
    position.map(|position| ChainHead { position, hash })
}

impl Trail {
    async fn list(&self, page: &store::Page) -> Result<PageOf<AuditLink>, StoreError> {
        match self {
            Self::Platform(rows) => rows.list_audit(page).await,
            Self::Tenant(rows) => rows.list_audit(page).await,
        }
    }

    async fn after(&self, position: u64, limit: u16) -> Result<Vec<AuditLink>, StoreError> {
        match self {
            Self::Platform(rows) => rows.audit_after(position, limit).await,
            Self::Tenant(rows) => rows.audit_after(position, limit).await,
        }
    }

    async fn head(&self) -> Result<Option<ChainHead>, StoreError> {
        match self {
            Self::Platform(rows) => rows.audit_head().await,
            Self::Tenant(rows) => rows.audit_head().await,
        }
    }

    /// All links after a position, oldest first, read in batches as they are wanted.
    fn links(&self, after: u64, batch: u16) -> impl Stream<Item = Result<AuditLink, StoreError>> + Send + use<> {
        let batches = stream::try_unfold((self.clone(), after), move |(trail, after)| async move {
            let links = trail.after(after, batch).await?;
            let last = links.last().map(|link| link.position);
            Ok::<_, StoreError>(
                last.map(|last| (stream::iter(links.into_iter().map(Ok::<_, StoreError>)), (trail, last))),
            )
        });
        batches.try_flatten()
    }

    async fn check(&self, known: Option<ChainHead>, batch: u16) -> Result<v1::VerifyAuditEntriesResponse, StoreError> {
        // Asked first: what is appended meanwhile lies behind it.
        let head = self.head().await?;
        let chain = match self {
            Self::Platform(_) => domain::AuditChain::Platform,
            Self::Tenant(rows) => domain::AuditChain::Tenant(rows.id()),
        };
        let (mut check, mut broken, mut met) = (ChainCheck::new(chain), None, known.is_none());
        let mut links = Box::pin(self.links(0, batch));
        while let Some(link) = links.try_next().await? {
            if let Err(found) = check.follow(&link) {
                broken = Some(found);
                break;
            }
            met |= known == Some(check.last());
            if head.is_some_and(|head| head.position <= link.position) {
                break;
            }
        }
        let last = check.last();
        let broken = broken.or_else(|| check.end(head).err());
        Ok(response(last, broken, known.filter(|_| !met)))
    }
}

fn response(last: ChainHead, broken: Option<BrokenChain>, unmet: Option<ChainHead>) -> v1::VerifyAuditEntriesResponse {
    let number = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
    let (position, how) = match (broken, unmet) {
        (Some(broken), _) => (broken.position, broken.to_string()),
        (None, Some(known)) => (known.position, format!("entry {} is not the one that was known", known.position)),
        (None, None) => (0, String::new()),
    };
    v1::VerifyAuditEntriesResponse {
        verified: number(last.position),
        head_position: number(last.position),
        head_hash: if last.position == 0 { String::new() } else { last.hash.to_string() },
        broken_position: number(position),
        broken: how,
    }
}
