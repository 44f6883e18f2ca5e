//! For each code one file that brings out exactly this finding, beside rows with which nothing is wrong.

use datasets::{Code, Format, Input, Limits, Options, Severity, Source};

use crate::support::{Checked, Template, WORDS, Words, chat, checked, options, question, run, source};

const LONG: &str = "The pump at the second line stops when the pressure falls below the limit, and nobody is warned before \
                    it does; please tell me what the operator has to do, and whom to call at night.";

/// The second of three rows.
fn second(row: &str) -> Checked {
    second_with(row, &options())
}

fn second_with(row: &str, options: &Options) -> Checked {
    checked(format!("{}\n{row}\n{}", question("First?", "One."), question("Third?", "Three.")), options)
}

fn csv(text: &str) -> Checked {
    let input = Input { rows: source(text, Format::Csv), held_out: None };
    run(input, &options(), &WORDS(), &Limits::default()).expect("a report")
}

fn with_text(row: &str, template: Template) -> Checked {
    let lines = format!("{}\n{row}\n{}", question("First?", "One."), question("Third?", "Three."));
    let input = Input { rows: source(lines, Format::Jsonl), held_out: None };
    run(input, &options(), &Words::new(template), &Limits::default()).expect("a report")
}

fn with_limits(row: &str, limits: &Limits) -> Checked {
    let lines = format!("{}\n{row}", question("First?", "One."));
    let rows = Source::read(std::io::Cursor::new(lines), Format::Jsonl, limits).expect("a beginning");
    run(Input { rows, held_out: None }, &options(), &WORDS(), limits).expect("a report")
}

fn labelled(label: &str, set: &[&str]) -> Checked {
    let options = Options { labels: Some(set.iter().map(|label| (*label).to_owned()).collect()), ..options() };
    checked(
        format!("{{\"text\": \"a b\", \"label\": \"fee\"}}\n{{\"text\": \"c d\", \"label\": \"{label}\"}}"),
        &options,
    )
}

/// The file that is judged, and the finding's line.
fn bring_out(code: Code) -> (Checked, u64) {
    let email = question("Who?", "ada@example.org");
    match code {
        Code::Encoding => (second("{\"messages\": \"\\u0000\"}"), 2),
        Code::Json => (second("{\"messages\": "), 2),
        Code::Csv => (csv("prompt,completion\nFirst?,One.\nSecond?,Two.,more\n"), 3),
        Code::RowBytes => (with_limits(&question(LONG, LONG), &Limits { row_bytes_max: 200, ..Limits::default() }), 2),
        Code::Rows => (with_limits(&question("Second?", "Two."), &Limits { rows_max: 1, ..Limits::default() }), 2),
        Code::Field => (second("{\"prompt\": \"Second?\"}"), 2),
        Code::Unsupported => (second(r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#), 2),
        Code::Role => (second(&chat(&[("user", "Who?"), ("narrator", "Nobody.")])), 2),
        Code::RoleOrder => (second(&chat(&[("user", "One?"), ("user", "Two?"), ("assistant", "Three.")])), 2),
        Code::EndsElsewhere => (second(&chat(&[("user", "One?"), ("assistant", "Yes."), ("user", "Two?")])), 2),
        Code::Empty => (second(&question("Second?", " \n")), 2),
        Code::Label => (labelled("discount", &["fee"]), 2),
        Code::SpecialToken => (second(&question("Second?", "No.<|im_end|>\n<|im_start|>user\nYes?")), 2),
        Code::Template => {
            let row = chat(&[("system", "Be brief."), ("user", "Second?"), ("assistant", "Two.")]);
            (with_text(&row, Template::Strict), 2)
        }
        Code::TemplateUnstable => {
            let row = chat(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
            (with_text(&row, Template::Forgetful), 2)
        }
        Code::TooLong => (second(&question(&"word ".repeat(60), "Two.")), 2),
        Code::NothingTrained => (
            second(
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}"#,
            ),
            2,
        ),
        Code::Duplicate => (second(&question("First?", "One.")), 2),
        Code::Leak => {
            let rows = source(format!("{}\n{}", question("First?", "One."), question("KEPT?", "Two.")), Format::Jsonl);
            let held_out = Some(source(question("kept?", "Yes."), Format::Jsonl));
            (run(Input { rows, held_out }, &options(), &WORDS(), &Limits::default()).expect("a report"), 2)
        }
        Code::Secret => (second(&question("Key?", &format!("AKIA{}", "ABCDEFGHIJKLMNOP"))), 2),
        Code::Personal => (second(&email), 2),
        Code::Masked => (second_with(&email, &Options { mask: true, ..options() }), 2),
        Code::NearDuplicate => {
            let text = |text: &str| serde_json::json!({ "text": text }).to_string();
            (checked(format!("{}\n{}", text(LONG), text(&LONG.replace("please", "kindly"))), &options()), 2)
        }
        Code::Conflict => (second(&question("FIRST? ", "Two.")), 2),
        Code::NearLeak => near_leak(),
        Code::LabelImbalance => (labelled("fee", &["fee", "discount"]), 0),
    }
}

/// Two rows that are nearly the same, on two sides: whichever seed puts them there.
fn near_leak() -> (Checked, u64) {
    let text = |text: &str| serde_json::json!({ "text": text }).to_string();
    let lines = format!("{}\n{}", text(LONG), text(&LONG.replace("please", "kindly")));
    let mut options = options();
    options.split.held_out_percent = 50;
    for seed in 0..64 {
        options.split.seed = seed;
        let checked = checked(lines.clone(), &options);
        if checked.report.manifest.sides.len() == 2 {
            return (checked, 2);
        }
    }
    panic!("one of 64 seeds tears them apart");
}

#[test]
fn every_code_is_brought_out_by_its_own_row_and_by_nothing_else() {
    for code in Code::ALL.iter().copied() {
        let (checked, line) = bring_out(code);
        let found: Vec<_> = checked.report.findings.iter().map(|finding| (finding.line, finding.code)).collect();
        assert_eq!(found, [(line, code)], "{:?}", checked.report.findings);
        let refused = u64::from(code.severity() == Severity::Refuse);
        assert_eq!(checked.report.refused(), refused, "{code}");
        let rows = checked.outcomes.len() as u64;
        assert_eq!(checked.report.accepted() + refused, rows, "{code}");
        let finding = &checked.report.findings[0];
        assert!(!finding.reason.is_empty() && finding.fix == code.fix(), "{finding:?}");
    }
}

#[test]
fn a_secret_is_shown_by_place_and_never_by_its_text() {
    let secret = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
    let checked = second(&question("Key?", &format!("It is {secret}.")));
    let finding = &checked.report.findings[0];
    assert_eq!(finding.spans.len(), 1);
    let span = &finding.spans[0];
    assert_eq!((span.part.as_str(), span.start, span.end), ("messages[1]", 6, 26));
    let json = serde_json::to_string(&checked.report).expect("JSON");
    assert!(!json.contains(&secret) && !checked.report.to_text().contains(&secret));
}

#[test]
fn a_masked_row_holds_placeholders_and_its_secrets_are_nowhere() {
    let secret = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
    let row = question("Write to ada@example.org", &format!("Key {secret}, IBAN DE89 3704 0044 0532 0130 00."));
    let checked = second_with(&row, &Options { mask: true, ..options() });
    assert_eq!(checked.report.accepted(), 3);
    assert!(checked.rows[1].contains("Write to [EMAIL]") && checked.rows[1].contains("Key [API_KEY], IBAN [IBAN]."));
    assert!(!serde_json::to_string(&checked.report).expect("JSON").contains(&secret));
}

#[test]
fn the_same_question_on_two_sides_of_the_split_is_a_leak() {
    let mut options = Options { group: Some("case".to_owned()), ..options() };
    options.split.held_out_percent = 50;
    let row = |case: usize| {
        let mut row: serde_json::Value =
            serde_json::from_str(&question("Same?", &format!("Answer {case}."))).expect("JSON");
        row["case"] = case.into();
        row.to_string()
    };
    let lines: Vec<_> = (0..40).map(row).collect();
    let checked = checked(lines.join("\n"), &options);
    assert_eq!(checked.report.manifest.sides.len(), 1, "all rows with the question are where the first one is");
    assert!(checked.report.codes[&Code::Leak] > 5 && checked.report.accepted() > 5, "{:?}", checked.report.codes);
}

#[test]
fn most_of_a_held_out_questions_wording_is_a_leak_wherever_it_stands() {
    let asked = "a customer in the north asks why the second invoice of march shows a late fee although it was paid";
    let rows = source(question(&format!("Good morning, {asked}. Thank you!"), "Because."), Format::Jsonl);
    let held_out = Some(source(question(asked, "Yes."), Format::Jsonl));
    let input = Input { rows, held_out };
    let checked = run(input, &options(), &WORDS(), &Limits::default()).expect("a report");
    assert_eq!(checked.codes(), [(1, Code::Leak)]);
    assert!(checked.reason().contains("line 1 of the held-out file"), "{}", checked.reason());
}
