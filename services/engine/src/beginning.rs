//! The beginning of an answer that another engine has made. An answer that has one goes on behind it exactly as if it had
//! made it here: the same tokens, text and log-probabilities, bit for bit. Nothing is computed here.

use domain::Fault;

/// Tokens that stand already, and how far the reader has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// Count towards `max_tokens`, the grant and the usage; are not sent again.
    pub tokens: Vec<u32>,
    /// Bytes of the answer's text that the reader has; the text goes on behind them.
    pub text_bytes: usize,
}

/// The request's fields, as faults name them.
pub(crate) const TOKENS: &str = "generated";
const TEXT_BYTES: &str = "text_sent_bytes";

impl Beginning {
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.text_bytes == 0
    }
}

/// The answer ends with the token at `index`, and yet there are more.
pub(crate) fn goes_on_after_its_end(index: usize) -> Fault {
    Fault::invalid(TOKENS, format!("the answer ends with token {index}, and no more can stand behind it"))
}

/// The text that these tokens make has no such place.
pub(crate) fn has_no_such_text(text_bytes: usize) -> Fault {
    Fault::invalid(TEXT_BYTES, format!("the text of the generated tokens cannot be divided at byte {text_bytes}"))
}

/// The grammar does not allow the token at `index`.
pub(crate) fn breaks_its_form(index: usize) -> Fault {
    Fault::invalid(TOKENS, format!("token {index} is not one that response_format allows there"))
}
