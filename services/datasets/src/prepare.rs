//! What can be said about a row without knowing the others: shape, secrets, tokens, and all that the book compares rows
//! by. Rows are prepared on several threads.

use crate::{
    code::Code,
    encode::encode,
    finding::{Problem, clip},
    held_out::{key, runs},
    options::Options,
    privacy,
    row::{Content, normalised},
    shape::{ShapeName, shape},
    similar::{Sketch, sketch},
    source::{Fields, Record},
    text::Text,
};

/// A row that is ready for the book.
pub(crate) struct Prepared {
    pub line: u64,
    pub row: Result<Ready, Problem>,
    pub warnings: Vec<Problem>,
    /// Columns that the shape does not read.
    pub ignored: Vec<String>,
}

/// A row that could be accepted.
pub(crate) struct Ready {
    pub content: Content,
    pub label: Option<String>,
    /// The value of the group column.
    pub group: Option<String>,
    pub tokens: u64,
    pub trained_tokens: u64,
    /// Names the content letter by letter.
    pub content_key: u128,
    /// Names what is asked, case and white space aside.
    pub question_key: u128,
    /// Names the answer likewise.
    pub answer_key: u128,
    pub question: String,
    pub question_runs: Vec<u64>,
    pub sketch: Sketch,
}

/// What all rows of a file have in common.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a, T> {
    pub shape: ShapeName,
    pub options: &'a Options,
    pub text: &'a T,
    /// Whether questions are looked for in a held-out file, or belong to it.
    pub with_runs: bool,
}

impl<T: Text> Context<'_, T> {
    pub(crate) fn prepare(&self, record: Record) -> Prepared {
        let Record { line, fields } = record;
        let (mut warnings, mut ignored) = (Vec::new(), Vec::new());
        let row = fields.and_then(|fields| {
            ignored = self.ignored(&fields);
            self.ready(&fields, &mut warnings)
        });
        Prepared { line, row, warnings, ignored }
    }

    fn ready(&self, fields: &Fields, warnings: &mut Vec<Problem>) -> Result<Ready, Problem> {
        let Options { mapping, .. } = self.options;
        let mut shaped = shape(self.shape, fields, mapping)?;
        let group = self.group(fields)?;
        self.check_label(shaped.label.as_deref())?;
        for found in privacy::inspect(&mut shaped.content, self.options.mask) {
            if found.code == Code::Secret {
                return Err(found);
            }
            warnings.push(found);
        }
        let content = shaped.content;
        self.check_special(&content)?;
        let (encoded, _) = encode(&content, self.text)?;
        let tokens = encoded.ids.len() as u64;
        let max = self.options.tokens_max;
        // A plain text is cut into windows when it is trained; a conversation cannot be cut.
        if tokens > max && matches!(content, Content::Chat(_)) {
            return Err(Problem::new(
                Code::TooLong,
                format!("has {tokens} tokens, the template's included; {max} fit"),
            ));
        }
        let question = normalised(&content.question());
        let texts = content.texts();
        let sketch = sketch(&texts);
        let letters = serde_json::to_string(&content).map_err(|error| Problem::new(Code::Json, error.to_string()))?;
        Ok(Ready {
            label: shaped.label,
            group,
            tokens,
            trained_tokens: encoded.trained.trained(),
            content_key: key(&letters),
            question_key: key(&question),
            answer_key: key(&normalised(content.answer().unwrap_or_default())),
            question_runs: if self.with_runs { runs(&question) } else { Vec::new() },
            question,
            sketch,
            content,
        })
    }

    fn group(&self, fields: &Fields) -> Result<Option<String>, Problem> {
        let Some(column) = &self.options.group else { return Ok(None) };
        match fields.get(column) {
            Some(serde_json::Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
            Some(serde_json::Value::Number(number)) => Ok(Some(number.to_string())),
            _ => {
                Err(Problem::new(Code::Field, format!("the group column {:?} has no text or number", clip(column, 40))))
            }
        }
    }

    fn check_label(&self, label: Option<&str>) -> Result<(), Problem> {
        match (label, &self.options.labels) {
            (Some(label), Some(set)) if !set.iter().any(|known| known == label) => {
                Err(Problem::new(Code::Label, format!("the label {:?} is not in the label set", clip(label, 40))))
            }
            _ => Ok(()),
        }
    }

    fn check_special(&self, content: &Content) -> Result<(), Problem> {
        let holds = |special: &&String| content.texts().iter().any(|text| text.contains(special.as_str()));
        match self.text.special_texts().iter().find(holds) {
            Some(special) => {
                Err(Problem::new(Code::SpecialToken, format!("a text holds {special}, a mark of the base model")))
            }
            None => Ok(()),
        }
    }

    fn ignored(&self, fields: &Fields) -> Vec<String> {
        let ignored = self.shape.ignored(fields, &self.options.mapping);
        let is_group = |name: &&str| self.options.group.as_deref() == Some(*name);
        ignored.into_iter().filter(|name| !is_group(name)).map(|name| clip(name, 40)).collect()
    }
}
