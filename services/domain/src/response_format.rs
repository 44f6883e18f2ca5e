//! What form an answer must have. The words of it are checked where they are compiled, in the engine.

/// A form that the answer's text is held to, token by token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFormat {
    /// JSON that fits a JSON Schema (given as JSON text).
    JsonSchema(String),
    /// Text that a regular expression matches from beginning to end (the syntax of the crate `regex`).
    Regex(String),
    /// Text of a context-free grammar in llguidance's variant of Lark.
    Lark(String),
    /// Any JSON object.
    JsonObject,
}

impl ResponseFormat {
    /// The schema, expression or grammar; empty where there is none.
    pub fn source(&self) -> &str {
        match self {
            Self::JsonSchema(source) | Self::Regex(source) | Self::Lark(source) => source,
            Self::JsonObject => "",
        }
    }
}
