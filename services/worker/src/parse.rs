//! Wire to engine: the one place where a worker's messages are taken apart. Behind it only checked types go on.

use domain::{Digest, Fault, Reason, ResponseFormat, Sampling, TenantId};
use engine::{AdapterKey, Beginning, GenerateRequest, Share};
use proto::{v1, worker as wire};

/// Every wrong field at once. The engine checks what depends on the model (vocabulary, context, limits).
///
/// # Errors
/// `InvalidRequest` with all violations, or `BaseMismatch`.
pub fn generate(request: wire::GenerateRequest, base: Digest) -> Result<GenerateRequest, Fault> {
    let mut wrong = Vec::new();
    let tenant = take("tenant_id", request.tenant_id.parse::<TenantId>(), &mut wrong);
    let adapter = request.adapter.as_ref().and_then(|pin| keep(pin, &mut wrong));
    let share = share(request.share.as_ref(), tenant, &mut wrong);
    let resolved = take("base_digest", request.base_digest.parse::<Digest>(), &mut wrong);
    let response_format = request.response_format.and_then(|format| response_format(format, &mut wrong));
    let sampling = sampling(request.sampling.unwrap_or_default());
    let sampling = match sampling.check() {
        Ok(sampling) => Some(sampling),
        Err(faults) => {
            let faults = faults.into_iter();
            wrong.extend(faults.map(|fault| (format!("sampling.{}", fault.field), fault.description.to_owned())));
            None
        }
    };
    let parsed = (tenant, share, sampling, resolved, wrong.is_empty());
    let (Some(tenant), Some(share), Some(sampling), Some(resolved), true) = parsed else {
        return Err(Fault::invalid_all(wrong));
    };
    if resolved != base {
        let message = format!("the request was resolved against base {resolved}, this worker has {base}");
        return Err(Fault::new(Reason::BaseMismatch, message));
    }
    Ok(GenerateRequest {
        id: request.request_id,
        tenant,
        share,
        adapter,
        prompt: request.prompt,
        beginning: Beginning { tokens: request.generated, text_bytes: request.text_sent_bytes as usize },
        sampling,
        max_tokens: request.max_tokens,
        granted_tokens: (request.granted_tokens > 0).then_some(request.granted_tokens),
        stop: request.stop,
        response_format,
        logprobs: request.logprobs,
        ignore_eos: request.ignore_eos,
        prompt_logprobs: false,
    })
}

/// Without one, the share group pays, on the worker's terms.
fn share(wire: Option<&wire::Share>, group: Option<TenantId>, wrong: &mut Vec<(String, String)>) -> Option<Share> {
    let Some(wire) = wire else { return group.map(Share::of) };
    let tenant = take("share.tenant_id", wire.tenant_id.parse::<TenantId>(), wrong)?;
    Some(Share {
        tenant,
        weight: wire.weight,
        priority: wire.priority,
        kv_blocks_max: wire.kv_blocks_max,
        adapters_max: wire.adapters_max,
        waiting_max: wire.waiting_max,
    })
}

fn response_format(wire: v1::ResponseFormat, wrong: &mut Vec<(String, String)>) -> Option<ResponseFormat> {
    use v1::response_format::Format;
    let Some(format) = wire.format else {
        wrong.push(("response_format".to_owned(), "must be one of the known formats".to_owned()));
        return None;
    };
    Some(match format {
        Format::JsonSchema(source) => ResponseFormat::JsonSchema(source),
        Format::Regex(source) => ResponseFormat::Regex(source),
        Format::Lark(source) => ResponseFormat::Lark(source),
        Format::JsonObject(v1::JsonObject {}) => ResponseFormat::JsonObject,
    })
}

/// # Errors
/// A missing pin, or ids that are none.
pub fn pin(pin: Option<&wire::AdapterPin>) -> Result<AdapterKey, Fault> {
    let mut wrong = Vec::new();
    let key = pin.and_then(|pin| keep(pin, &mut wrong));
    if pin.is_none() {
        wrong.push(("adapter".to_owned(), "must be set".to_owned()));
    }
    key.ok_or_else(|| Fault::invalid_all(wrong))
}

fn keep(pin: &wire::AdapterPin, wrong: &mut Vec<(String, String)>) -> Option<AdapterKey> {
    let tenant = take("adapter.tenant_id", pin.tenant_id.parse::<TenantId>(), wrong);
    let digest = take("adapter.digest", pin.digest.parse::<Digest>(), wrong);
    Some(AdapterKey { tenant: tenant?, digest: digest? })
}

fn take<T, E: std::fmt::Display>(field: &str, value: Result<T, E>, wrong: &mut Vec<(String, String)>) -> Option<T> {
    value.map_err(|error| wrong.push((field.to_owned(), error.to_string()))).ok()
}

fn sampling(sampling: v1::Sampling) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: sampling.temperature.unwrap_or(default.temperature),
        top_p: sampling.top_p.unwrap_or(default.top_p),
        top_k: sampling.top_k.unwrap_or(default.top_k),
        min_p: sampling.min_p.unwrap_or(default.min_p),
        repetition_penalty: sampling.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: sampling.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: sampling.frequency_penalty.unwrap_or(default.frequency_penalty),
        seed: sampling.seed.unwrap_or(default.seed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> wire::GenerateRequest {
        wire::GenerateRequest {
            tenant_id: "01890000-0000-7000-8000-000000000001".into(),
            base_digest: Digest::new([7; 32]).to_string(),
            prompt: vec![1],
            max_tokens: 1,
            ..wire::GenerateRequest::default()
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wrong = wire::GenerateRequest {
            tenant_id: "nobody".into(),
            adapter: Some(wire::AdapterPin { tenant_id: "x".into(), digest: "y".into() }),
            sampling: Some(v1::Sampling { top_p: Some(2.0), ..v1::Sampling::default() }),
            response_format: Some(v1::ResponseFormat { format: None }),
            share: Some(wire::Share { tenant_id: "z".into(), ..wire::Share::default() }),
            ..request()
        };
        let fault = generate(wrong, Digest::new([7; 32])).expect_err("wrong");
        assert_eq!(fault.details.len(), 6, "{fault:?}");
    }

    #[test]
    fn another_base_is_refused() {
        let reason = generate(request(), Digest::new([8; 32])).expect_err("other base").reason;
        assert_eq!(reason, Reason::BaseMismatch);
        assert!(generate(request(), Digest::new([7; 32])).is_ok());
    }
}
