//! Text to token ids at the edge: chat template and tokenizer of the checkpoint. Off the async threads, because a long
//! prompt takes long.

use std::sync::Arc;

use domain::{Fault, Reason};
use engine::text::{ChatMessage, TextError, TextModel};
use proto::{
    v1::ChatMessage as ChatMessageWire,
    worker::{TokenizeRequest, tokenize_request::Input},
};
use tokio::sync::Semaphore;

/// Encodes a bounded number of texts at a time.
#[derive(Clone)]
pub struct TokenizeRoom {
    text: TextModel,
    vocab_size: usize,
    places: Arc<Semaphore>,
}

impl TokenizeRoom {
    pub fn new(text: TextModel, vocab_size: usize, concurrent_max: usize) -> Self {
        Self { text, vocab_size, places: Arc::new(Semaphore::new(concurrent_max)) }
    }

    /// # Errors
    /// No input, messages that the template refuses, ids outside the vocabulary.
    pub async fn encode(&self, request: TokenizeRequest) -> Result<Vec<u32>, Fault> {
        let input = request.input.ok_or_else(|| Fault::invalid("input", "set prompt, chat or tokens"))?;
        let text = self.text.clone();
        match input {
            Input::Tokens(tokens) => self.check(tokens.ids),
            Input::Prompt(prompt) => {
                self.run(move || text.encode(&prompt).map_err(|error| fault("prompt", &error))).await
            }
            Input::Chat(chat) if chat.messages.is_empty() => {
                Err(Fault::invalid("chat.messages", "must have at least one message"))
            }
            Input::Chat(chat) => {
                let message = |message: ChatMessageWire| ChatMessage { role: message.role, content: message.content };
                let messages: Vec<_> = chat.messages.into_iter().map(message).collect();
                self.run(move || text.encode_chat(&messages).map_err(|error| fault("chat.messages", &error))).await
            }
        }
    }

    fn check(&self, ids: Vec<u32>) -> Result<Vec<u32>, Fault> {
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            None => Ok(ids),
            Some(id) => {
                let why = format!("token {id} is not in the vocabulary of {} tokens", self.vocab_size);
                Err(Fault::invalid("tokens.ids", why))
            }
        }
    }

    async fn run(&self, encode: impl FnOnce() -> Result<Vec<u32>, Fault> + Send + 'static) -> Result<Vec<u32>, Fault> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Fault::internal())?;
        let encoded = tokio::task::spawn_blocking(move || {
            let _place = place;
            encode()
        });
        encoded.await.unwrap_or_else(|error| {
            tracing::error!(error = %error, "the tokenizer crashed");
            Err(Fault::internal())
        })
    }
}

fn fault(field: &str, error: &TextError) -> Fault {
    match error {
        TextError::NoChatTemplate => Fault::new(Reason::FailedPrecondition, error.to_string()),
        TextError::Template(_) | TextError::Tokenizer(_) => Fault::invalid(field, error),
        TextError::File { .. } => {
            tracing::error!(error = %error, "the tokenizer cannot be used");
            Fault::internal()
        }
    }
}
