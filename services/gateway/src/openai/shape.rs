//! What an answer looks like: whole or in chunks, of chat completions or of completions.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use domain::RequestId;
use proto::v1;
use serde_json::{Map, Value, json};
use store::FinishReason;
use time::OffsetDateTime;

use crate::workers::Finished;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Chat,
    Completion,
}

/// What stands at the head of the whole answer and of each of its chunks.
pub struct Head {
    pub api: Api,
    pub id: RequestId,
    model: String,
    seed: u64,
    created: i64,
}

impl Head {
    pub fn new(api: Api, id: RequestId, model: String, seed: u64) -> Self {
        Self { api, id, model, seed, created: OffsetDateTime::now_utc().unix_timestamp() }
    }

    /// The answer at once.
    pub fn whole(&self, text: &str, logprobs: Option<Value>, finished: &Finished) -> Value {
        let reason = finish_reason(finished.reason);
        let (object, choice) = match self.api {
            Api::Chat => {
                let message = json!({"role": "assistant", "content": text, "refusal": null});
                (
                    "chat.completion",
                    json!({
                        "index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason,
                    }),
                )
            }
            Api::Completion => (
                "text_completion",
                json!({
                    "index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason,
                }),
            ),
        };
        let mut answer = self.object(object, vec![choice]);
        answer.insert("usage".to_owned(), usage(finished));
        answer.insert("banyan".to_owned(), self.receipt(finished));
        Value::Object(answer)
    }

    /// The first chunk of a chat says whose words follow.
    pub fn opening(&self) -> Option<Map<String, Value>> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (self.api == Api::Chat).then(|| self.chat_chunk(delta, None, Value::Null))
    }

    pub fn chunk(&self, text: &str, logprobs: Option<Value>) -> Map<String, Value> {
        match self.api {
            Api::Chat => self.chat_chunk(json!({"content": text}), logprobs, Value::Null),
            Api::Completion => self.text_chunk(text, logprobs, Value::Null),
        }
    }

    /// The chunk that says how the answer ended; no text comes with it.
    pub fn closing(&self, finished: &Finished) -> Map<String, Value> {
        let reason = json!(finish_reason(finished.reason));
        let mut chunk = match self.api {
            Api::Chat => self.chat_chunk(json!({}), None, reason),
            Api::Completion => self.text_chunk("", None, reason),
        };
        chunk.insert("banyan".to_owned(), self.receipt(finished));
        chunk
    }

    /// Behind everything, where it was asked for.
    pub fn usage_chunk(&self, finished: &Finished) -> Map<String, Value> {
        let mut chunk = self.object(self.chunk_object(), Vec::new());
        chunk.insert("usage".to_owned(), usage(finished));
        chunk
    }

    fn chat_chunk(&self, delta: Value, logprobs: Option<Value>, reason: Value) -> Map<String, Value> {
        let choice = json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason});
        self.object(self.chunk_object(), vec![choice])
    }

    fn text_chunk(&self, text: &str, logprobs: Option<Value>, reason: Value) -> Map<String, Value> {
        let choice = json!({"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason});
        self.object(self.chunk_object(), vec![choice])
    }

    const fn chunk_object(&self) -> &'static str {
        match self.api {
            Api::Chat => "chat.completion.chunk",
            Api::Completion => "text_completion",
        }
    }

    fn object(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let prefix = match self.api {
            Api::Chat => "chatcmpl",
            Api::Completion => "cmpl",
        };
        let fields = [
            ("id", json!(format!("{prefix}-{}", self.id))),
            ("object", json!(object)),
            ("created", json!(self.created)),
            ("model", json!(self.model)),
            ("choices", Value::Array(choices)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What OpenAI's answers have no word for.
    fn receipt(&self, finished: &Finished) -> Value {
        json!({
            "request_id": self.id.to_string(),
            "finish_reason": own_finish_reason(finished.reason),
            "limits": finished.limits,
            "seed": self.seed,
            "base_digest": finished.base.to_string(),
            "adapter_digest": finished.adapter.map(|digest| digest.to_string()),
            "worker": finished.used.worker,
        })
    }
}

/// A budget cuts an answer as its length does; which of them it was stands in `banyan.finish_reason`.
const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos | FinishReason::Stop => "stop",
        FinishReason::Length | FinishReason::Budget => "length",
    }
}

const fn own_finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Eos => "eos",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Budget => "budget",
    }
}

fn usage(finished: &Finished) -> Value {
    let used = &finished.used;
    json!({
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_prompt_tokens},
    })
}

/// Log-probabilities of some tokens; `offset` is how many characters of the answer's tokens stand before them.
pub fn logprobs(api: Api, tokens: &[v1::Token], offset: &mut usize) -> Option<Value> {
    if tokens.iter().all(|token| token.logprob.is_none()) {
        return None;
    }
    match api {
        Api::Chat => {
            let content: Vec<_> = tokens.iter().map(chat_logprob).collect();
            Some(json!({"content": content, "refusal": null}))
        }
        Api::Completion => {
            let offsets: Vec<_> = tokens
                .iter()
                .map(|token| {
                    let at = *offset;
                    *offset += token.text.chars().count();
                    at
                })
                .collect();
            let top = |token: &v1::Token| -> Map<String, Value> {
                token.top_logprobs.iter().map(|top| (top.text.clone(), json!(top.logprob))).collect()
            };
            Some(json!({
                "tokens": tokens.iter().map(|token| &token.text).collect::<Vec<_>>(),
                "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
                "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
                "text_offset": offsets,
            }))
        }
    }
}

fn chat_logprob(token: &v1::Token) -> Value {
    let top = token.top_logprobs.iter();
    let top: Vec<_> =
        top.map(|top| json!({"token": top.text, "logprob": top.logprob, "bytes": bytes(&top.text)})).collect();
    json!({"token": token.text, "logprob": token.logprob, "bytes": bytes(&token.text), "top_logprobs": top})
}

/// `None` for a token that is a part of a character: the text does not say which.
fn bytes(text: &str) -> Option<&[u8]> {
    (!text.contains(char::REPLACEMENT_CHARACTER)).then_some(text.as_bytes())
}

pub fn json(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
