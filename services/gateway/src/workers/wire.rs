//! Our types to and from `banyan.worker.v1`.

use domain::{Digest, RequestId, ResponseFormat, Sampling};
use proto::{v1, worker as wire};
use store::FinishReason;

use super::{Finished, Job, Pin, Step, peer::Failure};
use crate::{meter::Counted, parse::Input};

pub fn pin(pin: Pin) -> wire::AdapterPin {
    wire::AdapterPin { tenant_id: pin.tenant.to_string(), digest: pin.digest.to_string() }
}

pub fn job(job: &Job) -> wire::GenerateRequest {
    wire::GenerateRequest {
        request_id: job.id.to_string(),
        tenant_id: job.share_group.to_string(),
        adapter: job.pin.map(pin),
        prompt: job.prompt.clone(),
        sampling: Some(sampling(job.sampling)),
        max_tokens: job.max_tokens,
        stop: job.stop.clone(),
        logprobs: job.logprobs,
        ignore_eos: job.ignore_eos,
        base_digest: job.base.to_string(),
        response_format: job.response_format.as_ref().map(response_format),
        granted_tokens: job.granted_tokens,
        generated: job.generated.clone(),
        text_sent_bytes: job.text_bytes,
        share: Some(share(job)),
    }
}

fn share(job: &Job) -> wire::Share {
    wire::Share {
        tenant_id: job.tenant.to_string(),
        weight: job.share.weight,
        priority: job.share.priority,
        kv_blocks_max: job.share.kv_blocks_max,
        adapters_max: job.share.resident_adapters_max,
        waiting_max: job.share.waiting_requests_max,
    }
}

fn response_format(format: &ResponseFormat) -> v1::ResponseFormat {
    use v1::response_format::Format;
    let format = match format.clone() {
        ResponseFormat::JsonSchema(source) => Format::JsonSchema(source),
        ResponseFormat::Regex(source) => Format::Regex(source),
        ResponseFormat::Lark(source) => Format::Lark(source),
        ResponseFormat::JsonObject => Format::JsonObject(v1::JsonObject {}),
    };
    v1::ResponseFormat { format: Some(format) }
}

pub fn tokenize(input: &Input) -> wire::TokenizeRequest {
    use wire::tokenize_request::Input as Wire;
    let input = match input {
        Input::Prompt(text) => Wire::Prompt(text.clone()),
        Input::Tokens(ids) => Wire::Tokens(v1::TokenIds { ids: ids.clone() }),
        Input::Chat(messages) => {
            let messages = messages.iter().cloned();
            let messages = messages.map(|(role, content)| v1::ChatMessage { role, content }).collect();
            Wire::Chat(v1::ChatMessages { messages })
        }
    };
    wire::TokenizeRequest { input: Some(input) }
}

/// A step that makes no sense is the worker's fault.
pub fn step(step: wire::GenerateResponse) -> Result<Step, Failure> {
    let finished = step.finish.map(finished).transpose()?;
    Ok(Step { text: step.text, tokens: step.tokens, finished })
}

/// A step that was once told to a client, read back.
pub fn step_of(told: v1::GenerateResponse) -> Option<Step> {
    let finish = told.finish?;
    let receipt = finish.receipt?;
    let of_worker = wire::WorkerFinish {
        reason: finish.reason,
        usage: finish.usage,
        base_digest: receipt.base_digest,
        adapter_digest: receipt.adapter_digest,
        worker: receipt.worker,
    };
    let whole = wire::GenerateResponse { text: told.text, tokens: told.tokens, finish: Some(of_worker) };
    let mut step = step(whole).ok()?;
    step.finished.as_mut()?.limits = finish.limits;
    Some(step)
}

/// `None` for one that makes no sense.
pub fn usage(usage: wire::RequestUsage, worker: &str) -> Option<(RequestId, Counted, bool)> {
    let counts = usage.usage?;
    let counted = Counted {
        worker: worker.to_owned(),
        prompt_tokens: counts.prompt_tokens.into(),
        cached_prompt_tokens: counts.cached_prompt_tokens.into(),
        completion_tokens: counts.completion_tokens.into(),
    };
    Some((usage.request_id.parse().ok()?, counted, usage.ended))
}

fn finished(finish: wire::WorkerFinish) -> Result<Finished, Failure> {
    let nonsense = |cause: &str| Failure::Gone { cause: cause.to_owned(), unwell: false };
    let reason = match v1::FinishReason::try_from(finish.reason) {
        Ok(v1::FinishReason::Eos) => FinishReason::Eos,
        Ok(v1::FinishReason::Stop) => FinishReason::Stop,
        Ok(v1::FinishReason::Length) => FinishReason::Length,
        Ok(v1::FinishReason::Budget) => FinishReason::Budget,
        _ => return Err(nonsense("a finish without a reason")),
    };
    let usage = finish.usage.ok_or_else(|| nonsense("a finish without usage"))?;
    let digest = |text: &str| text.parse::<Digest>().map_err(|_| nonsense("a finish with a malformed digest"));
    let adapter = if finish.adapter_digest.is_empty() { None } else { Some(digest(&finish.adapter_digest)?) };
    Ok(Finished {
        reason,
        used: Counted {
            worker: finish.worker,
            prompt_tokens: usage.prompt_tokens.into(),
            cached_prompt_tokens: usage.cached_prompt_tokens.into(),
            completion_tokens: usage.completion_tokens.into(),
        },
        base: digest(&finish.base_digest)?,
        adapter,
        limits: Vec::new(),
    })
}

fn sampling(sampling: Sampling) -> v1::Sampling {
    v1::Sampling {
        temperature: Some(sampling.temperature),
        top_p: Some(sampling.top_p),
        top_k: Some(sampling.top_k),
        min_p: Some(sampling.min_p),
        repetition_penalty: Some(sampling.repetition_penalty),
        presence_penalty: Some(sampling.presence_penalty),
        frequency_penalty: Some(sampling.frequency_penalty),
        seed: Some(sampling.seed),
    }
}
