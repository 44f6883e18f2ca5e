//! The report as one page of HTML without scripts, fonts or pictures from elsewhere: it can be mailed and archived.

use std::fmt::{self, Write as _};

use super::Report;
use crate::{comparison::Comparison, gate::Decision, observed::Suite};

/// Wrong answers that are shown of each suite.
const WRONG_MAX: usize = 50;
/// Of the drawing of an interval, in pixels.
const WIDTH: f64 = 220.0;

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Evaluation</title>
<style>
:root { color-scheme: light dark; --line: light-dark(#ccc, #555); --good: light-dark(#17693a, #6fd08c); --bad: light-dark(#a3222b, #ff8a8f); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); }
svg { display: block; } td pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
</style>
</head>
<body>
";

/// Every rule, every figure with its interval drawn, and the wrong answers.
pub fn page(report: &Report) -> String {
    let mut page = HEAD.to_owned();
    // Writing into a string does not fail.
    let _ = write(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let (class, told) = match report.decision {
        Decision::Promote => ("good", "The candidate may take over"),
        Decision::Refuse => ("bad", "The candidate is refused"),
    };
    writeln!(out, "<h1 class=\"{class}\">{told}</h1>\n<table>\n<tr><th>Holds</th><th>Rule</th></tr>")?;
    for rule in &report.rules {
        let (class, holds) = if rule.holds { ("good", "yes") } else { ("bad", "no") };
        writeln!(out, "<tr><td class=\"{class}\">{holds}</td><td>{}</td></tr>", Escaped(&rule.told))?;
    }
    writeln!(
        out,
        "</table>\n<h2>Figures</h2>\n<table>\n<tr><th>Suite</th><th>By</th><th>Against</th>\
         <th class=\"number\">Items</th><th class=\"number\">Candidate</th><th class=\"number\">Other</th>\
         <th>Gain</th><th class=\"number\">Won</th><th class=\"number\">Lost</th><th class=\"number\">p</th></tr>"
    )?;
    report.comparisons.iter().try_for_each(|compared| row(out, compared))?;
    writeln!(out, "</table>")?;
    report.suites.iter().try_for_each(|suite| wrong(out, report, suite))?;
    for leak in &report.leaks {
        let (suite, item, kind) = (Escaped(&leak.suite), Escaped(&leak.item), Escaped(&leak.kind));
        writeln!(out, "<p class=\"bad\">{suite}, item {item}: the answer gives away a secret ({kind}).</p>")?;
    }
    Ok(())
}

fn row(out: &mut String, compared: &Comparison) -> fmt::Result {
    write!(
        out,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{:.3}</td>\
         <td class=\"number\">{:.3}</td><td>",
        Escaped(&compared.suite),
        compared.statistic.name(),
        compared.against.name(),
        compared.items,
        compared.candidate,
        compared.other
    )?;
    interval(out, compared)?;
    writeln!(
        out,
        "</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{:.1e}</td></tr>",
        compared.won, compared.lost, compared.p
    )
}

/// A bar from the low to the high end with zero marked; the numbers stand beside it and in its title.
fn interval(out: &mut String, compared: &Comparison) -> fmt::Result {
    let gain = compared.gain;
    let told = format!("{:+.3}, from {:+.3} to {:+.3}", gain.estimate, gain.low, gain.high);
    let most = [gain.low, gain.high, 1e-9].into_iter().map(f64::abs).fold(0.0, f64::max);
    let at = |value: f64| WIDTH / 2.0 * (1.0 + value / most * 0.95);
    let (low, high) = (at(gain.low), at(gain.high));
    let class = if gain.low > 0.0 { "good" } else { "bad" };
    writeln!(
        out,
        "{told}<svg width=\"{WIDTH}\" height=\"14\" role=\"img\" aria-label=\"{told}\" class=\"{class}\">\
         <line x1=\"{middle}\" y1=\"0\" x2=\"{middle}\" y2=\"14\" stroke=\"var(--line)\"/>\
         <rect x=\"{low:.1}\" y=\"5\" width=\"{wide:.1}\" height=\"4\" fill=\"currentColor\"/>\
         <circle cx=\"{dot:.1}\" cy=\"7\" r=\"4\" fill=\"currentColor\"/></svg>",
        middle = WIDTH / 2.0,
        wide = (high - low).max(1.0),
        dot = at(gain.estimate),
    )
}

fn wrong(out: &mut String, report: &Report, suite: &Suite) -> fmt::Result {
    let wrong = report.wrong(suite);
    let (name, count, all) = (Escaped(&suite.name), wrong.len(), suite.items.len());
    writeln!(out, "<h2>{name}: {count} of {all} answered otherwise than expected</h2>")?;
    if wrong.is_empty() {
        return Ok(());
    }
    writeln!(out, "<table>\n<tr><th>Item</th><th>Expected</th><th>Candidate</th><th>Current</th><th>Base</th></tr>")?;
    for item in wrong.iter().take(WRONG_MAX) {
        let current = item.current.as_ref().map_or("", |seen| &seen.answer);
        let answers = [item.expected.as_str(), &item.candidate.answer, current, &item.base.answer];
        write!(out, "<tr><td>{}</td>", Escaped(&item.id))?;
        answers.iter().try_for_each(|answer| write!(out, "<td><pre>{}</pre></td>", Escaped(answer.trim())))?;
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table>")
}

/// Text as text, whatever is in it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Decision, Gate, Item, Observed, Report, Suite, page, text};

    fn report() -> Report {
        let seen = |answer: &str| Observed { answer: answer.to_owned(), nll: 1.0, tokens: 1, has_form: None };
        let item = |number: usize| Item {
            id: number.to_string(),
            expected: "<b>yes</b>".to_owned(),
            candidate: seen(if number == 3 { "<script>alert('x')</script>" } else { "<b>yes</b>" }),
            current: None,
            base: seen("no"),
        };
        let held_out = Suite { name: "held out".to_owned(), items: (0..40).map(item).collect() };
        Gate::default().judge(&held_out, None, &[]).expect("judged")
    }

    #[test]
    fn a_page_shows_what_was_decided_and_runs_nothing_of_an_answer() {
        let page = page(&report());
        assert!(page.contains("may take over") && page.contains("1 of 40 answered otherwise"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }

    #[test]
    fn the_text_has_every_rule_and_every_wrong_answer_and_json_reads_back() {
        let report = report();
        let text = text(&report);
        assert!(report.rules.iter().all(|rule| text.contains(&rule.told)), "{text}");
        assert!(text.starts_with("Decision: promote") && text.contains("3: \"<script>"), "{text}");
        let json = serde_json::to_string(&report).expect("JSON");
        let read: Report = serde_json::from_str(&json).expect("reads back");
        assert_eq!((read.decision, &read), (Decision::Promote, &report));
    }
}
