//! What every mode prints around its rows: the machine, what was measured, a table or JSON, and the bar while it runs.

use std::io::Write as _;

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};

use super::machine::Machine;
use crate::{
    failure::Outcome,
    output::{self, Table},
};

/// A bar over `steps`.
pub fn progress(steps: usize) -> ProgressBar {
    output::progress(steps as u64, "{bar:30} {pos}/{len} {elapsed} {msg}")
}

/// Prints the rows of `mode`. `facts` are what all rows have in common.
///
/// # Errors
/// When standard output is closed.
pub fn print(mode: &str, facts: Value, rows: &[impl Serialize], table: &Table, as_json: bool) -> Outcome {
    let machine = Machine::read();
    if as_json {
        let mut whole = json!({ "machine": machine, "mode": mode });
        if let (Some(whole), Value::Object(facts)) = (whole.as_object_mut(), facts) {
            whole.extend(facts);
            whole.insert("rows".to_owned(), serde_json::to_value(rows).map_err(std::io::Error::from)?);
        }
        return Ok(output::print_json(&whole)?);
    }
    output::line(&machine.line())?;
    output::line(&format!("{mode}: {}\n", sentence(&facts)))?;
    Ok(table.print()?)
}

/// Says something on standard error that must not be lost behind a bar.
pub fn note(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Seconds as milliseconds.
pub fn ms(seconds: Option<f64>) -> String {
    seconds.map_or_else(dash, |seconds| format!("{:.1}", seconds * 1000.0))
}

pub fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(dash, |fraction| format!("{:.0} %", fraction * 100.0))
}

pub fn rate(per_second: Option<f64>) -> String {
    match per_second {
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
        None => dash(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// `key value` pairs; nested objects by their own pairs.
fn sentence(facts: &Value) -> String {
    let Some(facts) = facts.as_object() else { return String::new() };
    let pairs = facts.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| {
        let key = key.replace('_', " ");
        match value {
            Value::String(text) => format!("{key} {text}"),
            Value::Object(_) => format!("{key} ({})", sentence(value)),
            Value::Number(number) if number.is_f64() => format!("{key} {}", short(number.as_f64().unwrap_or(f64::NAN))),
            other => format!("{key} {other}"),
        }
    });
    pairs.collect::<Vec<_>>().join(", ")
}

fn short(number: f64) -> String {
    match number.abs() {
        big if big >= 1e9 => format!("{:.1}e9", number / 1e9),
        _ => format!("{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_as_a_sentence() {
        let facts = json!({ "base": "bundled", "prompt_tokens": 64, "none": null, "ceilings": { "read": 3.84e10 } });
        let text = sentence(&facts);
        assert!(text.contains("base bundled") && text.contains("prompt tokens 64"), "{text}");
        assert!(text.contains("ceilings (read 38.4e9)") && !text.contains("none"), "{text}");
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        assert_eq!((ms(Some(0.01234)), ms(None)), ("12.3".to_owned(), "-".to_owned()));
        assert_eq!((rate(Some(34.66)), rate(Some(1234.5))), ("34.7".to_owned(), "1234".to_owned()));
        assert_eq!(percent(Some(0.876)), "88 %");
    }
}
