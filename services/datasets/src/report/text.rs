//! The report for people. What is learned of a sample stands between ⟦ and ⟧.

use std::fmt::Write as _;

use super::{Report, Sample};
use crate::{
    code::Severity,
    finding::{FileName, clip},
    row::Side,
};

/// Findings shown of each code.
const SHOWN_MAX: usize = 5;

/// Characters of a sample.
const SAMPLE_CHARACTERS_MAX: usize = 600;

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    for file in &report.files {
        let name = if file.file == FileName::HeldOut { "held-out" } else { "rows" };
        writeln!(out, "{name:<9} {} = {} accepted + {} refused", file.rows, file.accepted, file.refused)?;
    }
    let options = &report.manifest.options;
    writeln!(out, "shape     {}", options.shape.map_or("", |shape| shape.as_str()))?;
    for side in Side::ALL {
        let Some(counts) = report.manifest.sides.get(&side) else { continue };
        let (rows, tokens, trained) = (counts.rows, counts.tokens, counts.trained_tokens);
        writeln!(out, "{:<9} {rows} rows, {tokens} tokens, of which {trained} are learned", side.as_str())?;
    }
    writeln!(out, "longest   {} of {} tokens", report.tokens_longest, options.tokens_max)?;
    if !report.manifest.labels.is_empty() {
        let labels: Vec<_> =
            report.manifest.labels.iter().map(|(label, rows)| format!("{} {rows}", clip(label, 40))).collect();
        writeln!(out, "labels    {}", labels.join(", "))?;
    }
    if !report.ignored_fields.is_empty() {
        let fields: Vec<_> = report.ignored_fields.iter().map(|(name, rows)| format!("{name} ({rows})")).collect();
        writeln!(out, "ignored   {}", fields.join(", "))?;
    }
    for note in &report.notes {
        writeln!(out, "note      {note}")?;
    }
    writeln!(out, "digest    {}", report.digest)?;
    findings(report, out)?;
    report.samples.iter().try_for_each(|sample| write_sample(sample, out))
}

fn findings(report: &Report, out: &mut String) -> std::fmt::Result {
    for (code, rows) in &report.codes {
        let does = if code.severity() == Severity::Refuse { "refused" } else { "warned" };
        writeln!(out, "\n{code}  {does} {rows}; {}", code.fix())?;
        let of_code = || report.findings.iter().filter(|finding| finding.code == *code);
        for finding in of_code().take(SHOWN_MAX) {
            let held_out = if finding.file == FileName::HeldOut { "held-out " } else { "" };
            match finding.line {
                0 => writeln!(out, "  {}", finding.reason)?,
                line => writeln!(out, "  {held_out}line {line}: {}", finding.reason)?,
            }
        }
        let shown = of_code().take(SHOWN_MAX).count() as u64;
        if *rows > shown {
            writeln!(out, "  … and {} more", rows - shown)?;
        }
    }
    Ok(())
}

fn write_sample(sample: &Sample, out: &mut String) -> std::fmt::Result {
    let held_out = if sample.file == FileName::HeldOut { "held-out " } else { "" };
    let Sample { line, tokens, trained_tokens, .. } = sample;
    let side = sample.side.as_str();
    writeln!(
        out,
        "\nsample    {held_out}line {line} ({side}): {trained_tokens} of {tokens} tokens are learned, between ⟦ and ⟧"
    )?;
    let mut shown = String::new();
    for part in &sample.parts {
        if part.trained {
            write!(shown, "⟦{}⟧", part.text)?;
        } else {
            shown.push_str(&part.text);
        }
    }
    for line in clipped(&shown).lines() {
        writeln!(out, "  {}", clip(line, SAMPLE_CHARACTERS_MAX))?;
    }
    Ok(())
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SAMPLE_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
