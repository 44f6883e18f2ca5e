//! `banyan limits …`: which limit would decide a request, and what other limits would have done.

use std::time::Duration;

use domain::{ApiKeyName, PlanName, Slug, TenantName};
use proto::v1::{
    ExplainLimitsRequest, ExplainLimitsResponse, KeyLimits, LimitState, TryLimitsRequest, TryLimitsResponse,
    try_limits_request::Limits,
};
use serde_json::{Value, json};

use super::limits;
use crate::{
    cli::{LimitArgs, LimitsArgs, LimitsVerb},
    client::{self, Admin},
    failure::{Failure, Outcome},
    output::{self, Table, time_text},
};

/// # Errors
/// The server's refusal.
pub async fn limit_verbs(args: LimitsArgs, as_json: bool) -> Outcome {
    match args.verb {
        LimitsVerb::Explain { tenant, key_id, model, input_tokens, max_tokens } => {
            let request = ExplainLimitsRequest {
                name: tenant.as_ref().map(|tenant| name(tenant, key_id)).unwrap_or_default(),
                model: model.map(|model| model.to_string()).unwrap_or_default(),
                input_tokens,
                max_tokens,
            };
            let explained = if tenant.is_some() {
                Admin::open(&args.connection).await?.limits().explain_limits(request).await?
            } else {
                client::inference(&args.connection).await?.explain_limits(request).await?
            };
            print_explained(explained.get_ref(), as_json)
        }
        LimitsVerb::Try { tenant, plan, key_id, limits } => {
            let of_key = key_id.is_some();
            let name = match (tenant, plan) {
                (Some(tenant), _) => name(&tenant, key_id),
                (None, Some(plan)) => PlanName { plan }.to_string(),
                (None, None) => return Err(Failure::Usage("say whose limits: --tenant or --plan".to_owned())),
            };
            if limits::changed(&limits).is_empty() {
                return Err(Failure::Usage("say what to change: a limit".to_owned()));
            }
            let limits = if of_key { Limits::Key(of_a_key(&limits)) } else { Limits::Tenant(limits::wire(&limits)) };
            let request = TryLimitsRequest { name, limits: Some(limits) };
            let tried = Admin::open(&args.connection).await?.limits().try_limits(request).await?;
            print_tried(tried.get_ref(), as_json)
        }
    }
}

fn name(tenant: &Slug, key_id: Option<String>) -> String {
    let tenant = tenant.clone();
    match key_id {
        Some(public_id) => ApiKeyName { tenant, public_id }.to_string(),
        None => TenantName { tenant }.to_string(),
    }
}

fn of_a_key(limits: &LimitArgs) -> KeyLimits {
    let whole = limits::wire(limits);
    KeyLimits {
        requests_per_minute: whole.requests_per_minute,
        input_tokens_per_minute: whole.input_tokens_per_minute,
        output_tokens_per_minute: whole.output_tokens_per_minute,
        concurrent_requests: whole.concurrent_requests,
        budget_day: whole.budget_day,
        budget_month: whole.budget_month,
    }
}

fn print_explained(explained: &ExplainLimitsResponse, as_json: bool) -> Outcome {
    if as_json {
        let limits: Vec<_> = explained.limits.iter().map(state_json).collect();
        return Ok(output::print_json(&json!({
            "admitted": explained.admitted,
            "room_tokens": explained.room_tokens,
            "decided_by": explained.decided_by,
            "retry_after_ms": ms(explained.retry_after.as_ref()),
            "limits": limits,
        }))?);
    }
    let mut table = Table::new(&["LIMIT", "MOST", "USED", "RESERVED", "LEFT", "NEEDED", "REFILLS IN", ""]);
    for state in &explained.limits {
        let decides = state.limit == explained.decided_by;
        let word = match (state.refuses, decides) {
            (true, true) => "refuses, decides",
            (true, false) => "refuses",
            (false, true) => "decides",
            (false, false) => "",
        };
        table.row([
            state.limit.clone(),
            state.most.to_string(),
            state.used.to_string(),
            state.reserved.to_string(),
            state.remaining.to_string(),
            state.needed.to_string(),
            seconds(state.refills_after.as_ref()),
            word.to_owned(),
        ]);
    }
    table.print()?;
    let verdict = match (explained.admitted, explained.decided_by.as_str(), &explained.retry_after) {
        (true, "", _) => format!("admitted, with {} tokens for the answer", explained.room_tokens),
        (true, limit, _) => format!("admitted, with {} tokens for the answer: {limit}", explained.room_tokens),
        (false, limit, None) => format!("refused by {limit}, however long it waits"),
        (false, limit, after) => format!("refused by {limit}; let in again in {}", seconds(after.as_ref())),
    };
    Ok(output::line(&verdict)?)
}

fn state_json(state: &LimitState) -> Value {
    json!({
        "limit": state.limit,
        "most": state.most,
        "used": state.used,
        "reserved": state.reserved,
        "remaining": state.remaining,
        "needed": state.needed,
        "refuses": state.refuses,
        "refills_after_ms": ms(state.refills_after.as_ref()),
    })
}

fn print_tried(tried: &TryLimitsResponse, as_json: bool) -> Outcome {
    let (from, to) = (time_text(tried.start_time.as_ref()), time_text(tried.end_time.as_ref()));
    if as_json {
        let effects = tried.effects.iter().map(|effect| {
            json!({
                "limit": effect.limit,
                "refused": effect.refused,
                "cut_short": effect.cut_short,
                "tokens": effect.tokens,
                "first_request_id": effect.first_request_id,
                "first_time": time_text(effect.first_time.as_ref()),
                "first_over": effect.first_over,
            })
        });
        return Ok(output::print_json(&json!({
            "start_time": from,
            "end_time": to,
            "requests": tried.requests,
            "refused": tried.refused,
            "cut_short": tried.cut_short,
            "tokens": tried.tokens,
            "truncated": tried.truncated,
            "effects": effects.collect::<Vec<_>>(),
        }))?);
    }
    let mut table = Table::new(&["LIMIT", "REFUSED", "CUT SHORT", "TOKENS", "FIRST REQUEST", "AT", "OVER BY"]);
    for effect in &tried.effects {
        table.row([
            effect.limit.clone(),
            effect.refused.to_string(),
            effect.cut_short.to_string(),
            effect.tokens.to_string(),
            effect.first_request_id.clone(),
            time_text(effect.first_time.as_ref()),
            effect.first_over.to_string(),
        ]);
    }
    table.print()?;
    output::line(&format!(
        "{} requests from {from} to {to}: {} refused, {} cut short, {} tokens less",
        tried.requests, tried.refused, tried.cut_short, tried.tokens
    ))?;
    if tried.truncated {
        output::line("there were more requests on record: only the newest of them were tried")?;
    }
    Ok(())
}

fn ms(duration: Option<&prost_types::Duration>) -> Option<u64> {
    let whole = Duration::try_from(*duration?).ok()?;
    u64::try_from(whole.as_millis()).ok()
}

fn seconds(duration: Option<&prost_types::Duration>) -> String {
    ms(duration).map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0))
}
