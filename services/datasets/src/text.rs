//! What this crate needs of a base model: its chat template and its tokenizer. The engine's text model has both; whoever
//! links the two says how (so that this crate links no tensors).

use sha2::{Digest as _, Sha256};

use crate::row::Turn;

/// A token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// Bytes of the text that it stands for; none for a token that the tokenizer adds.
    pub start: usize,
    pub end: usize,
}

/// Template and tokenizer of a base model.
pub trait Text: Sync {
    /// The conversation as the model sees it.
    ///
    /// # Errors
    /// What the template says against it.
    fn render(&self, turns: &[Turn]) -> Result<String, String>;

    /// The conversation up to where the assistant's next turn begins: what serving generates from.
    ///
    /// # Errors
    /// What the template says against it.
    fn render_prompt(&self, turns: &[Turn]) -> Result<String, String>;

    /// The tokens of a rendered conversation, which holds its special tokens already.
    ///
    /// # Errors
    /// What the tokenizer says against it.
    fn encode_rendered(&self, text: &str) -> Result<Vec<Token>, String>;

    /// The tokens of a plain text, with the special tokens that the tokenizer adds.
    ///
    /// # Errors
    /// What the tokenizer says against it.
    fn encode_plain(&self, text: &str) -> Result<Vec<Token>, String>;

    /// Whether it is a special token, such as the end of a turn.
    fn is_special(&self, id: u32) -> bool;

    /// What the tokenizer takes for special tokens.
    fn special_texts(&self) -> &[String];

    /// Names template and tokenizer by their content.
    fn fingerprint(&self) -> &str;
}

/// Names template and tokenizer by the files that they were read from: name and bytes of each, in a fixed order.
pub fn fingerprint<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut all = Sha256::new();
    for (name, bytes) in files {
        all.update(Sha256::digest(name.as_bytes()));
        all.update(Sha256::digest(bytes));
    }
    format!("sha256:{}", hex::encode(all.finalize()))
}
