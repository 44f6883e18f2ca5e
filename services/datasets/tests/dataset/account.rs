//! Every row is accounted for, whatever is done to the file.

use datasets::{Format, Input, Limits, Source};
use proptest::{prelude::*, sample::Index};

use crate::support::{Checked, WORDS, options, question, run};

/// What is done to a file's bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Delete(Index),
    Insert(Index, u8),
    Repeat(Index, usize),
    Cut(Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let telling =
        prop_oneof![Just(b'\n'), Just(b'"'), Just(b','), Just(b'{'), Just(b'\\'), Just(0), Just(0xff), any::<u8>()];
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        any::<Index>().prop_map(Mutation::Delete),
        (any::<Index>(), telling).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        (any::<Index>(), 1..80_usize).prop_map(|(at, len)| Mutation::Repeat(at, len)),
        any::<Index>().prop_map(Mutation::Cut),
    ];
    prop::collection::vec(one, 0..12)
}

fn mutated(text: &str, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match mutation {
            Mutation::Flip(at, mask) => {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
            Mutation::Delete(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Mutation::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Mutation::Repeat(at, len) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..(at + len).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len()).max(1)),
        }
    }
    bytes
}

/// Nothing if the file as a whole is refused, which it says.
fn checked(bytes: Vec<u8>, format: Format) -> Option<Checked> {
    let limits = Limits { row_bytes_max: 400, rows_max: 12, batch_rows: 5, ..Limits::default() };
    let rows = Source::read(std::io::Cursor::new(bytes), format, &limits).ok()?;
    run(Input { rows, held_out: None }, &options(), &WORDS(), &limits).ok()
}

fn account(checked: &Checked) -> Result<(), TestCaseError> {
    let file = &checked.report.files[0];
    prop_assert_eq!(file.accepted + file.refused, file.rows);
    prop_assert_eq!(checked.outcomes.len() as u64, file.rows, "each row has its outcome");
    prop_assert_eq!(checked.rows.len() as u64, file.accepted, "each accepted row is in the version");
    prop_assert!(checked.outcomes.is_sorted_by(|a, b| a.line < b.line), "each row once, in the order of the file");
    let of_sides: u64 = checked.report.manifest.sides.values().map(|counts| counts.rows).sum();
    prop_assert_eq!(of_sides, file.accepted);
    for outcome in &checked.outcomes {
        match outcome.accepted {
            Some(accepted) => prop_assert!(accepted.trained_tokens > 0 && accepted.trained_tokens < accepted.tokens),
            None => {
                let last = outcome.findings.last().expect("a reason");
                prop_assert!(last.code.as_str().starts_with("E_") && !last.reason.is_empty());
            }
        }
    }
    Ok(())
}

fn lines() -> String {
    let mut lines: Vec<_> = (0..6).map(|n| question(&format!("Question {n}?"), &format!("Answer {n}."))).collect();
    lines.push(r#"{"messages": [{"role": "system", "content": "ü"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#.to_owned());
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn accepted_and_refused_json_lines_are_all_lines_that_are_not_blank(mutations in mutations()) {
        let bytes = mutated(&lines(), &mutations);
        let wanted = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count() as u64;
        if let Some(checked) = checked(bytes, Format::Jsonl) {
            prop_assert_eq!(checked.report.files[0].rows, wanted);
            account(&checked)?;
        }
    }

    #[test]
    fn accepted_and_refused_csv_records_are_all_records(mutations in mutations()) {
        let text = "prompt,completion\nOne?,1\n\"Two,\nor so?\",\"\"\"2\"\"\"\nThree?,3\r\n\nFour?,4\nFive?,5";
        if let Some(checked) = checked(mutated(text, &mutations), Format::Csv) {
            account(&checked)?;
        }
    }
}

#[test]
fn the_outcomes_are_the_same_with_any_batch_and_any_number_of_threads() {
    let answer = |n| if n < 180 { n % 50 } else { n };
    let row = |n| question(&format!("Question {}?", n % 150), &format!("Answer {}.", answer(n)));
    let text: Vec<_> = (0..200).map(row).collect();
    let run_with = |batch_rows, threads_max| {
        let limits = Limits { batch_rows, threads_max, ..Limits::default() };
        let rows = Source::read(std::io::Cursor::new(text.join("\n")), Format::Jsonl, &limits).expect("a beginning");
        run(Input { rows, held_out: None }, &options(), &WORDS(), &limits).expect("a report")
    };
    let one = run_with(1, 1);
    assert!(one.report.refused() > 0 && one.report.codes.len() > 1);
    for (batch, threads) in [(7, 2), (512, 3), (512, 8)] {
        let other = run_with(batch, threads);
        assert_eq!((&one.report, &one.outcomes, &one.rows), (&other.report, &other.outcomes, &other.rows));
    }
}
