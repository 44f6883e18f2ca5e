//! The report as text, for a terminal.

use std::fmt::Write as _;

use super::Report;

/// Wrong answers that are shown of each suite.
const WRONG_MAX: usize = 5;

/// Every rule, every figure and a few wrong answers; ends with a line break.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = write(&mut text, report);
    text
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "Decision: {}\n", report.decision.name())?;
    for rule in &report.rules {
        writeln!(out, "  {}  {}", if rule.holds { "holds" } else { "FAILS" }, rule.told)?;
    }
    let widest = report.comparisons.iter().map(|compared| compared.suite.chars().count()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "\n{:widest$}  {:22}  {:8}  {:>5}  {:>9}  {:>9}  {:>25}  {:>5}  {:>5}  {:>8}",
        "SUITE", "BY", "AGAINST", "ITEMS", "CANDIDATE", "OTHER", "GAIN", "WON", "LOST", "P"
    )?;
    for compared in &report.comparisons {
        let gain = format!("{:+.3} ({:+.3} to {:+.3})", compared.gain.estimate, compared.gain.low, compared.gain.high);
        writeln!(
            out,
            "{:widest$}  {:22}  {:8}  {:>5}  {:>9.3}  {:>9.3}  {gain:>25}  {:>5}  {:>5}  {:>8.1e}",
            compared.suite,
            compared.statistic.name(),
            compared.against.name(),
            compared.items,
            compared.candidate,
            compared.other,
            compared.won,
            compared.lost,
            compared.p
        )?;
    }
    for suite in &report.suites {
        let wrong = report.wrong(suite);
        if wrong.is_empty() {
            continue;
        }
        writeln!(out, "\n{}: {} of {} answered otherwise than expected", suite.name, wrong.len(), suite.items.len())?;
        for item in wrong.iter().take(WRONG_MAX) {
            writeln!(out, "  {}: {:?} instead of {:?}", item.id, item.candidate.answer.trim(), item.expected.trim())?;
        }
    }
    for leak in &report.leaks {
        writeln!(out, "\n{}, item {}: the answer gives away a secret ({})", leak.suite, leak.item, leak.kind)?;
    }
    Ok(())
}
