//! `banyan ledger …`.

use proto::v1::{LedgerEntry, LedgerEntryKind, ListLedgerEntriesRequest, ReconcileRequest};
use serde_json::{Value, json};

use crate::{
    cli::{LedgerArgs, LedgerVerb},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, time_text},
};

/// # Errors
/// The server's refusal, or a difference.
pub async fn ledger(args: LedgerArgs, as_json: bool) -> Outcome {
    let admin = Admin::open(&args.connection).await?;
    match args.verb {
        LedgerVerb::Show { tenant, limit } => {
            show(&admin, domain::TenantName { tenant }.to_string(), limit as usize, as_json).await
        }
        LedgerVerb::Reconcile => reconcile(&admin, as_json).await,
    }
}

async fn show(admin: &Admin, parent: String, limit: usize, as_json: bool) -> Outcome {
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    while entries.len() < limit {
        let page_size = i32::try_from(limit - entries.len()).unwrap_or(i32::MAX);
        let request = ListLedgerEntriesRequest { parent: parent.clone(), page_size, page_token };
        let page = admin.ledger().list_ledger_entries(request).await?.into_inner();
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let entries: Vec<_> = entries.iter().map(wire).collect();
        return Ok(output::print_json(&json!({ "entries": entries }))?);
    }
    let head = ["REQUEST", "KIND", "ADMITTED", "MODEL", "PROMPT", "CACHED", "COMPLETION", "HELD", "CHARGED"];
    let mut table = Table::new(&head);
    for entry in &entries {
        table.row([
            entry.request_id.clone(),
            kind(entry.kind()).to_owned(),
            time_text(entry.admit_time.as_ref()),
            entry.model.clone(),
            entry.prompt_tokens.to_string(),
            entry.cached_prompt_tokens.to_string(),
            entry.completion_tokens.to_string(),
            entry.held_micros.to_string(),
            entry.charged_micros.to_string(),
        ]);
    }
    Ok(table.print()?)
}

const fn kind(kind: LedgerEntryKind) -> &'static str {
    match kind {
        LedgerEntryKind::Unspecified => "",
        LedgerEntryKind::Reserved => "reserved",
        LedgerEntryKind::Posted => "posted",
        LedgerEntryKind::Voided => "voided",
        LedgerEntryKind::Expired => "expired",
    }
}

fn wire(entry: &LedgerEntry) -> Value {
    json!({
        "request_id": entry.request_id,
        "kind": kind(entry.kind()),
        "admit_time": json::moment(entry.admit_time.as_ref()),
        "create_time": json::moment(entry.create_time.as_ref()),
        "api_key_id": entry.api_key_id,
        "model": entry.model,
        "input_micros": entry.input_micros,
        "cached_input_micros": entry.cached_input_micros,
        "output_micros": entry.output_micros,
        "prompt_tokens": entry.prompt_tokens,
        "cached_prompt_tokens": entry.cached_prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "held_micros": entry.held_micros,
        "charged_micros": entry.charged_micros,
    })
}

async fn reconcile(admin: &Admin, as_json: bool) -> Outcome {
    let checks = admin.ledger().reconcile(ReconcileRequest {}).await?.into_inner().checks;
    let differences = checks.iter().filter(|check| check.left_value != check.right_value).count();
    if as_json {
        let wire = checks.iter().map(|check| {
            json!({
                "name": check.name,
                "left": check.left,
                "left_value": check.left_value,
                "right": check.right,
                "right_value": check.right_value,
                "difference": check.left_value - check.right_value,
            })
        });
        output::print_json(&json!({ "checks": wire.collect::<Vec<_>>() }))?;
    } else {
        let mut table = Table::new(&["CHECK", "ONE SIDE", "", "OTHER SIDE", "", "DIFFERENCE"]);
        for check in &checks {
            table.row([
                check.name.clone(),
                check.left.clone(),
                check.left_value.to_string(),
                check.right.clone(),
                check.right_value.to_string(),
                (check.left_value - check.right_value).to_string(),
            ]);
        }
        table.print()?;
    }
    match differences {
        0 => Ok(()),
        some => Err(Failure::Failed(format!("{some} of {} checks show a difference", checks.len()))),
    }
}
