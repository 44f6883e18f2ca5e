//! What both completion APIs have in common: sampling, length, stop, form and streaming, and what we do not serve.

use axum::http::HeaderMap;
use domain::{Detail, Fault};
use proto::v1;
use serde_json::{Map, Value, json};

use super::{fields::Fields, shape::Api};

/// <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>; OpenAI's clients can send it.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// In the answer to a repeat.
pub const REPLAYED: &str = "idempotent-replayed";

/// A request as the rest of the gateway knows it, and what only this edge has to know.
pub struct Asked {
    pub request: v1::GenerateRequest,
    pub options: Options,
}

#[derive(Clone, Copy)]
pub struct Options {
    pub stream: bool,
    pub include_usage: bool,
}

/// As the gateway takes it.
const ROUTING_KEY_BYTES_MAX: usize = 256;

/// Fields that change nothing about an answer here.
const IGNORED: &[&str] = &[
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "metadata",
    "parallel_tool_calls",
    "service_tier",
];

/// Reads everything but the input and the log-probabilities.
pub fn read(fields: &mut Fields, input: Option<v1::generate_request::Input>, logprobs: Option<u32>) -> Option<Asked> {
    let model = fields.string("model");
    if model.is_none() {
        fields.missing("model");
    }
    let sampling = v1::Sampling {
        temperature: fields.number("temperature"),
        top_p: fields.number("top_p"),
        presence_penalty: fields.number("presence_penalty"),
        frequency_penalty: fields.number("frequency_penalty"),
        seed: fields.seed("seed"),
        // Ours, by the names that other servers of this API use.
        top_k: fields.count("top_k"),
        min_p: fields.number("min_p"),
        repetition_penalty: fields.number("repetition_penalty"),
    };
    let max_tokens = max_tokens(fields);
    let stop = fields.strings("stop");
    let response_format = fields.object("response_format").and_then(|format| response_format(fields, format));
    let ignore_eos = fields.flag("ignore_eos").unwrap_or_default();
    let routing_key = routing_key(fields);
    let options = options(fields);
    refuse_unserved(fields);
    fields.ignore(IGNORED);
    Some(Asked {
        request: v1::GenerateRequest {
            model: model?,
            input: Some(input?),
            sampling: Some(sampling),
            max_tokens,
            stop,
            logprobs,
            ignore_eos,
            response_format,
            client_request_id: String::new(),
            routing_key,
        },
        options,
    })
}

/// Who asks, so that a roll-out treats a user the same each time. What is longer than a key may be counts by its beginning.
fn routing_key(fields: &mut Fields) -> String {
    let user = fields.string("user").unwrap_or_default();
    let fitting = user.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= ROUTING_KEY_BYTES_MAX);
    fitting.map(|(_, letter)| letter).collect()
}

fn max_tokens(fields: &mut Fields) -> u32 {
    let (new, old) = (fields.count("max_completion_tokens"), fields.count("max_tokens"));
    if new.is_some() && old.is_some() && new != old {
        fields.wrong("max_tokens", "must not be given together with another max_completion_tokens");
    }
    let asked = new.or(old);
    if asked == Some(0) {
        fields.wrong(if new.is_some() { "max_completion_tokens" } else { "max_tokens" }, "must be at least 1");
    }
    asked.unwrap_or_default()
}

fn options(fields: &mut Fields) -> Options {
    let stream = fields.flag("stream").unwrap_or_default();
    let Some(object) = fields.object("stream_options") else { return Options { stream, include_usage: false } };
    if !stream {
        fields.wrong("stream_options", "is allowed only when stream is true");
    }
    let include_usage = match object.get("include_usage") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(include)) => *include,
        Some(_) => fields.type_wrong("stream_options.include_usage", "a boolean").unwrap_or_default(),
    };
    Options { stream, include_usage }
}

fn response_format(fields: &mut Fields, mut format: Map<String, Value>) -> Option<v1::ResponseFormat> {
    use v1::response_format::Format;
    let kind = format.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut text = |name: &str| match format.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let format = match kind.as_str() {
        "text" => return None,
        "json_object" => Format::JsonObject(v1::JsonObject {}),
        "json_schema" => {
            let schema = format.get("json_schema").and_then(|named| named.get("schema"));
            let Some(schema) = schema.filter(|schema| schema.is_object()) else {
                fields.missing("response_format.json_schema.schema");
                return None;
            };
            Format::JsonSchema(schema.to_string())
        }
        // Ours.
        "regex" | "lark" => match text(&kind) {
            Some(source) if kind == "regex" => Format::Regex(source),
            Some(source) => Format::Lark(source),
            None => {
                fields.missing(&format!("response_format.{kind}"));
                return None;
            }
        },
        _ => {
            fields.wrong("response_format.type", "must be `text`, `json_object`, `json_schema`, `regex` or `lark`");
            return None;
        }
    };
    Some(v1::ResponseFormat { format: Some(format) })
}

fn refuse_unserved(fields: &mut Fields) {
    let none: &[Value] = &[json!([]), json!({}), json!("none"), json!("auto")];
    fields.refuse_unless(
        &[
            ("n", &[json!(1)]),
            ("best_of", &[json!(1)]),
            ("echo", &[json!(false)]),
            ("suffix", &[json!("")]),
            ("logit_bias", none),
            ("tools", none),
            ("tool_choice", none),
            ("functions", none),
            ("function_call", none),
            ("modalities", &[json!(["text"])]),
            ("audio", &[]),
            ("prediction", &[]),
            ("reasoning_effort", &[json!("none")]),
            ("verbosity", &[json!("medium")]),
            ("web_search_options", &[]),
            ("store", &[json!(false)]),
        ],
        "is not supported here",
    );
}

/// The client's name for the request; empty if it has none.
pub fn idempotency_key(headers: &HeaderMap) -> Result<String, Fault> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(String::new()) };
    match value.to_str() {
        Ok(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(Fault::invalid(IDEMPOTENCY_KEY, domain::ClientRequestIdError)),
    }
}

/// A refusal of the request that this edge has made of the client's, with the names of the client's fields.
pub fn in_words_of(api: Api, mut fault: Fault) -> Fault {
    let mut sentences = Vec::new();
    for detail in &mut fault.details {
        if let Detail::Violation { field, description, .. } = detail {
            *field = renamed(api, field);
            sentences.push(format!("{field}: {description}"));
        }
    }
    if fault.reason == domain::Reason::InvalidRequest && !sentences.is_empty() {
        fault.message = sentences.join("; ");
    }
    fault
}

fn renamed(api: Api, field: &str) -> String {
    let input = match api {
        Api::Chat => "messages",
        Api::Completion => "prompt",
    };
    match field {
        "input" | "prompt" | "tokens.ids" => input.to_owned(),
        "client_request_id" => IDEMPOTENCY_KEY.to_owned(),
        "logprobs" if api == Api::Chat => "top_logprobs".to_owned(),
        _ => field.strip_prefix("chat.").or_else(|| field.strip_prefix("sampling.")).unwrap_or(field).to_owned(),
    }
}
