//! The verbs that use a model: `generate`, `chat` and `models`.

mod chat;
mod generate;
mod models;

pub use chat::chat;
pub use generate::generate;
pub use models::models;

use proto::v1::{ChatMessage, Sampling};

use crate::cli::SamplingArgs;

fn message(role: &str, content: impl Into<String>) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.into() }
}

/// What was not given stays unset: the server has the defaults.
fn sampling(args: &SamplingArgs) -> Sampling {
    Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        presence_penalty: args.presence_penalty,
        frequency_penalty: args.frequency_penalty,
        seed: args.seed,
    }
}
