//! A base model's template and tokenizer as `datasets` sees them: the ones that serve.

use std::{fs, path::Path};

use datasets::{Text, Token, Turn, fingerprint};
use engine::{
    model::ModelConfig,
    text::{ChatMessage, TextModel},
};

/// The files that decide how a row becomes tokens.
const FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

pub struct BaseText {
    text: TextModel,
    special_texts: Vec<String>,
    fingerprint: String,
    context_length: u64,
}

impl BaseText {
    /// # Errors
    /// A checkpoint folder without a tokenizer or a config that can be read.
    pub fn load(dir: &Path) -> Result<Self, String> {
        let text = TextModel::load(dir).map_err(|error| error.to_string())?;
        let config = ModelConfig::read(dir).map_err(|error| error.to_string())?;
        let files: Vec<_> = FILES.iter().filter_map(|name| Some((*name, fs::read(dir.join(name)).ok()?))).collect();
        Ok(BaseText {
            special_texts: text.special_tokens(),
            text,
            fingerprint: fingerprint(files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))),
            context_length: config.context_length as u64,
        })
    }

    /// Tokens.
    pub fn context_length(&self) -> u64 {
        self.context_length
    }
}

impl Text for BaseText {
    fn render(&self, turns: &[Turn]) -> Result<String, String> {
        self.text.render_conversation(&messages(turns)).map_err(|error| error.to_string())
    }

    fn render_prompt(&self, turns: &[Turn]) -> Result<String, String> {
        self.text.render_chat(&messages(turns)).map_err(|error| error.to_string())
    }

    fn encode_rendered(&self, text: &str) -> Result<Vec<Token>, String> {
        self.text.encode_rendered_with_ends(text).map(tokens).map_err(|error| error.to_string())
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<Token>, String> {
        self.text.encode_plain_with_ends(text).map(tokens).map_err(|error| error.to_string())
    }

    fn is_special(&self, id: u32) -> bool {
        self.text.special_token(id).is_some()
    }

    fn special_texts(&self) -> &[String] {
        &self.special_texts
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn messages(turns: &[Turn]) -> Vec<ChatMessage> {
    let message = |turn: &Turn| ChatMessage { role: turn.role.as_str().to_owned(), content: turn.content.clone() };
    turns.iter().map(message).collect()
}

/// Each begins where the one before it ends.
fn tokens(ends: Vec<(u32, usize)>) -> Vec<Token> {
    let starts = std::iter::once(0).chain(ends.iter().map(|(_, end)| *end));
    starts.zip(&ends).map(|(start, (id, end))| Token { id: *id, start, end: *end }).collect()
}

#[cfg(test)]
mod tests {
    use datasets::{Content, Role, encode};
    use serde::Deserialize;

    use super::*;
    use crate::up::shipped;

    /// Made by `tests/golden/make_loss_masks.py`.
    const GOLDEN: &str = include_str!("../../tests/golden/loss_masks.jsonl");

    #[derive(Deserialize)]
    struct Golden {
        messages: Vec<Turn>,
        ids: Vec<u32>,
        mask: Vec<u8>,
    }

    fn base() -> BaseText {
        BaseText::load(&shipped::base()).expect("the shipped base")
    }

    #[test]
    fn tokens_and_masks_are_those_of_transformers() {
        let base = base();
        let golden: Vec<Golden> = GOLDEN.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(golden.len() > 20);
        for Golden { messages, ids, mask } in golden {
            let (encoded, _) = encode(&Content::Chat(messages.clone()), &base).expect("encoded");
            assert_eq!(encoded.ids, ids, "{messages:?}");
            let found: Vec<_> = encoded.trained.iter().map(u8::from).collect();
            assert_eq!(found, mask, "{messages:?}");
        }
    }

    #[test]
    fn a_row_begins_with_the_tokens_that_serving_would_send() {
        let base = base();
        for answer in ["\n\nA list:\n- one", "  indented", "A fee."] {
            let turns = vec![Turn::new(Role::User, "List?"), Turn::new(Role::Assistant, answer)];
            let prompt = base.text.encode_chat(&messages(&turns[..1])).expect("encoded");
            let (encoded, rendered) = encode(&Content::Chat(turns), &base).expect("encoded");
            assert_eq!(encoded.ids[..prompt.len()], prompt, "{answer:?}");
            assert!(!encoded.trained.get(prompt.len() - 1) && encoded.trained.get(prompt.len()), "{answer:?}");
            let learned: Vec<_> = rendered.trained.iter().map(|range| &rendered.text[range.clone()]).collect();
            assert_eq!(learned, [format!("{answer}<|im_end|>")]);
        }
    }

    #[test]
    fn the_bases_own_marks_and_its_content_are_known() {
        let base = base();
        assert!(base.special_texts().iter().any(|text| text == "<|im_end|>"), "{:?}", base.special_texts());
        assert!(base.fingerprint().starts_with("sha256:") && base.context_length() == 512);
    }
}
