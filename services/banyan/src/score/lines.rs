//! The input of `score`: lines of JSON, and which adapter goes with each. Every fault is found before anything is
//! computed, and names its line.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use trainer::LineFaults;

/// One line, and where it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    pub input: Input,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Tokens(Vec<u32>),
    Text(String),
    Pair { prompt: String, completion: String },
}

#[derive(Deserialize)]
struct Fields {
    tokens: Option<Vec<u32>>,
    text: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
}

/// Reads every line. Empty lines are allowed at the end only; fields that are not ours are ignored.
///
/// # Errors
/// Every line that is none of the three forms.
pub fn parse(text: &str) -> Result<Vec<Line>, LineFaults> {
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in text.trim_end().lines().enumerate() {
        let number = index + 1;
        match input(line) {
            Ok(input) => lines.push(Line { number, input }),
            Err(fault) => faults.push((number, fault)),
        }
    }
    if faults.is_empty() { Ok(lines) } else { Err(LineFaults(faults)) }
}

fn input(line: &str) -> Result<Input, String> {
    if line.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    let fields: Fields = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match (fields.tokens, fields.text, fields.prompt, fields.completion) {
        (Some(tokens), None, None, None) => Ok(Input::Tokens(tokens)),
        (None, Some(text), None, None) => Ok(Input::Text(text)),
        (None, None, Some(prompt), Some(completion)) => Ok(Input::Pair { prompt, completion }),
        _ => Err("must have either `tokens`, or `text`, or `prompt` and `completion`".to_owned()),
    }
}

/// The adapter of each line: a JSON array (of folders, `"base"` or null) or a folder, `base` or nothing a line.
/// Relative folders are meant from the current directory.
///
/// # Errors
/// When it does not name exactly one for each of the `lines`.
pub fn parse_adapters(text: &str, lines: usize) -> Result<Vec<Option<PathBuf>>, String> {
    let adapters: Vec<_> = if text.trim_start().starts_with('[') {
        let names: Vec<Option<String>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        names.into_iter().map(|name| name.and_then(|name| folder(&name))).collect()
    } else {
        let mut names: Vec<_> = text.lines().map(folder_of_line).collect::<Result<_, _>>()?;
        // Empty lines mean the base, so those at the end count only as far as there are lines.
        while names.len() > lines && names.last().is_some_and(Option::is_none) {
            names.pop();
        }
        names
    };
    if adapters.len() == lines {
        Ok(adapters)
    } else {
        Err(format!("names {} adapters for {lines} lines", adapters.len()))
    }
}

/// A line may be a bare folder or a JSON string or null.
fn folder_of_line(line: &str) -> Result<Option<PathBuf>, String> {
    let line = line.trim();
    if line.starts_with('"') {
        let name: String = serde_json::from_str(line).map_err(|error| format!("`{line}`: {error}"))?;
        return Ok(folder(&name));
    }
    Ok(folder(line))
}

fn folder(name: &str) -> Option<PathBuf> {
    match name {
        "" | "base" | "null" => None,
        name => Some(Path::new(name).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_every_other_line_is_named() {
        let good = "{\"tokens\":[1,2]}\n{\"text\":\"a\",\"id\":7}\n{\"prompt\":\"p\",\"completion\":\"c\"}\n\n";
        assert_eq!(parse(good).expect("good").len(), 3);
        let bad =
            "{\"tokens\":[1,-2]}\n\n{\"text\":\"a\",\"tokens\":[1]}\n{\"prompt\":\"p\"}\n{\"text\":\"ok\"}\nnot json";
        let numbers: Vec<_> = parse(bad).expect_err("bad").0.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 6]);
    }

    #[test]
    fn adapters_are_read_from_an_array_or_from_lines() {
        let wanted = vec![Some(PathBuf::from("a/b")), None, None, Some(PathBuf::from("c"))];
        assert_eq!(parse_adapters("[\"a/b\", null, \"base\", \"c\"]", 4), Ok(wanted.clone()));
        assert_eq!(parse_adapters("a/b\n\nbase\n\"c\"\n\n", 4), Ok(wanted));
        assert_eq!(parse_adapters("a\n\n", 2), Ok(vec![Some(PathBuf::from("a")), None]));
        assert!(parse_adapters("a\nb\n", 3).is_err_and(|fault| fault.contains("2 adapters for 3 lines")));
    }
}
