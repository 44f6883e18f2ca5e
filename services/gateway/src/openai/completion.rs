//! `POST /v1/completions`: the request.

use domain::Fault;
use proto::v1::{TokenIds, generate_request::Input};
use serde_json::{Map, Value};

use super::{
    fields::Fields,
    request::{Asked, read},
};

pub fn parse(object: Map<String, Value>) -> Result<Asked, Fault> {
    let mut fields = Fields::new(object);
    let input = match fields.take("prompt") {
        Some(value) => input(&mut fields, value),
        None => {
            fields.missing("prompt");
            None
        }
    };
    let logprobs = fields.count("logprobs");
    let asked = read(&mut fields, input, logprobs);
    fields.finish(asked)
}

/// One prompt, alone or as a list of one: a text, or its token ids.
fn input(fields: &mut Fields, value: Value) -> Option<Input> {
    match value {
        Value::String(text) => Some(Input::Prompt(text)),
        Value::Array(mut items) if matches!(items[..], [Value::String(_) | Value::Array(_)]) => {
            input(fields, items.remove(0))
        }
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => {
            fields.unsupported("prompt", "must be one prompt: several in one request are not supported here");
            None
        }
        Value::Array(items) => {
            let ids = items.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect::<Option<Vec<_>>>();
            match ids {
                Some(ids) => Some(Input::Tokens(TokenIds { ids })),
                None => fields.type_wrong("prompt", "an array of token ids"),
            }
        }
        _ => fields.type_wrong("prompt", "a string or an array"),
    }
}
