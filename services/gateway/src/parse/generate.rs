//! A generation request, checked. What depends on the model (vocabulary, context length) is not known here.

use domain::{ClientRequestId, Digest, Fault, ModelName, ResponseFormat, Sampling};
use prost::Message as _;
use proto::v1;
use sha2::{Digest as _, Sha256};

use super::Violations;
use crate::{config::GenerateConfig, repeats::Name};

const STOP_STRINGS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
const LOGPROBS_MAX: u32 = 20;
const ROLE_BYTES_MAX: usize = 64;
const ROUTING_KEY_BYTES_MAX: usize = 256;
const RESPONSE_FORMAT: &str = "response_format";

#[derive(Clone, Debug)]
pub struct GenerateRequest {
    pub model: ModelName,
    pub input: Input,
    /// With its seed.
    pub sampling: Sampling,
    /// `None` leaves it to the gateway.
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub logprobs: Option<u32>,
    pub ignore_eos: bool,
    pub response_format: Option<ResponseFormat>,
    /// What the client calls it.
    pub name: Option<Name>,
    pub routing_key: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Input {
    Prompt(String),
    /// Role and content.
    Chat(Vec<(String, String)>),
    Tokens(Vec<u32>),
}

/// `draw` gives the seed when the request has none.
pub fn generate(
    mut wire: v1::GenerateRequest,
    config: &GenerateConfig,
    draw: impl FnOnce() -> u64,
) -> Result<GenerateRequest, Fault> {
    let mut violations = Violations::default();
    let client_request_id = std::mem::take(&mut wire.client_request_id);
    let name = violations
        .parse_optional("client_request_id", &client_request_id)
        .map(|id: ClientRequestId| Name { id, fingerprint: fingerprint(&wire) });
    let model = violations.parse("model", &wire.model);
    let input = wire.input.map(|input| match input {
        v1::generate_request::Input::Prompt(text) => Input::Prompt(text),
        v1::generate_request::Input::Chat(chat) => chat_input(chat),
        v1::generate_request::Input::Tokens(tokens) => Input::Tokens(tokens.ids),
    });
    check_input(&mut violations, input.as_ref(), config);
    let sampling = sampling(&mut violations, wire.sampling.unwrap_or_default(), draw);
    let most = config.max_tokens_max;
    violations.require("max_tokens", wire.max_tokens <= most, format!("must be at most {most}"));
    violations.require("stop", wire.stop.len() <= STOP_STRINGS_MAX, "must be at most 16 strings");
    for (at, stop) in wire.stop.iter().enumerate().take(STOP_STRINGS_MAX) {
        let fits = (1..=STOP_BYTES_MAX).contains(&stop.len());
        violations.require(&format!("stop[{at}]"), fits, "must be 1 to 256 bytes");
    }
    violations.require("logprobs", wire.logprobs.is_none_or(|n| n <= LOGPROBS_MAX), "must be 0 to 20");
    let response_format = wire.response_format.map(|format| response_format(&mut violations, format, config));
    let both = response_format.is_some() && wire.ignore_eos;
    violations.require(RESPONSE_FORMAT, !both, "cannot be combined with ignore_eos");
    let fits = wire.routing_key.len() <= ROUTING_KEY_BYTES_MAX;
    violations.require("routing_key", fits, "must be at most 256 bytes");
    let request = model.zip(input).zip(sampling).map(|((model, input), sampling)| GenerateRequest {
        model,
        input,
        sampling,
        max_tokens: (wire.max_tokens > 0).then_some(wire.max_tokens),
        stop: wire.stop,
        logprobs: wire.logprobs,
        ignore_eos: wire.ignore_eos,
        response_format: response_format.flatten(),
        name,
        routing_key: (!wire.routing_key.is_empty()).then_some(wire.routing_key),
    });
    violations.check(request)
}

/// Of all that the request asks for, as it was sent: without a seed that was drawn for it.
fn fingerprint(wire: &v1::GenerateRequest) -> Digest {
    Digest::new(Sha256::digest(wire.encode_to_vec()).into())
}

pub fn input(wire: v1::CountTokensRequest, config: &GenerateConfig) -> Result<(ModelName, Input), Fault> {
    let mut violations = Violations::default();
    let model = violations.parse("model", &wire.model);
    let input = wire.input.map(|input| match input {
        v1::count_tokens_request::Input::Prompt(text) => Input::Prompt(text),
        v1::count_tokens_request::Input::Chat(chat) => chat_input(chat),
        v1::count_tokens_request::Input::Tokens(tokens) => Input::Tokens(tokens.ids),
    });
    check_input(&mut violations, input.as_ref(), config);
    violations.check(model.zip(input))
}

/// Bounds, and for a schema that it is JSON. Whether a worker can serve it shows when it is compiled there.
fn response_format(
    violations: &mut Violations,
    wire: v1::ResponseFormat,
    config: &GenerateConfig,
) -> Option<ResponseFormat> {
    use v1::response_format::Format;
    let format = match wire.format {
        Some(Format::JsonSchema(source)) => ResponseFormat::JsonSchema(source),
        Some(Format::Regex(source)) => ResponseFormat::Regex(source),
        Some(Format::Lark(source)) => ResponseFormat::Lark(source),
        Some(Format::JsonObject(v1::JsonObject {})) => return Some(ResponseFormat::JsonObject),
        None => {
            violations.add(RESPONSE_FORMAT, "must be one of `json_schema`, `regex`, `lark` and `json_object`");
            return None;
        }
    };
    let (bytes, most) = (format.source().len(), config.response_format_bytes_max);
    violations.require(RESPONSE_FORMAT, (1..=most).contains(&bytes), format!("must be 1 to {most} bytes"));
    if let ResponseFormat::JsonSchema(source) = &format
        && bytes <= most
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(source)
    {
        violations.add(RESPONSE_FORMAT, format!("is not JSON: {error}"));
    }
    Some(format)
}

fn chat_input(chat: v1::ChatMessages) -> Input {
    Input::Chat(chat.messages.into_iter().map(|message| (message.role, message.content)).collect())
}

fn check_input(violations: &mut Violations, input: Option<&Input>, config: &GenerateConfig) {
    let bytes_max = config.input_bytes_max;
    let too_long = format!("must be at most {bytes_max} bytes");
    match input {
        None => violations.add("input", "must be one of `prompt`, `chat` and `tokens`"),
        Some(Input::Prompt(text)) => violations.require("prompt", text.len() <= bytes_max, too_long),
        Some(Input::Tokens(ids)) => {
            violations.require("tokens.ids", !ids.is_empty(), "must not be empty");
            violations.require("tokens.ids", ids.len() <= bytes_max, format!("must be at most {bytes_max} ids"));
        }
        Some(Input::Chat(messages)) => {
            let most = config.messages_max;
            violations.require(
                "chat.messages",
                (1..=most).contains(&messages.len()),
                format!("must be 1 to {most} messages"),
            );
            let bytes: usize = messages.iter().map(|(role, content)| role.len() + content.len()).sum();
            violations.require("chat.messages", bytes <= bytes_max, too_long);
            for (at, (role, _)) in messages.iter().enumerate().take(most) {
                let fits = (1..=ROLE_BYTES_MAX).contains(&role.len());
                violations.require(&format!("chat.messages[{at}].role"), fits, "must be 1 to 64 bytes");
            }
        }
    }
}

fn sampling(violations: &mut Violations, wire: v1::Sampling, draw: impl FnOnce() -> u64) -> Option<Sampling> {
    let default = Sampling::default();
    let given = Sampling {
        temperature: wire.temperature.unwrap_or(default.temperature),
        top_p: wire.top_p.unwrap_or(default.top_p),
        top_k: wire.top_k.unwrap_or(default.top_k),
        min_p: wire.min_p.unwrap_or(default.min_p),
        repetition_penalty: wire.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: wire.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: wire.frequency_penalty.unwrap_or(default.frequency_penalty),
        seed: wire.seed.unwrap_or_else(draw),
    };
    let faults = match given.check() {
        Ok(sampling) => return Some(sampling),
        Err(faults) => faults,
    };
    for fault in faults {
        violations.add(format!("sampling.{}", fault.field), fault.description);
    }
    None
}

#[cfg(test)]
mod tests {
    use domain::Detail;

    use super::*;

    fn config() -> GenerateConfig {
        GenerateConfig {
            max_tokens_default: 16,
            max_tokens_max: 64,
            grant_tokens: 64,
            deadline_default_ms: 1,
            deadline_max_ms: 1,
            stream_buffer_max: 1,
            input_bytes_max: 100,
            messages_max: 2,
            response_format_bytes_max: 20,
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wire = v1::GenerateRequest {
            model: "Not A Model".into(),
            input: Some(v1::generate_request::Input::Chat(v1::ChatMessages {
                messages: vec![v1::ChatMessage { role: String::new(), content: "x".repeat(101) }],
            })),
            sampling: Some(v1::Sampling { top_p: Some(2.0), temperature: Some(-1.0), ..v1::Sampling::default() }),
            max_tokens: 65,
            stop: vec![String::new(), "y".repeat(257)],
            logprobs: Some(21),
            ignore_eos: true,
            response_format: Some(v1::ResponseFormat {
                format: Some(v1::response_format::Format::JsonSchema("{".into())),
            }),
            client_request_id: "not one".into(),
            routing_key: "z".repeat(257),
        };
        let fault = generate(wire, &config(), || 0).expect_err("all wrong");
        let fields: Vec<_> = fault
            .details
            .iter()
            .filter_map(|detail| match detail {
                Detail::Violation { field, .. } => Some(field.as_str()),
                _ => None,
            })
            .collect();
        let expected = [
            "client_request_id",
            "model",
            "chat.messages",
            "chat.messages[0].role",
            "sampling.temperature",
            "sampling.top_p",
            "max_tokens",
            "stop[0]",
            "stop[1]",
            "logprobs",
            "response_format",
            "response_format",
            "routing_key",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_response_format_is_bounded() {
        use v1::response_format::Format;
        let parse = |format| {
            let wire = v1::GenerateRequest {
                model: "base".into(),
                input: Some(v1::generate_request::Input::Prompt("a".into())),
                response_format: Some(v1::ResponseFormat { format }),
                ..v1::GenerateRequest::default()
            };
            generate(wire, &config(), || 0).map(|request| request.response_format)
        };
        assert_eq!(parse(Some(Format::JsonObject(v1::JsonObject {}))), Ok(Some(ResponseFormat::JsonObject)));
        assert_eq!(parse(Some(Format::Regex("a+".into()))), Ok(Some(ResponseFormat::Regex("a+".into()))));
        let wrong = [None, Some(Format::Lark(String::new())), Some(Format::Regex("a".repeat(21)))];
        for format in wrong {
            let fault = parse(format).expect_err("wrong");
            assert!(matches!(&fault.details[..], [Detail::Violation { field, .. }] if field == "response_format"));
        }
    }

    #[test]
    fn a_fingerprint_is_of_all_that_is_asked_for_and_of_nothing_else() {
        let wire = |id: &str, seed| v1::GenerateRequest {
            model: "base".into(),
            input: Some(v1::generate_request::Input::Prompt("a".into())),
            sampling: Some(v1::Sampling { seed, ..v1::Sampling::default() }),
            client_request_id: id.into(),
            ..v1::GenerateRequest::default()
        };
        let name = |wire, drawn| generate(wire, &config(), || drawn).expect("fine").name;
        let fingerprint = |wire, drawn| name(wire, drawn).map(|name| name.fingerprint);
        assert_eq!(name(wire("", None), 1), None);
        assert_eq!(fingerprint(wire("a", None), 1), fingerprint(wire("b", None), 2));
        assert_ne!(fingerprint(wire("a", None), 1), fingerprint(wire("a", Some(1)), 1));
    }

    #[test]
    fn a_seed_is_drawn_only_when_none_is_given() {
        let wire = |seed| v1::GenerateRequest {
            model: "base".into(),
            input: Some(v1::generate_request::Input::Prompt("a".into())),
            sampling: Some(v1::Sampling { seed, ..v1::Sampling::default() }),
            ..v1::GenerateRequest::default()
        };
        assert_eq!(generate(wire(None), &config(), || 7).expect("fine").sampling.seed, 7);
        assert_eq!(generate(wire(Some(3)), &config(), || 7).expect("fine").sampling.seed, 3);
    }
}
