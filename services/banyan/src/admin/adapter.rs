//! `banyan adapter …`.

mod lifecycle;
mod name;
mod pin;
mod rollout;
mod schedule;
mod shadow;
mod show;

use std::path::{Path, PathBuf};

use domain::{AdapterName, AliasName, Slug, TenantName, VersionName};
use indicatif::ProgressBar;
use proto::v1::{
    Adapter, AdapterVersion, CreateAdapterRequest, DeleteAdapterRequest, DeleteAdapterVersionRequest,
    DeleteAliasRequest, ListAdaptersRequest,
};
use serde_json::json;

use self::name::{Named, named, one_version, whole};
use crate::{
    cli::{AdapterArgs, AdapterVerb, EvaluateArgs, RetireArgs},
    client::{self, Admin},
    failure::{Failure, Outcome},
    output::{self, Table, json, last_segment, short_digest, time_text},
};

/// # Errors
/// The server's refusal, with every violation.
pub async fn adapter(args: AdapterArgs, as_json: bool) -> Outcome {
    // What is wrong with a name is said before anybody is called.
    let named = match &args.verb {
        AdapterVerb::Create { name, .. } => Some(whole(&name.to_string())?),
        AdapterVerb::Delete { name } => Some(named(name)?),
        AdapterVerb::Show { name } => Some(named(&name.to_string())?),
        AdapterVerb::Evaluate(EvaluateArgs { version, .. })
        | AdapterVerb::Retire(RetireArgs { version, .. })
        | AdapterVerb::History(version) => Some(one_version(&version.name.to_string())?),
        AdapterVerb::Canary(args) => Some(whole(&args.change.alias.name.to_string())?),
        AdapterVerb::Promote(args) => Some(whole(&args.change.alias.name.to_string())?),
        AdapterVerb::Rollback(change) => Some(whole(&change.alias.name.to_string())?),
        AdapterVerb::Rollout(args) => Some(whole(&args.alias.name.to_string())?),
        AdapterVerb::Shadow(args) => Some(whole(&shadow::name(&args.verb))?),
        AdapterVerb::Pin(args) => Some(whole(&pin::name(&args.verb))?),
        AdapterVerb::Schedule(args) => Some(whole(&schedule::name(&args.verb))?),
        AdapterVerb::Push { .. } | AdapterVerb::List { .. } => None,
    };
    let admin = Admin::open(&args.connection).await?;
    match (args.verb, named) {
        (AdapterVerb::Push { dir, tenant, name, alias }, _) => push(&admin, dir, &tenant, &name, alias, as_json).await,
        (AdapterVerb::List { tenant }, _) => list(&admin, tenant, as_json).await,
        (AdapterVerb::Create { display_name, .. }, Some(named)) => {
            create(&admin, named.adapter, display_name, as_json).await
        }
        (AdapterVerb::Show { .. }, Some(named)) => show::show(&admin, named, as_json).await,
        (AdapterVerb::Evaluate(args), Some(named)) => lifecycle::evaluate(&admin, &named, args, as_json).await,
        (AdapterVerb::Retire(args), Some(named)) => lifecycle::retire(&admin, &named, args, as_json).await,
        (AdapterVerb::History(_), Some(named)) => lifecycle::history(&admin, &named, as_json).await,
        (AdapterVerb::Canary(args), Some(named)) => rollout::canary(&admin, named.adapter, args, as_json).await,
        (AdapterVerb::Promote(args), Some(named)) => rollout::promote(&admin, named.adapter, args, as_json).await,
        (AdapterVerb::Rollback(args), Some(named)) => rollout::rollback(&admin, named.adapter, args, as_json).await,
        (AdapterVerb::Rollout(args), Some(named)) => rollout::show(&admin, named.adapter, args, as_json).await,
        (AdapterVerb::Shadow(args), Some(named)) => shadow::shadow(&admin, named.adapter, args.verb, as_json).await,
        (AdapterVerb::Pin(args), Some(named)) => pin::pin(&admin, named.adapter, args.verb, as_json).await,
        (AdapterVerb::Schedule(args), Some(named)) => {
            schedule::schedule(&admin, named.adapter, args.verb, as_json).await
        }
        (AdapterVerb::Delete { .. }, Some(named)) => delete(&admin, named).await,
        (_, None) => Err(Failure::Failed("no adapter was named".to_owned())),
    }
}

async fn create(admin: &Admin, name: AdapterName, display_name: Option<String>, as_json: bool) -> Outcome {
    let request = CreateAdapterRequest {
        parent: name.parent().to_string(),
        adapter_id: name.adapter.to_string(),
        adapter: Some(Adapter { display_name: display_name.unwrap_or_default(), ..Adapter::default() }),
    };
    let adapter = admin.adapters().create_adapter(request).await?.into_inner();
    if as_json {
        return Ok(output::print_json(&json::adapter(&adapter))?);
    }
    Ok(output::line(&adapter.name)?)
}

async fn push(admin: &Admin, dir: PathBuf, tenant: &Slug, name: &Slug, alias: Option<Slug>, as_json: bool) -> Outcome {
    let bar = progress(&dir, &format!("{tenant}/{name}"));
    let alias = alias.map(String::from).unwrap_or_default();
    let counted = bar.clone();
    let sent = client::upload(admin, &dir, tenant.as_str(), name.as_str(), &alias, move |bytes| {
        counted.inc(bytes);
    })
    .await;
    bar.finish_and_clear();
    let version = sent?;
    if as_json {
        return Ok(output::print_json(&json::version(&version))?);
    }
    print_pushed(&version, &format!("{tenant}/{name}"), &alias)
}

fn progress(dir: &Path, name: &str) -> ProgressBar {
    let bar = output::progress(client::upload_bytes(dir), "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_message(name.to_owned());
    bar
}

fn print_pushed(version: &AdapterVersion, model: &str, alias: &str) -> Outcome {
    output::line(&version.digest)?;
    let receipt = version.receipt.clone().unwrap_or_default();
    let served = match alias {
        "" => format!("{model}@{}", version.digest),
        "live" => model.to_owned(),
        alias => format!("{model}@{alias}"),
    };
    eprintln!("{} modules, {} parameters; served as {served}", receipt.modules.len(), receipt.parameters);
    for note in &receipt.notes {
        eprintln!("note: {} {}", note.code, note.message);
    }
    Ok(())
}

async fn list(admin: &Admin, tenant: Slug, as_json: bool) -> Outcome {
    let parent = TenantName { tenant: tenant.clone() }.to_string();
    let mut adapters = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAdaptersRequest { parent: parent.clone(), page_size: 0, page_token };
        let page = admin.adapters().list_adapters(request).await?.into_inner();
        adapters.extend(page.adapters);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if as_json {
        let adapters: Vec<_> = adapters.iter().map(json::adapter).collect();
        return Ok(output::print_json(&json!({ "adapters": adapters }))?);
    }
    let mut table = Table::new(&["ADAPTER", "ALIASES", "UPDATED"]);
    for adapter in &adapters {
        let aliases: Vec<_> = adapter
            .aliases
            .iter()
            .map(|alias| format!("{}={}", last_segment(&alias.name), short_digest(&alias.digest)))
            .collect();
        table.row([
            format!("{tenant}/{}", last_segment(&adapter.name)),
            aliases.join(" "),
            time_text(adapter.update_time.as_ref()),
        ]);
    }
    Ok(table.print()?)
}

async fn delete(admin: &Admin, named: Named) -> Outcome {
    let AdapterName { tenant, adapter } = named.adapter.clone();
    let mut adapters = admin.adapters();
    match (named.digest, named.alias) {
        (Some(digest), _) => {
            let name = VersionName { tenant, adapter, digest }.to_string();
            adapters.delete_adapter_version(DeleteAdapterVersionRequest { name }).await?;
        }
        (None, Some(alias)) => {
            let name = AliasName { tenant, adapter, alias }.to_string();
            adapters.delete_alias(DeleteAliasRequest { name }).await?;
        }
        (None, None) => {
            adapters.delete_adapter(DeleteAdapterRequest { name: named.adapter.to_string() }).await?;
        }
    }
    Ok(())
}
