//! The checkpoint's chat template (Jinja), rendered as `transformers` renders it: blocks trimmed, Python's string
//! methods, `raise_exception`, `tojson` in Python's spelling. There is no `strftime_now`: a prompt does not depend on the day.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TextError, file_error};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    pub content: String,
}

/// A compiled chat template with the special tokens that it may write.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(&'static str, String)>,
}

const NAME: &str = "chat_template";
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The part of `tokenizer_config.json` that a template needs.
#[derive(Deserialize, Default)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or else the template (or the one named `default`) of `tokenizer_config.json`.
    /// `None` if the checkpoint has neither.
    pub fn load(dir: &Path) -> Result<Option<Self>, TextError> {
        let config: TokenizerConfig = match read_optional(dir, "tokenizer_config.json")? {
            Some(text) => serde_json::from_str(&text).map_err(|e| file_error("tokenizer_config.json", e))?,
            None => TokenizerConfig::default(),
        };
        let in_config = config.chat_template.and_then(|templates| match templates {
            Templates::One(template) => Some(template),
            Templates::Named(named) => named.into_iter().find(|t| t.name == "default").map(|t| t.template),
        });
        let Some(source) = read_optional(dir, "chat_template.jinja")?.or(in_config) else { return Ok(None) };
        let token = |name: &'static str| token_content(config.rest.get(name)?).map(|content| (name, content));
        Self::new(&source, SPECIAL_TOKENS.into_iter().filter_map(token).collect()).map(Some)
    }

    /// Compiles a template; `special_tokens` are given to it as variables (`bos_token`, …).
    pub fn new(source: &str, special_tokens: Vec<(&'static str, String)>) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(template_error)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, without_generation_marks(source))
            .map_err(|e| file_error("chat_template", format!("{e:#}")))?;
        Ok(Self { environment, special_tokens })
    }

    /// The conversation as the model was trained to see it, up to where the assistant's answer begins.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        self.render_with(messages, true)
    }

    /// The conversation and nothing after its last turn: what a training run sees.
    pub fn render_whole(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        self.render_with(messages, false)
    }

    fn render_with(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String, TextError> {
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        let tokens: BTreeMap<&str, String> = self.special_tokens.iter().cloned().collect();
        let none = ();
        // `transformers` always passes `tools` and `documents`; templates test them against none.
        let variables =
            context! { messages => Serde(messages), add_generation_prompt, tools => none, documents => none, ..tokens };
        template.render(variables).map_err(template_error)
    }
}

fn read_optional(dir: &Path, file: &str) -> Result<Option<String>, TextError> {
    match std::fs::read_to_string(dir.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(file, error)),
    }
}

/// A token is written as a string or as an object with `content`.
fn token_content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// `{% generation %}` marks the assistant's words for training and prints nothing. As a comment it keeps its white-space
/// control.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        out.push_str(&rest[..start]);
        rest = &rest[start + length + 2..];
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        if word == "generation" || word == "endgeneration" {
            let left = if tag.starts_with('-') { "-" } else { "" };
            let right = if tag.ends_with('-') { "-" } else { "" };
            out.push_str(&format!("{{#{left} {right}#}}"));
        } else {
            out.push_str(&format!("{{%{tag}%}}"));
        }
    }
    out + rest
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `json.dumps(…, ensure_ascii=False)`: `, ` and `: ` between items, or one item a line with `indent`.
fn to_json(value: Serde<Value>, options: Kwargs) -> Result<minijinja::Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut out = Vec::new();
    let written = match indent {
        Some(n) => {
            let spaces = " ".repeat(n.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.0.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => value.0.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonSpacing)),
    };
    written.map_err(|e| failed(&e))?;
    String::from_utf8(out).map(minijinja::Value::from_safe_string).map_err(|e| failed(&e))
}

/// Python's default separators.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn template_error(error: Error) -> TextError {
    TextError::Template(error.detail().map_or_else(|| error.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(turns: &[(&str, &str)]) -> Vec<ChatMessage> {
        turns.iter().map(|(role, content)| ChatMessage { role: (*role).into(), content: (*content).into() }).collect()
    }

    fn render(source: &str, turns: &[(&str, &str)]) -> Result<String, TextError> {
        ChatTemplate::new(source, vec![("bos_token", "<s>".into()), ("eos_token", "</s>".into())])
            .expect("compiles")
            .render(&messages(turns))
    }

    #[test]
    fn blocks_are_trimmed_and_tokens_are_variables() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n[INST] {{ m.content.strip() }} [/INST]\n    {% else %}\n{{ m['content'] + eos_token }}\n    {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}\n";
        assert_eq!(
            render(source, &[("user", "  hi "), ("assistant", "yo")]).unwrap(),
            "<s>\n[INST] hi [/INST]\nyo</s>\n>"
        );
    }

    #[test]
    fn a_whole_conversation_opens_no_other_turn() {
        let source = "{% for m in messages %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}>{% endif %}";
        let template = ChatTemplate::new(source, Vec::new()).expect("compiles");
        let turns = messages(&[("user", "hi"), ("assistant", "yo")]);
        assert_eq!(template.render(&turns).unwrap(), "hi;yo;>");
        assert_eq!(template.render_whole(&turns).unwrap(), "hi;yo;");
    }

    #[test]
    fn the_templates_own_refusal_is_passed_on_word_for_word() {
        let source = "{% if messages[0].role != 'user' %}{{ raise_exception('Start with the user!') }}{% endif %}";
        let error = render(source, &[("assistant", "x")]).expect_err("refused");
        assert!(matches!(&error, TextError::Template(message) if message == "Start with the user!"), "{error}");
        assert_eq!(render(source, &[("user", "x")]).unwrap(), "");
    }

    #[test]
    fn tools_and_documents_are_none_and_the_date_is_not_defined() {
        let source =
            "{{ tools is none }} {{ documents is none }} {{ strftime_now is defined }}{% if tools %} tools{% endif %}";
        assert_eq!(render(source, &[]).unwrap().to_lowercase(), "true true false");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let source = "{{ messages | tojson }}|{{ messages[0] | tojson(indent=2) }}";
        assert_eq!(
            render(source, &[("user", "<é\" 'x'>")]).unwrap(),
            "[{\"role\": \"user\", \"content\": \"<é\\\" 'x'>\"}]|{\n  \"role\": \"user\",\n  \"content\": \"<é\\\" 'x'>\"\n}"
        );
    }

    #[test]
    fn generation_marks_and_loop_controls_are_understood() {
        let source = "{%- for m in messages -%}\n  {%- if loop.index > 1 -%}{%- break -%}{%- endif -%}\n  {%- generation -%}\n  {{ m.content }}\n  {%- endgeneration -%}\n{%- endfor -%}\n!";
        assert_eq!(render(source, &[("user", "a"), ("user", "b")]).unwrap(), "a!");
    }

    #[test]
    fn the_file_wins_over_the_config_and_default_over_the_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        let rendered = || ChatTemplate::load(dir.path()).unwrap().map(|t| t.render(&[]).unwrap());
        assert_eq!(rendered(), None);
        write(
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "<b>"}, "chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "{{ bos_token }}d"}]}"#,
        );
        assert_eq!(rendered().as_deref(), Some("<b>d"));
        write("tokenizer_config.json", r#"{"chat_template": "one", "bos_token": null}"#);
        assert_eq!(rendered().as_deref(), Some("one"));
        write("chat_template.jinja", "file");
        assert_eq!(rendered().as_deref(), Some("file"));
    }
}
