//! `banyan audit …`.

use std::{fs::File, io::BufReader, path::Path};

use domain::{AuditChain, AuditLink, ChainCheck, ChainHead, Digest, Slug, TenantId};
use proto::v1::{
    AuditEntry, ExportAuditEntriesRequest, ListAuditEntriesRequest, VerifyAuditEntriesRequest,
    VerifyAuditEntriesResponse,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    cli::{AuditArgs, AuditVerb},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, time_text},
};

const PAGE_SIZE_MAX: usize = 1_000;

/// # Errors
/// The server's refusal, a file that cannot be read, or a chain that is broken.
pub async fn audit(args: AuditArgs, as_json: bool) -> Outcome {
    match args.verb {
        AuditVerb::Verify { file: Some(file), known, .. } => {
            report(check_file(&file, known.map(|known| known.0))?, as_json)
        }
        AuditVerb::Verify { tenant, file: None, known } => {
            let admin = Admin::open(&args.connection).await?;
            let known = known.map(|known| known.0);
            let request = VerifyAuditEntriesRequest {
                parent: parent(tenant),
                known_position: known.map_or(0, |known| i64::try_from(known.position).unwrap_or(i64::MAX)),
                known_hash: known.map(|known| known.hash.to_string()).unwrap_or_default(),
            };
            report(admin.audit().verify_audit_entries(request).await?.into_inner().into(), as_json)
        }
        AuditVerb::List { tenant, last } => {
            let admin = Admin::open(&args.connection).await?;
            list(&admin, parent(tenant), last, as_json).await
        }
        AuditVerb::Export { tenant, after } => {
            let admin = Admin::open(&args.connection).await?;
            let request = ExportAuditEntriesRequest { parent: parent(tenant), after_position: after };
            let mut entries = admin.audit().export_audit_entries(request).await?.into_inner();
            while let Some(entry) = entries.message().await? {
                output::line(&json::audit_entry(&entry).to_string())?;
            }
            Ok(())
        }
    }
}

fn parent(tenant: Option<Slug>) -> String {
    tenant.map_or_else(|| "platform".to_owned(), |tenant| domain::TenantName { tenant }.to_string())
}

async fn list(admin: &Admin, parent: String, last: usize, as_json: bool) -> Outcome {
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut page_token = String::new();
    while entries.len() < last {
        let page_size = i32::try_from((last - entries.len()).min(PAGE_SIZE_MAX)).unwrap_or(i32::MAX);
        let request = ListAuditEntriesRequest { parent: parent.clone(), page_size, page_token };
        let page = admin.audit().list_audit_entries(request).await?.into_inner();
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let entries: Vec<_> = entries.iter().map(json::audit_entry).collect();
        return Ok(output::print_json(&json!({ "entries": entries }))?);
    }
    let mut table = Table::new(&["POSITION", "TIME", "WHO", "WHAT", "RESOURCE", "OUTCOME"]);
    for entry in &entries {
        let what = if entry.method.is_empty() { &entry.action } else { &entry.method };
        table.row([
            entry.position.to_string(),
            time_text(entry.time.as_ref()),
            [entry.actor.as_str(), &entry.actor_id].join(" ").trim_end().to_owned(),
            what.rsplit('/').next().unwrap_or_default().to_owned(),
            entry.resource.clone(),
            if entry.reason.is_empty() { entry.outcome.clone() } else { entry.reason.clone() },
        ]);
    }
    Ok(table.print()?)
}

/// What going along a chain has brought.
struct Checked {
    verified: u64,
    /// `<position>:<hash>`; empty when there is nothing.
    head: String,
    /// How it is broken; empty when it is not.
    broken: String,
}

impl From<VerifyAuditEntriesResponse> for Checked {
    fn from(response: VerifyAuditEntriesResponse) -> Self {
        let head = match response.head_position {
            0 => String::new(),
            position => format!("{position}:{}", response.head_hash),
        };
        Self { verified: u64::try_from(response.verified).unwrap_or(0), head, broken: response.broken }
    }
}

fn report(checked: Checked, as_json: bool) -> Outcome {
    let Checked { verified, head, broken } = checked;
    if as_json {
        output::print_json(&json!({ "verified": verified, "head": head, "broken": broken }))?;
    } else if broken.is_empty() {
        let mut table = Table::new(&["VERIFIED", "HEAD"]);
        table.row([verified.to_string(), head]);
        table.print()?;
    }
    if broken.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("the trail is broken: {broken}"))) }
}

/// An entry as `export` prints it; what is not hashed is not read.
#[derive(Deserialize)]
struct Exported {
    chain: uuid::Uuid,
    position: u64,
    content: String,
    previous_hash: Digest,
    hash: Digest,
}

/// From the first entry to the last of the file; that the server has more does not show.
fn check_file(file: &Path, known: Option<ChainHead>) -> Result<Checked, Failure> {
    let unread = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", file.display()));
    let reader = BufReader::new(File::open(file).map_err(|error| unread(&error))?);
    let mut check: Option<ChainCheck> = None;
    let (mut broken, mut met) = (None, known.is_none());
    for entry in serde_json::Deserializer::from_reader(reader).into_iter::<Exported>() {
        let Exported { chain, position, content, previous_hash, hash } = entry.map_err(|error| unread(&error))?;
        let tenant = (!chain.is_nil()).then(|| TenantId::new(chain));
        let chain = tenant.map_or(AuditChain::Platform, AuditChain::Tenant);
        let check = check.get_or_insert_with(|| ChainCheck::new(chain));
        if let Err(found) = check.follow(&AuditLink { chain, position, content, previous_hash, hash }) {
            broken = Some(found.to_string());
            break;
        }
        met |= known == Some(check.last());
    }
    if let (None, false, Some(known)) = (&broken, met, known) {
        broken = Some(format!("entry {} is not the one that was known", known.position));
    }
    let last = check.map(|check| check.last()).filter(|last| last.position > 0);
    Ok(Checked {
        verified: last.map_or(0, |last| last.position),
        head: last.map(|last| format!("{}:{}", last.position, last.hash)).unwrap_or_default(),
        broken: broken.unwrap_or_default(),
    })
}
