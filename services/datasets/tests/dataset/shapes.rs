//! Every shape, found and named, and what becomes of it.

use datasets::{Code, DetectError, Limits, Options, Row, ShapeName};
use serde_json::{Value, json};

use crate::support::{Checked, WORDS, checked, options, run, source};

fn rows(checked: &Checked) -> Vec<Value> {
    checked.rows.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
}

/// What one row becomes, without its side.
fn messages(row: Value, options: &Options) -> Value {
    let checked = checked(row.to_string(), options);
    assert_eq!(checked.report.refused(), 0, "{:?}", checked.report.findings);
    rows(&checked)[0]["messages"].clone()
}

const QUESTION: &str = "What is it?";

fn expected() -> Value {
    json!([{ "role": "user", "content": QUESTION }, { "role": "assistant", "content": "A fee." }])
}

fn with_system() -> Value {
    json!([{ "role": "system", "content": "Be brief." }, expected()[0], expected()[1]])
}

#[test]
fn each_shape_is_found_and_becomes_the_same_conversation() {
    let cases = [
        (ShapeName::Messages, json!({ "messages": expected() })),
        (
            ShapeName::Sharegpt,
            json!({ "conversations": [{ "from": "human", "value": QUESTION }, { "from": "gpt", "value": "A fee." }] }),
        ),
        (ShapeName::Alpaca, json!({ "instruction": QUESTION, "input": "", "output": "A fee." })),
        (ShapeName::Prompt, json!({ "prompt": QUESTION, "completion": "A fee." })),
        (ShapeName::Label, json!({ "text": QUESTION, "label": "A fee." })),
    ];
    for (shape, row) in cases {
        let checked = checked(row.to_string(), &options());
        assert_eq!(checked.report.manifest.options.shape, Some(shape));
        assert_eq!(rows(&checked)[0]["messages"], expected(), "{shape:?}");
    }
    let text = checked(r#"{"text": "one two"}"#, &options());
    assert_eq!(rows(&text), [json!({ "side": "train", "text": "one two" })]);
}

#[test]
fn messages_take_openais_spellings() {
    let row = json!({ "messages": [
        { "role": "developer", "content": "Be brief." },
        { "role": "user", "name": "ada", "content": [{ "type": "text", "text": "What is " }, { "type": "text", "text": "it?" }] },
        { "role": "assistant", "content": "A fee.", "weight": 1, "tool_calls": [], "refusal": null },
    ], "tools": [], "parallel_tool_calls": true });
    assert_eq!(messages(row, &options()), with_system());
    let quiet = json!({ "messages": [
        { "role": "user", "content": "a" }, { "role": "assistant", "content": "b", "weight": 0 },
        { "role": "user", "content": "c", "weight": 0 }, { "role": "assistant", "content": "d" },
    ] });
    assert_eq!(messages(quiet, &options())[1], json!({ "role": "assistant", "content": "b", "weight": 0 }));
}

#[test]
fn alpaca_has_input_system_and_history_and_sharegpt_a_system() {
    let row = json!({ "instruction": "What is", "input": "it?", "output": "A fee.", "system": "Be brief.",
        "history": [["Hi.", "Hello."]] });
    let turns = messages(row, &options());
    let contents: Vec<_> =
        turns.as_array().expect("turns").iter().map(|turn| turn["content"].as_str().unwrap()).collect();
    assert_eq!(contents, ["Be brief.", "Hi.", "Hello.", "What is\nit?", "A fee."]);
    let row = json!({ "system": "Be brief.", "conversations": [
        { "from": "user", "value": QUESTION }, { "from": "assistant", "value": "A fee." }] });
    assert_eq!(messages(row, &options()), with_system());
}

#[test]
fn a_mapping_names_columns_of_rows_and_of_turns() {
    let mapped = |mapping: &str| Options { mapping: mapping.parse().expect("a mapping"), ..options() };
    let row = json!({ "question": QUESTION, "answer": "A fee.", "prompt": "not this" });
    assert_eq!(messages(row, &mapped("prompt=question,completion=answer")), expected());
    let row = json!({ "dialog": [{ "who": "human", "says": QUESTION }, { "who": "gpt", "says": "A fee." }] });
    assert_eq!(messages(row, &mapped("conversations=dialog,from=who,value=says")), expected());
}

#[test]
fn what_no_shape_reads_is_ignored_and_counted() {
    let row = json!({ "id": 7, "prompt": QUESTION, "completion": "A fee.", "source": "mail" });
    let checked = checked(row.to_string(), &options());
    let ignored: Vec<_> = checked.report.ignored_fields.into_iter().collect();
    assert_eq!(ignored, [("id".to_owned(), 1), ("source".to_owned(), 1)]);
}

#[test]
fn a_named_shape_wins_over_what_the_rows_look_like() {
    let options = Options { shape: Some(ShapeName::Text), ..options() };
    let checked = checked(json!({ "text": "one two", "label": "x" }).to_string(), &options);
    assert_eq!(rows(&checked), [json!({ "side": "train", "text": "one two" })]);
}

#[test]
fn rows_without_a_shape_are_told_what_they_have() {
    let fails = |lines: &str, options: &Options| {
        let input = datasets::Input { rows: source(lines, datasets::Format::Jsonl), held_out: None };
        match run(input, options, &WORDS(), &Limits::default()) {
            Err(datasets::CheckError::Detect(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let row = r#"{"question": "a", "answer": "b"}"#;
    assert_eq!(fails(row, &options()), DetectError::NoShape("question, answer".into()));
    assert_eq!(fails("", &options()), DetectError::Empty);
    assert!(matches!(fails("no", &options()), DetectError::NoRows(_)));
    let mapping = "prompt=query,completion=answer".parse().expect("a mapping");
    let options = Options { mapping, shape: Some(ShapeName::Prompt), ..options() };
    let found = fails(row, &options);
    assert!(matches!(&found, DetectError::NoColumn { column, .. } if column == "query"), "{found}");
}

#[test]
fn a_label_row_keeps_its_label_and_a_number_is_one() {
    let checked =
        checked("{\"text\": \"a b\", \"label\": 1}\n{\"text\": \"c d\", \"label\": \"late fee\"}", &options());
    let labels: Vec<_> =
        checked.rows.iter().map(|row| serde_json::from_str::<Row>(row).expect("a row").label).collect();
    assert_eq!(labels, [Some("1".to_owned()), Some("late fee".to_owned())]);
    assert_eq!(checked.report.manifest.labels.get("1"), Some(&1));
}

#[test]
fn a_field_of_another_type_is_named() {
    for (row, part) in [
        (json!({ "prompt": 7, "completion": "b" }), "prompt is not a text"),
        (json!({ "instruction": "a", "output": "b", "history": "c" }), "history is not a list"),
        (json!({ "instruction": "a", "output": "b", "history": [["c"]] }), "pairs"),
        (json!({ "messages": [7] }), "messages[0] is not an object"),
        (json!({ "messages": [{ "content": "x" }] }), "messages[0]: role is missing"),
        (json!({ "messages": [{ "role": "user", "content": "x", "weight": 0.5 }] }), "weight of messages[0]"),
    ] {
        let checked = checked(row.to_string(), &options());
        assert_eq!(checked.codes(), [(1, Code::Field)], "{row}");
        assert!(checked.reason().contains(part), "{}", checked.reason());
    }
}
