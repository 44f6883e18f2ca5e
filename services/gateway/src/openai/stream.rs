//! An answer on its way out: gathered into one object, or as server-sent events that end with `[DONE]`.

use std::collections::VecDeque;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use domain::Fault;
use futures::{Stream, StreamExt as _, stream};
use proto::v1;
use serde_json::{Map, Value};

use super::{
    error,
    request::Options,
    shape::{self, Head},
};
use crate::{edge, workers::Step};

/// Ends with an object, or with the fault that the answer ends with.
pub async fn collect(
    head: Head,
    mut steps: impl Stream<Item = Result<Step, Fault>> + Unpin,
) -> Result<Response<Body>, Fault> {
    let (mut text, mut tokens): (String, Vec<v1::Token>) = (String::new(), Vec::new());
    while let Some(step) = steps.next().await {
        let step = step?;
        text += &step.text;
        tokens.extend(step.tokens);
        if let Some(finished) = step.finished {
            let logprobs = shape::logprobs(head.api, &tokens, &mut 0);
            return Ok(shape::json(&head.whole(&text, logprobs, &finished)));
        }
    }
    Err(Fault::internal())
}

/// Headers go out at once, for the first step is there already. A fault after that is the last event.
pub fn respond(
    head: Head,
    options: Options,
    steps: impl Stream<Item = Result<Step, Fault>> + Send + Unpin + 'static,
) -> Response<Body> {
    let events = Events { head, options, offset: 0 };
    let opening = events.head.opening().map(|chunk| events.event(chunk)).into_iter().collect();
    let body =
        stream::unfold((events, steps, opening, false), |(mut events, mut steps, mut ready, mut ended)| async move {
            loop {
                let next: Option<String> = VecDeque::pop_front(&mut ready);
                if let Some(event) = next {
                    return Some((Ok::<_, std::convert::Infallible>(event), (events, steps, ready, ended)));
                }
                if ended {
                    return None;
                }
                let step = steps.next().await.unwrap_or_else(|| Err(Fault::internal()));
                ended = step.as_ref().is_ok_and(|step| step.finished.is_some()) || step.is_err();
                events.of(step, &mut ready);
            }
        });
    let mut response = Response::new(Body::from_stream(body));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // Proxies are not to gather it.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

struct Events {
    head: Head,
    options: Options,
    offset: usize,
}

impl Events {
    /// The events of one step. Text that is held back for now makes none.
    fn of(&mut self, step: Result<Step, Fault>, ready: &mut VecDeque<String>) {
        let step = match step {
            Ok(step) => step,
            Err(fault) => {
                edge::log_refusal(&fault);
                ready.push_back(format!("data: {}\n\n", error::body(&fault, Some(self.head.id))));
                return;
            }
        };
        let logprobs = shape::logprobs(self.head.api, &step.tokens, &mut self.offset);
        if !step.text.is_empty() || logprobs.is_some() {
            ready.push_back(self.event(self.head.chunk(&step.text, logprobs)));
        }
        if let Some(finished) = &step.finished {
            ready.push_back(self.event(self.head.closing(finished)));
            if self.options.include_usage {
                ready.push_back(format!("data: {}\n\n", Value::Object(self.head.usage_chunk(finished))));
            }
            ready.push_back("data: [DONE]\n\n".to_owned());
        }
    }

    /// Where usage was asked for, every chunk before it says that it has none.
    fn event(&self, mut chunk: Map<String, Value>) -> String {
        if self.options.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        format!("data: {}\n\n", Value::Object(chunk))
    }
}
