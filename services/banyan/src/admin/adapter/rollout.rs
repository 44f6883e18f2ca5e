//! `banyan adapter canary | promote | rollback | rollout`: an alias from one version to the next and back, and which
//! gateways answer with it.

use std::time::{Duration, Instant};

use domain::{AdapterName, AliasName, Slug};
use proto::v1::{
    Alias, AliasPart, ClearCanaryRequest, GetAdapterRequest, GetRolloutRequest, MoveAliasRequest, PromoteCanaryRequest,
    RollbackAliasRequest, Rollout, SetCanaryRequest,
};
use serde_json::{Value, json};

use crate::{
    cli::{CanaryArgs, ChangeArgs, PromoteArgs, RolloutArgs},
    client::Admin,
    failure::{Failure, Outcome},
    output::{self, Table, json, last_segment, time_text},
};

/// Longest wait for every gateway; each follows within a second, or is not alive.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// # Errors
/// The server's refusal.
pub async fn canary(admin: &Admin, adapter: AdapterName, args: CanaryArgs, as_json: bool) -> Outcome {
    let (name, etag) = named(admin, adapter, &args.change).await?;
    let mut rollouts = admin.rollouts();
    let changed = match args.weight {
        None => rollouts.clear_canary(ClearCanaryRequest { name, etag }).await?,
        Some(weight) => {
            let digest = args.digest.map(|digest| digest.to_string()).unwrap_or_default();
            rollouts.set_canary(SetCanaryRequest { name, digest, basis_points: weight.get().into(), etag }).await?
        }
    };
    finish(admin, changed.get_ref(), args.change.wait, as_json).await
}

/// # Errors
/// The server's refusal.
pub async fn promote(admin: &Admin, adapter: AdapterName, args: PromoteArgs, as_json: bool) -> Outcome {
    let (name, etag) = named(admin, adapter, &args.change).await?;
    let changed = match args.digest {
        Some(digest) => {
            let request = MoveAliasRequest { name, digest: digest.to_string(), etag };
            admin.adapters().move_alias(request).await?
        }
        None => admin.rollouts().promote_canary(PromoteCanaryRequest { name, etag }).await?,
    };
    finish(admin, changed.get_ref(), args.change.wait, as_json).await
}

/// # Errors
/// The server's refusal.
pub async fn rollback(admin: &Admin, adapter: AdapterName, change: ChangeArgs, as_json: bool) -> Outcome {
    let (name, etag) = named(admin, adapter, &change).await?;
    let changed = admin.adapters().rollback_alias(RollbackAliasRequest { name, etag }).await?;
    finish(admin, changed.get_ref(), change.wait, as_json).await
}

/// # Errors
/// The server's refusal.
pub async fn show(admin: &Admin, adapter: AdapterName, args: RolloutArgs, as_json: bool) -> Outcome {
    let name = alias_name(&adapter, args.alias.alias);
    let rollout = if args.wait { converged(admin, &name).await? } else { rollout(admin, &name, 0).await? };
    if as_json {
        return Ok(output::print_json(&rollout_json(&rollout))?);
    }
    if let Some(alias) = &rollout.alias {
        print_alias(alias)?;
    }
    let mut table = Table::new(&["GATEWAY", "HAS IT", "LAST SEEN"]);
    for gateway in &rollout.gateways {
        let has_it = if gateway.converged { "yes" } else { "not yet" };
        table.row([gateway.gateway.clone(), has_it.to_owned(), time_text(gateway.seen_time.as_ref())]);
    }
    Ok(table.print()?)
}

/// The alias by name, and the etag to change it with: the one that was given, or that of the alias as it is now. Empty
/// when there is no such alias yet.
///
/// # Errors
/// The server's refusal.
pub async fn named(admin: &Admin, adapter: AdapterName, change: &ChangeArgs) -> Result<(String, String), Failure> {
    let alias = change.alias.alias.clone();
    let name = alias_name(&adapter, alias);
    let etag = match &change.etag {
        Some(etag) => etag.clone(),
        None => etag_now(admin, &adapter, &name).await?,
    };
    Ok((name, etag))
}

/// # Errors
/// The server's refusal.
pub async fn etag_now(admin: &Admin, adapter: &AdapterName, name: &str) -> Result<String, Failure> {
    let request = GetAdapterRequest { name: adapter.to_string() };
    let aliases = admin.adapters().get_adapter(request).await?.into_inner().aliases;
    Ok(aliases.into_iter().find(|alias| alias.name == name).map(|alias| alias.etag).unwrap_or_default())
}

pub fn alias_name(adapter: &AdapterName, alias: Slug) -> String {
    AliasName { tenant: adapter.tenant.clone(), adapter: adapter.adapter.clone(), alias }.to_string()
}

/// Prints a changed alias, after every gateway has it if that was asked for.
///
/// # Errors
/// The server's refusal, or a gateway that lags for too long.
pub async fn finish(admin: &Admin, alias: &Alias, wait: bool, as_json: bool) -> Outcome {
    if wait {
        converged(admin, &alias.name).await?;
    }
    if as_json {
        return Ok(output::print_json(&json::alias(alias))?);
    }
    print_alias(alias)
}

/// Such as `2.50%`.
pub fn percent(basis_points: u32) -> String {
    format!("{}.{:02}%", basis_points / 100, basis_points % 100)
}

/// Waits until every gateway has all that was changed before this began; says on standard error how far they are.
async fn converged(admin: &Admin, name: &str) -> Result<Rollout, Failure> {
    let (start, mut position, mut said) = (Instant::now(), 0, None);
    loop {
        let found = rollout(admin, name, position).await?;
        position = found.position;
        let lag: Vec<_> = found.gateways.iter().filter(|gateway| !gateway.converged).collect();
        let (all, have) = (found.gateways.len(), found.gateways.len() - lag.len());
        if found.converged {
            eprintln!("{all} of {all} gateways answer with it, after {} ms", start.elapsed().as_millis());
            return Ok(found);
        }
        let lagging: Vec<_> = lag.iter().map(|gateway| gateway.gateway.as_str()).collect();
        let words = format!("{have} of {all} gateways answer with it; waiting for {}", lagging.join(", "));
        if said.as_ref() != Some(&words) {
            eprintln!("{words}");
        }
        if start.elapsed() > PATIENCE {
            return Err(Failure::Failed(format!("it is changed, but not everywhere yet: {words}")));
        }
        said = Some(words);
        tokio::time::sleep(POLL).await;
    }
}

async fn rollout(admin: &Admin, name: &str, position: i64) -> Result<Rollout, Failure> {
    let request = GetRolloutRequest { name: name.to_owned(), position };
    Ok(admin.rollouts().get_rollout(request).await?.into_inner())
}

fn print_alias(alias: &Alias) -> Outcome {
    let before = if alias.previous_digest.is_empty() { "nothing" } else { &alias.previous_digest };
    output::line(&format!("{} -> {} (before: {before})", last_segment(&alias.name), alias.digest))?;
    for (part, what) in [(&alias.canary, "canary"), (&alias.shadow, "shadow")] {
        if let Some(AliasPart { digest, basis_points }) = part {
            output::line(&format!("  {what} {digest} at {}", percent(*basis_points)))?;
        }
    }
    Ok(())
}

fn rollout_json(rollout: &Rollout) -> Value {
    let gateways: Vec<_> = rollout
        .gateways
        .iter()
        .map(|gateway| {
            json!({
                "gateway": gateway.gateway,
                "position": gateway.position,
                "converged": gateway.converged,
                "seen_time": json::moment(gateway.seen_time.as_ref()),
            })
        })
        .collect();
    json!({
        "alias": rollout.alias.as_ref().map(json::alias),
        "position": rollout.position,
        "converged": rollout.converged,
        "gateways": gateways,
    })
}
