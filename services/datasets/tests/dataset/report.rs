//! What people and programs are told.

use datasets::{Code, Report, Side};

use crate::support::{END, checked, options, question};

fn report() -> Report {
    let mut lines: Vec<_> = (0..5).map(|n| question(&format!("Question {n}?"), &format!("Answer {n}."))).collect();
    lines.push("no".to_owned());
    lines.push(question("Question 0?", "Another."));
    checked(lines.join("\n"), &options()).report
}

#[test]
fn the_text_names_counts_reasons_fixes_and_shows_what_is_learned() {
    let text = report().to_text();
    for part in [
        "rows      7 = 6 accepted + 1 refused",
        "shape     messages",
        "train     6 rows, ",
        "E_JSON  refused 1; write one JSON object a line",
        "  line 6: is no JSON object",
        "W_CONFLICT  warned 1; keep the right answer",
        "  line 7: answers the question of line 1 otherwise",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert_eq!(text.matches("sample    line ").count(), 3);
    assert_eq!(text.matches(&format!("{END}⟧")).count(), 3, "{text}");
}

#[test]
fn the_json_is_read_back_as_it_was() {
    let report = report();
    let json = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), report);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["findings"][0]["code"], "E_JSON");
    assert_eq!(value["codes"]["W_CONFLICT"], 1);
}

#[test]
fn samples_are_whole_texts_with_their_trained_parts() {
    for sample in &report().samples {
        let text: String = sample.parts.iter().map(|part| part.text.as_str()).collect();
        assert!(text.starts_with("<|im_start|>user\nQuestion") && text.ends_with(&format!("{END}\n")), "{text:?}");
        let trained: Vec<_> = sample.parts.iter().filter(|part| part.trained).collect();
        assert!(trained.len() == 1 && trained[0].text.starts_with("An"), "{sample:?}");
        assert_eq!(sample.side, Side::Train);
    }
}

#[test]
fn rare_and_missing_labels_are_named() {
    let row = |n: u32, label: &str| format!("{{\"text\": \"row number {n}\", \"label\": \"{label}\"}}\n");
    let mut lines: String = (0..30).map(|n| row(n, "common")).collect();
    lines += &row(30, "rare");
    let mut options = options();
    options.labels = Some(["common", "rare", "never"].map(str::to_owned).to_vec());
    let report = checked(lines, &options).report;
    let reasons: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.code == Code::LabelImbalance)
        .map(|finding| finding.reason.as_str())
        .collect();
    assert_eq!(
        reasons,
        ["the label \"never\" has 0 rows, the commonest one 30", "the label \"rare\" has 1 rows, the commonest one 30"]
    );
}
