//! From a format to a matcher, and from a matcher to a mask. What users send is not trusted: every measure of its cost has
//! a limit, and what goes beyond is refused in words.

use std::sync::Arc;

use domain::{Fault, ResponseFormat};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::FIELD;
use crate::beginning;
use crate::config::GrammarConfig;
use crate::sampler::TokenMask;
use crate::text::TextModel;

/// Between the tokens of JSON: enough to indent, and not so much that a weak model fills its answer with it.
const JSON_WHITESPACE: &str = r"[ \n\r\t]{1,20}";
/// Of the library's words that are passed on. They repeat what was sent, in lines that may be as long as that.
const MESSAGE_LINES_MAX: usize = 6;
const LINE_CHARS_MAX: usize = 160;

/// Makes matchers for one vocabulary.
pub(super) struct Compiler {
    factory: ParserFactory,
}

impl Compiler {
    /// `eos` must not be empty. Takes a fraction of a second for a large vocabulary.
    pub fn new(text: &TextModel, vocab_size: usize, eos: &[u32], config: &GrammarConfig) -> Result<Self, String> {
        let first = eos.first().ok_or("the base model has no end-of-sequence token")?;
        let ids = 0..u32::try_from(vocab_size).map_err(|error| error.to_string())?;
        let info = TokRxInfo::new(ids.end, *first);
        let words: Vec<_> = ids.map(|id| word(text, id)).collect();
        let trie = TokTrie::from(&info, &words).with_eos_tokens(eos);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|error| error.to_string())?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_items_in_row: config.row_items_max,
            initial_lexer_fuel: config.compile_fuel,
            step_lexer_fuel: config.step_fuel,
            step_max_items: config.step_items_max,
            max_lexer_states: config.lexer_states_max,
            max_grammar_size: config.symbols_max,
            precompute_large_lexemes: false,
            verbose_errors: false,
        };
        Ok(Self { factory })
    }

    /// A matcher behind the `beginning` of an answer, and the tokens that may come next.
    pub fn compile(&self, format: &ResponseFormat, beginning: &[u32]) -> Result<(Matcher, TokenMask), Fault> {
        let grammar = match format {
            ResponseFormat::JsonSchema(source) => json_grammar(source)?,
            ResponseFormat::JsonObject => json_grammar(r#"{"type": "object"}"#)?,
            ResponseFormat::Regex(source) => TopLevelGrammar::from_regex(source),
            ResponseFormat::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
        };
        let parser = self.factory.create_parser(grammar).map_err(refused)?;
        let mut matcher = Matcher::new(Ok(parser));
        for (index, token) in beginning.iter().enumerate() {
            matcher.consume_token(*token).map_err(|_| beginning::breaks_its_form(index))?;
        }
        let mask = mask(&mut matcher)?;
        Ok((matcher, mask))
    }
}

/// Takes the next token; the tokens that may follow it. Never an empty set.
pub(super) fn advance(matcher: &mut Matcher, token: u32) -> Result<TokenMask, Fault> {
    matcher.consume_token(token).map_err(refused)?;
    mask(matcher)
}

pub(super) fn refused(why: impl ToString) -> Fault {
    let why = why.to_string();
    // A crash inside the library comes as an error with a stack trace, which is nobody's business.
    if why.starts_with("panic") {
        tracing::error!(error = why, "the grammar library crashed");
        return Fault::invalid(FIELD, "this grammar cannot be served");
    }
    if why.starts_with("NoExtensionBias") {
        return Fault::invalid(FIELD, "allows no further text");
    }
    let lines = why.lines().filter(|line| !line.starts_with("<non-verbose"));
    let text = lines.take(MESSAGE_LINES_MAX).map(shortened).collect::<Vec<_>>().join("\n");
    Fault::invalid(FIELD, text)
}

/// The beginning and the end of a long line.
fn shortened(line: &str) -> String {
    let half = LINE_CHARS_MAX / 2;
    let chars: Vec<char> = line.chars().collect();
    if chars.len() <= LINE_CHARS_MAX {
        return line.to_owned();
    }
    chars[..half].iter().chain(&[' ', '…', ' ']).chain(&chars[chars.len() - half..]).collect()
}

/// The tokens that may come next: where the answer is complete, the end-of-sequence tokens alone.
fn mask(matcher: &mut Matcher) -> Result<TokenMask, Fault> {
    let mask = matcher.compute_mask_or_eos().map_err(refused)?;
    Ok(TokenMask::new(mask.as_slice()))
}

fn json_grammar(source: &str) -> Result<TopLevelGrammar, Fault> {
    let mut schema = match serde_json::from_str(source).map_err(|error| refused(format!("is not JSON: {error}")))? {
        Value::Bool(true) => json!({}),
        Value::Object(schema) => Value::Object(schema),
        _ => return Err(refused("a JSON schema is an object")),
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": JSON_WHITESPACE }));
    }
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// As the library's trie wants it: the bytes of a token, its name behind a mark for a special one, nothing for an id that
/// the tokenizer does not know.
fn word(text: &TextModel, id: u32) -> Vec<u8> {
    text.token_bytes(id).unwrap_or_else(|| match text.special_token(id) {
        Some(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        None => Vec::new(),
    })
}
