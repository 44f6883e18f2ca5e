//! Every limit can be hit, and says so.

use std::io::Cursor;

use datasets::{CheckError, Code, Format, Input, Limits, Source, SourceError};

use crate::support::{Checked, WORDS, options, question, run};

fn limited(text: &str, format: Format, limits: &Limits) -> Result<Checked, CheckError> {
    let rows = Source::read(Cursor::new(text.to_owned()), format, limits)?;
    run(Input { rows, held_out: None }, &options(), &WORDS(), limits)
}

fn numbered(rows: u64) -> String {
    (0..rows).map(|n| question(&format!("Question {n}?"), "Yes.") + "\n").collect()
}

#[test]
fn rows_after_the_last_allowed_one_are_refused_one_by_one() {
    let limits = Limits { rows_max: 3, ..Limits::default() };
    let checked = limited(&numbered(5), Format::Jsonl, &limits).expect("a report");
    assert_eq!((checked.report.accepted(), checked.report.refused()), (3, 2));
    assert_eq!(checked.codes(), [(4, Code::Rows), (5, Code::Rows)]);
}

#[test]
fn a_row_that_is_too_long_is_refused_and_the_next_one_read() {
    let limits = Limits { row_bytes_max: 200, ..Limits::default() };
    let long = "very ".repeat(100);
    let lines = format!("{}\n{}\n{}", question("One?", "1"), question(&long, "2"), question("Three?", "3"));
    let checked = limited(&lines, Format::Jsonl, &limits).expect("a report");
    assert_eq!((checked.codes(), checked.report.accepted()), (vec![(2, Code::RowBytes)], 2));
    let table = format!("prompt,completion\nOne?,1\n\"{long}\n\",2\nThree?,3\n");
    let checked = limited(&table, Format::Csv, &limits).expect("a report");
    assert_eq!((checked.codes(), checked.report.accepted()), (vec![(3, Code::RowBytes)], 2));
    let open = format!("prompt,completion\nOne?,1\n\"{}", "an open quote\n".repeat(100));
    let checked = limited(&open, Format::Csv, &limits).expect("a report");
    assert_eq!((checked.codes(), checked.report.accepted()), (vec![(3, Code::RowBytes)], 1));
}

#[test]
fn a_file_that_is_too_long_is_refused_before_and_while_it_is_read() {
    let limits = Limits { file_bytes_max: 100, ..Limits::default() };
    let error = limited(&numbered(10), Format::Jsonl, &limits).expect_err("too long");
    assert!(error.to_string().contains("100 bytes"), "{error}");
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().expect("a file");
    std::fs::write(file.path(), numbered(10)).expect("written");
    assert!(matches!(Source::open(file.path(), &limits), Err(SourceError::FileBytes { max: 100, .. })));
}

#[test]
fn columns_labels_findings_and_compared_rows_are_bounded() {
    let limits = Limits { columns_max: 2, ..Limits::default() };
    let wide = limited("a,b,c\n1,2,3\n", Format::Csv, &limits).expect_err("too wide");
    assert!(wide.to_string().contains("2 columns"), "{wide}");
    let wide = limited("prompt,completion\n1,2,3\nOne?,1\n", Format::Csv, &limits).expect("a report");
    assert_eq!(wide.codes(), [(2, Code::Csv)]);

    let limits = Limits { labels_max: 2, ..Limits::default() };
    let labels: String = ["a", "b", "c", "a"]
        .iter()
        .enumerate()
        .map(|(n, label)| format!("{{\"text\": \"row {n}\", \"label\": \"{label}\"}}\n"))
        .collect();
    assert_eq!(limited(&labels, Format::Jsonl, &limits).expect("a report").codes(), [(3, Code::Label)]);

    let limits = Limits { findings_max: 2, ..Limits::default() };
    let checked =
        limited(&format!("{}{}", question("One?", "1"), "\nno".repeat(5)), Format::Jsonl, &limits).expect("a report");
    assert_eq!((checked.report.findings.len(), checked.report.findings_left_out), (2, 3));
    assert_eq!((checked.report.codes[&Code::Json], checked.outcomes.len()), (5, 6));

    let limits = Limits { compared_rows_max: 2, ignored_fields_max: 1, ..Limits::default() };
    let rows: String = (0..4).map(|n| format!("{{\"text\": \"a row of words {n}\", \"field {n}\": 1}}\n")).collect();
    let checked = limited(&rows, Format::Jsonl, &limits).expect("a report");
    assert!(
        checked.report.notes.iter().any(|note| note.contains("first 2 rows; 2 later")),
        "{:?}",
        checked.report.notes
    );
    assert_eq!(checked.report.ignored_fields.len(), 1);
}
