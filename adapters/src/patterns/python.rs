//! Python's `re` on top of `fancy-regex`. It does not translate: a pattern means the same in both, or is refused.

use fancy_regex::{Regex, RegexBuilder};

use crate::limits::Limits;
use crate::refusal::clip;

/// Bytes that a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 256 << 10;

/// A pattern that is matched as Python's `re` does.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {fault}")]
pub struct PatternError {
    pub pattern: String,
    pub fault: String,
}

impl Pattern {
    /// For `re.fullmatch(text, name)`.
    pub fn full(text: &str, limits: &Limits) -> Result<Pattern, PatternError> {
        Pattern::compile(text, format!(r"\A(?:{text})\z"), limits)
    }

    /// For the pattern by which `modules_to_save` keeps adapters away from a module and what is below it.
    pub fn saved(name: &str, limits: &Limits) -> Result<Pattern, PatternError> {
        Pattern::starting(name, &format!(r"(^|.*\.){name}($|\..*)"), limits)
    }

    /// For `re.match(regex, name)`, where PEFT has built `regex` around `text` of the config.
    pub(super) fn starting(text: &str, regex: &str, limits: &Limits) -> Result<Pattern, PatternError> {
        Pattern::compile(text, format!(r"\A(?:{regex})"), limits)
    }

    fn compile(text: &str, anchored: String, limits: &Limits) -> Result<Pattern, PatternError> {
        if text.len() > limits.pattern_bytes_max {
            let fault = format!("is {} bytes long, {} are allowed", text.len(), limits.pattern_bytes_max);
            return Err(error(text, fault));
        }
        means_the_same(text).map_err(|fault| error(text, fault))?;
        let regex = RegexBuilder::new(&anchored)
            .backtrack_limit(limits.backtrack_max)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .delegate_dfa_size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|fault| error(text, format!("cannot be compiled: {}", clip(&fault.to_string(), 256))))?;
        Ok(Pattern { text: text.to_owned(), regex })
    }

    /// Whether a pattern may need backtracking: it looks around, refers back, or is atomic or possessive.
    pub fn may_backtrack(text: &str) -> bool {
        const MARKS: [&str; 11] = ["(?=", "(?!", "(?<=", "(?<!", "(?>", "(?(", "(?P=", "++", "*+", "?+", "}+"];
        let refers_back = || text.as_bytes().windows(2).any(|pair| pair[0] == b'\\' && pair[1].is_ascii_digit());
        MARKS.iter().any(|mark| text.contains(mark)) || refers_back()
    }

    pub fn is_match(&self, name: &str) -> Result<bool, PatternError> {
        self.regex.is_match(name).map_err(|_| self.too_hard())
    }

    /// The group named `group`: `None` without a match, `Some(None)` if the group took no part in it.
    pub(super) fn group(&self, name: &str, group: &str) -> Result<Option<Option<String>>, PatternError> {
        let captures = self.regex.captures(name).map_err(|_| self.too_hard())?;
        Ok(captures.map(|captures| captures.name(group).map(|found| found.as_str().to_owned())))
    }

    fn too_hard(&self) -> PatternError {
        error(&self.text, "takes too many steps to match; simplify it".into())
    }
}

fn error(pattern: &str, fault: String) -> PatternError {
    PatternError { pattern: clip(pattern, 128), fault }
}

/// Refuses the few constructs that Python and Rust read differently: escapes that Python does not know, and set
/// operations inside a character class.
fn means_the_same(pattern: &str) -> Result<(), String> {
    const LETTER_ESCAPES: &str = "AbBdDsSwWZafnrtvxuU";
    let mut chars = pattern.chars().peekable();
    let mut class: Option<usize> = None; // position within the class
    while let Some(c) = chars.next() {
        match (c, class) {
            ('\\', _) => match chars.next() {
                Some(escape) if escape.is_ascii_alphabetic() && !LETTER_ESCAPES.contains(escape) => {
                    return Err(format!(r"uses `\{escape}`, which Python does not know"));
                }
                Some('x' | 'u' | 'U') if chars.peek() == Some(&'{') => {
                    return Err(r"uses a braced escape, which Python does not know".into());
                }
                Some('Z') if class.is_none() => {} // end of text in both: names hold no line break
                Some(_) => class = class.map(|position| position + 1),
                None => return Err("ends in a backslash".into()),
            },
            ('{', None) => {
                let rest: String = chars.clone().take_while(|c| *c != '}').collect();
                if !counts_up(&rest) {
                    return Err(format!(
                        "holds the repetition {{{}}}; write both bounds, the lower one first",
                        clip(&rest, 16)
                    ));
                }
            }
            ('[', None) => {
                class = Some(0);
                chars.next_if_eq(&'^');
            }
            ('[', Some(_)) => return Err("holds `[` inside a character class; write `\\[`".into()),
            (']', Some(0)) => class = Some(1), // a first `]` is itself
            (']', Some(_)) => class = None,
            ('&' | '~' | '-', Some(_)) if chars.peek() == Some(&c) => {
                return Err(format!("holds `{c}{c}` inside a character class"));
            }
            (_, Some(position)) => class = Some(position + 1),
            (_, None) => {}
        }
    }
    Ok(())
}

/// Whether `m`, `m,` or `m,n` with m <= n. (`,n` and what is no repetition at all are read differently.)
fn counts_up(bounds: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    match bounds.split_once(',') {
        None => number(bounds).is_some(),
        Some((low, "")) => number(low).is_some(),
        Some((low, high)) => matches!((number(low), number(high)), (Some(low), Some(high)) if low <= high),
    }
}
