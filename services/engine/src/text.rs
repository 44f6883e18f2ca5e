//! Text to token ids and back, as the checkpoint's own files say: `tokenizer.json`, `tokenizer_config.json`,
//! `chat_template.jinja`. It knows nothing of the model's weights and nothing of requests.

mod decoder;
mod stop;
mod template;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

pub use decoder::Decoder;
pub use stop::StopMatcher;
pub use template::{ChatMessage, ChatTemplate};

/// Tokenizer and chat template of one checkpoint. Cheap to clone.
#[derive(Clone)]
pub struct TextModel {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Ids that never show in an answer's text.
    special: HashSet<u32>,
    spelling: decoder::Spelling,
}

/// Why text could not be brought to tokens or back.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("{file}: {message}")]
    File { file: String, message: String },
    #[error("this base model has no chat template: send a prompt instead of messages")]
    NoChatTemplate,
    /// The template refused the messages (`raise_exception`), or cannot handle them.
    #[error("the chat template refused the messages: {0}")]
    Template(String),
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

impl TextModel {
    /// Reads the tokenizer and, where there is one, the chat template of a checkpoint directory in Hugging Face layout.
    pub fn load(dir: &Path) -> Result<Self, TextError> {
        let bytes = std::fs::read(dir.join("tokenizer.json")).map_err(|e| file_error("tokenizer.json", e))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| file_error("tokenizer.json", e))?;
        // What the training run cut or padded to is no property of the text.
        tokenizer.with_truncation(None).map_err(|e| file_error("tokenizer.json", e))?;
        tokenizer.with_padding(None);
        Ok(Self::new(tokenizer, ChatTemplate::load(dir)?))
    }

    /// From parts already read.
    pub fn new(tokenizer: Tokenizer, template: Option<ChatTemplate>) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let spelling = decoder::Spelling::of(&tokenizer);
        Self { inner: Arc::new(Inner { tokenizer, template, special, spelling }) }
    }

    /// Encodes a prompt, with the special tokens that the checkpoint's post-processor adds.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.encode_with(text, true)
    }

    /// Renders the messages with the checkpoint's chat template, ready for the assistant's answer, and encodes them.
    /// The template writes every special token itself.
    pub fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, TextError> {
        self.encode_with(&self.render_chat(messages)?, false)
    }

    /// The text that [`TextModel::encode_chat`] encodes.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        self.inner.template.as_ref().ok_or(TextError::NoChatTemplate)?.render(messages)
    }

    /// A whole conversation, with nothing after its last turn: what a training run encodes.
    pub fn render_conversation(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        self.inner.template.as_ref().ok_or(TextError::NoChatTemplate)?.render_whole(messages)
    }

    /// Encodes a text that a chat template has written, and says where in it each token ends, in bytes.
    pub fn encode_rendered_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        self.encode_with_ends(text, false)
    }

    /// Encodes a plain text as [`TextModel::encode`] does, and says where in it each token ends, in bytes.
    pub fn encode_plain_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        self.encode_with_ends(text, true)
    }

    /// The texts that the tokenizer takes for special tokens.
    pub fn special_tokens(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.inner.special.iter().copied().collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.inner.tokenizer.id_to_token(id)).collect()
    }

    /// The text of a whole answer, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.tokenizer.decode(ids, true).map_err(|e| TextError::Tokenizer(e.to_string()))
    }

    /// The text of one token by itself, special tokens included; bytes that are no character show as U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        self.inner.tokenizer.decode(&[id], false).unwrap_or_default()
    }

    /// The name of a special token.
    pub fn special_token(&self, id: u32) -> Option<String> {
        if self.inner.special.contains(&id) { self.inner.tokenizer.id_to_token(id) } else { None }
    }

    /// Decodes an answer token by token; `prompt` is what it follows.
    pub fn decoder(&self, prompt: &[u32]) -> Decoder {
        Decoder::new(self.clone(), prompt)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self.inner.tokenizer.encode_fast(text, add_special_tokens);
        Ok(encoding.map_err(|e| TextError::Tokenizer(e.to_string()))?.get_ids().to_vec())
    }

    /// A token of a part of a character ends where the character ends; one that stands for no text, where the one before
    /// it ends.
    fn encode_with_ends(&self, text: &str, add_special_tokens: bool) -> Result<Vec<(u32, usize)>, TextError> {
        let encoding = self.inner.tokenizer.encode(text, add_special_tokens);
        let encoding = encoding.map_err(|e| TextError::Tokenizer(e.to_string()))?;
        let mut last = 0;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        let with_end = |(id, (_, end)): (&u32, &(usize, usize))| {
            last = last.max(*end);
            (*id, last)
        };
        Ok(tokens.map(with_end).collect())
    }
}

fn file_error(file: &str, error: impl ToString) -> TextError {
    TextError::File { file: file.to_owned(), message: error.to_string() }
}
