//! `banyan adapter show`: aliases, versions, and module by module what the named version was loaded as.

use domain::{AdapterName, VersionName};
use proto::v1::{
    Adapter, AdapterVersion, Alias, AliasPart, GetAdapterRequest, GetAdapterVersionRequest, ListAdapterVersionsRequest,
};

use super::{name::Named, rollout::percent};
use crate::{
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, bytes_text, json, last_segment, short_digest, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn show(admin: &Admin, named: Named, as_json: bool) -> Outcome {
    let name = named.adapter.to_string();
    let adapter = admin.adapters().get_adapter(GetAdapterRequest { name: name.clone() }).await?.into_inner();
    let versions = versions(admin, name).await?;
    let shown = match digest(&adapter, &named)? {
        Some(digest) => Some(version(admin, &named.adapter, &digest).await?),
        None => None,
    };
    if as_json {
        let mut value = json::adapter(&adapter);
        value["versions"] = versions.iter().map(json::version).collect();
        value["version"] = shown.as_ref().map(json::version).into();
        return Ok(output::print_json(&value)?);
    }
    print_adapter(&adapter, &versions)?;
    match shown {
        Some(version) => print_receipt(&version),
        None => Ok(()),
    }
}

/// What the name means; an adapter without a `live` alias shows no receipt unless an alias or digest was written.
fn digest(adapter: &Adapter, named: &Named) -> Result<Option<String>, Failure> {
    if let Some(digest) = &named.digest {
        return Ok(Some(digest.to_string()));
    }
    let wanted = named.alias.as_ref().map_or("live", |alias| alias.as_str());
    let found = adapter.aliases.iter().find(|alias| last_segment(&alias.name) == wanted);
    match (found, &named.alias) {
        (Some(alias), _) => Ok(Some(alias.digest.clone())),
        (None, None) => Ok(None),
        (None, Some(alias)) => Err(Failure::Failed(format!("{} has no alias `{alias}`", named.adapter))),
    }
}

async fn versions(admin: &Admin, parent: String) -> Result<Vec<AdapterVersion>, Failure> {
    let mut versions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAdapterVersionsRequest { parent: parent.clone(), page_size: 0, page_token };
        let page = admin.adapters().list_adapter_versions(request).await?.into_inner();
        versions.extend(page.versions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(versions);
        }
    }
}

async fn version(admin: &Admin, adapter: &AdapterName, digest: &str) -> Result<AdapterVersion, Failure> {
    let digest = digest.parse().map_err(|error| Failure::Failed(format!("{digest}: {error}")))?;
    let name = VersionName { tenant: adapter.tenant.clone(), adapter: adapter.adapter.clone(), digest };
    let request = GetAdapterVersionRequest { name: name.to_string() };
    Ok(admin.adapters().get_adapter_version(request).await?.into_inner())
}

fn print_adapter(adapter: &Adapter, versions: &[AdapterVersion]) -> Outcome {
    output::line(&format!("{}  {}", adapter.name, adapter.display_name))?;
    let mut table = Table::new(&["VERSION", "STATE", "SIZE", "CREATED", "ALIASES"]);
    for version in versions {
        let aliases: Vec<_> = adapter.aliases.iter().filter_map(|alias| place(alias, &version.digest)).collect();
        table.row([
            version.digest.clone(),
            json::state(version.state()).to_owned(),
            bytes_text(version.size_bytes),
            time_text(version.create_time.as_ref()),
            aliases.join(" "),
        ]);
    }
    Ok(table.print()?)
}

/// As what the alias names the version, if it does.
fn place(alias: &Alias, digest: &str) -> Option<String> {
    let name = last_segment(&alias.name);
    let is =
        |part: &Option<AliasPart>| part.as_ref().filter(|part| part.digest == digest).map(|part| part.basis_points);
    if alias.digest == digest {
        return Some(name.to_owned());
    }
    let canary = is(&alias.canary).map(|share| format!("{name} (canary {})", percent(share)));
    canary.or_else(|| is(&alias.shadow).map(|share| format!("{name} (shadow {})", percent(share))))
}

fn print_receipt(version: &AdapterVersion) -> Outcome {
    let Some(receipt) = &version.receipt else { return Ok(()) };
    output::line(&format!(
        "\n{} on base {}: {} parameters, {} resident",
        short_digest(&version.digest),
        short_digest(&version.base_digest),
        receipt.parameters,
        bytes_text(receipt.resident_bytes)
    ))?;
    if let Some(delta) = receipt.probe_max_delta {
        output::line(&format!("largest change of a log-probability on the probe text: {delta:.4}"))?;
    }
    let mut table = Table::new(&["MODULE", "KIND", "RANK", "ALPHA", "SCALE", "|dW|", "DTYPE"]);
    for module in &receipt.modules {
        table.row([
            module.module.clone(),
            module.kind.clone(),
            module.rank.to_string(),
            module.alpha.to_string(),
            format!("{:.4}", module.scale),
            format!("{:.4}", module.delta_norm),
            module.dtype.clone(),
        ]);
    }
    table.print()?;
    for note in &receipt.notes {
        output::line(&format!("note: {} {}", note.code, note.message))?;
    }
    Ok(())
}
