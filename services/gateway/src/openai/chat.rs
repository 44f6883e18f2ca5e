//! `POST /v1/chat/completions`: the request.

use domain::Fault;
use proto::v1::{ChatMessage, ChatMessages, generate_request::Input};
use serde_json::{Map, Value};

use super::{
    fields::Fields,
    request::{Asked, read},
};

/// Fields of a message that only tool calls, other media and reasoning have.
const UNSERVED: &[&str] = &["tool_calls", "function_call", "tool_call_id", "audio", "refusal", "reasoning_content"];

pub fn parse(object: Map<String, Value>) -> Result<Asked, Fault> {
    let mut fields = Fields::new(object);
    let messages = match fields.take("messages") {
        Some(Value::Array(messages)) => {
            let read = messages.into_iter().enumerate().map(|(at, value)| message(&mut fields, at, value));
            read.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
        }
        Some(_) => fields.type_wrong("messages", "an array"),
        None => {
            fields.missing("messages");
            None
        }
    };
    let wanted = fields.flag("logprobs").unwrap_or_default();
    let top = fields.count("top_logprobs");
    if top.is_some() && !wanted {
        fields.wrong("top_logprobs", "is allowed only when logprobs is true");
    }
    let logprobs = wanted.then(|| top.unwrap_or_default());
    let input = messages.map(|messages| Input::Chat(ChatMessages { messages }));
    let asked = read(&mut fields, input, logprobs);
    fields.finish(asked)
}

fn message(fields: &mut Fields, at: usize, value: Value) -> Option<ChatMessage> {
    let name = |field: &str| format!("messages[{at}].{field}");
    let Value::Object(mut message) = value else { return fields.type_wrong(&format!("messages[{at}]"), "an object") };
    for field in UNSERVED {
        let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if message.get(*field).is_some_and(|value| !empty(value)) {
            fields.unsupported(name(field), "is not supported here");
        }
    }
    let role = match message.remove("role") {
        // What OpenAI's newer models call the system's words.
        Some(Value::String(role)) if role == "developer" => "system".to_owned(),
        Some(Value::String(role)) => role,
        _ => return fields.type_wrong(&name("role"), "a string"),
    };
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts = parts.iter().enumerate().map(|(part, value)| text_of(fields, at, part, value));
            texts.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()?.join("\n")
        }
        _ => return fields.type_wrong(&name("content"), "a string or an array of content parts"),
    };
    Some(ChatMessage { role, content })
}

fn text_of<'a>(fields: &mut Fields, at: usize, part: usize, value: &'a Value) -> Option<&'a str> {
    let name = format!("messages[{at}].content[{part}]");
    match value.get("type").and_then(Value::as_str) {
        Some("text") => match value.get("text").and_then(Value::as_str) {
            Some(text) => Some(text),
            None => fields.type_wrong(&format!("{name}.text"), "a string"),
        },
        Some(other) => {
            fields.unsupported(format!("{name}.type"), &format!("`{other}` is not supported here, only `text`"));
            None
        }
        None => fields.type_wrong(&format!("{name}.type"), "a string"),
    }
}
