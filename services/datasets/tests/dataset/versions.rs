//! Versions: named by content, written whole, verified when they are read.

use std::{fs, path::Path};

use datasets::{Draft, FileName, Format, Input, Limits, Options, Side, Version, VersionError};

use crate::support::{Checked, WORDS, checked, options, question, run, source};

fn lines(rows: std::ops::Range<u32>) -> String {
    rows.map(|n| question(&format!("Question {n}?"), "Yes.") + "\n").collect()
}

fn split() -> Options {
    let mut options = options();
    (options.split.held_out_percent, options.split.validation_percent) = (20, 10);
    options
}

fn write(checked: &Checked, dir: &Path) -> Result<Version, VersionError> {
    let mut draft = Draft::begin(dir)?;
    for row in &checked.rows {
        draft.row(row)?;
    }
    draft.finish(&checked.report.manifest)
}

#[test]
fn the_same_rows_and_choices_have_the_same_digest_for_ever() {
    let digest = checked(lines(0..50), &split()).report.digest;
    assert_eq!(digest, checked(lines(0..50).replace(": ", ":"), &split()).report.digest, "spelling does not matter");
    assert_eq!(
        digest, "sha256:4c397eed7117bcc6b235192cbafe90816ce7dead8fdaa4ce32c4bcd9da9f4f6e",
        "changes of this digest rename every customer's versions"
    );
    let mut others = vec![
        checked(lines(0..51), &split()).report.digest,
        checked(lines(0..50), &Options { mask: true, ..split() }).report.digest,
        checked(lines(0..50), &Options { tokens_max: 65, ..split() }).report.digest,
    ];
    let mut seeded = split();
    seeded.split.seed = 1;
    others.push(checked(lines(0..50), &seeded).report.digest);
    others.push(digest);
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 5);
}

#[test]
fn a_version_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().expect("folder");
    let checked = checked(lines(0..60), &split());
    let dir = folder.path().join("claims");
    let written = write(&checked, &dir).expect("written");
    let version = Version::open(&dir).expect("opened");
    assert_eq!((version.digest(), version.manifest()), (written.digest(), &checked.report.manifest));
    assert_eq!(version.digest(), checked.report.digest);
    let rows: Vec<_> = version.rows().expect("rows").collect::<Result<_, _>>().expect("readable");
    let spelled: Vec<_> = rows.iter().map(|row| serde_json::to_string(row).expect("JSON")).collect();
    assert_eq!(spelled, checked.rows);
    for side in Side::ALL {
        assert!(rows.iter().any(|row| row.side == side), "{side:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "nothing is left beside it");
}

#[test]
fn a_place_that_is_taken_keeps_what_it_has() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("claims");
    let first = checked(lines(0..10), &split());
    write(&first, &dir).expect("written");
    assert_eq!(write(&first, &dir).expect("the same again").digest(), first.report.digest);
    let error = write(&checked(lines(0..11), &split()), &dir).expect_err("taken");
    assert!(matches!(error, VersionError::Taken(_)));
    assert_eq!(Version::open(&dir).expect("opened").digest(), first.report.digest);
    assert!(matches!(Draft::begin(folder.path()), Err(VersionError::Taken(_))), "a folder with other things in it");
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1);
}

#[test]
fn a_version_that_was_changed_is_not_opened() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("claims");
    write(&checked(lines(0..10), &split()), &dir).expect("written");
    let change = |file: &str, from: &str, to: &str| {
        let path = dir.join(file);
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replacen(from, to, 1)).expect("written");
        let found = Version::open(&dir);
        fs::write(&path, text).expect("restored");
        found.expect_err("changed")
    };
    assert!(matches!(change("rows.jsonl", "Yes.", "No!."), VersionError::Changed { what: "the hash of the rows", .. }));
    assert!(matches!(
        change("rows.jsonl", "Yes.", "No."),
        VersionError::Changed { what: "the length of the rows", .. }
    ));
    assert!(matches!(change("manifest.json", "\"rows\": ", "\"rows\":  "), VersionError::Manifest(_)));
    assert!(matches!(
        change("manifest.json", "\"train\": {\n      \"rows\": ", "\"train\": {\n      \"rows\": 1"),
        VersionError::Changed { .. }
    ));
    assert!(matches!(change("manifest.json", "banyan-dataset/1", "banyan-dataset/9"), VersionError::Manifest(_)));
    assert!(Version::open(&dir).is_ok());
}

#[test]
fn rows_that_are_added_move_no_earlier_one() {
    let sides = |checked: &Checked| checked.outcomes.iter().map(|outcome| outcome.accepted).collect::<Vec<_>>();
    let few = checked(lines(0..100), &split());
    let many = checked(lines(0..300), &split());
    assert_eq!(sides(&few)[..], sides(&many)[..100]);
}

#[test]
fn a_group_is_never_torn_apart() {
    let row = |n: u32| {
        let mut row: serde_json::Value =
            serde_json::from_str(&question(&format!("Question {n}?"), "Yes.")).expect("JSON");
        row["customer"] = (n % 20).into();
        row.to_string() + "\n"
    };
    let options = Options { group: Some("customer".to_owned()), ..split() };
    let checked = checked((0..200).map(row).collect::<String>(), &options);
    let sides: Vec<_> = checked.outcomes.iter().filter_map(|outcome| Some(outcome.accepted?.side)).collect();
    assert_eq!(sides.len(), 200);
    for customer in 0..20 {
        assert!((0..10).all(|n| sides[n * 20 + customer] == sides[customer]), "customer {customer}");
    }
    assert!(sides.contains(&Side::HeldOut) && sides.contains(&Side::Train));
    assert!(checked.rows[0].contains("\"group\":\"0\""), "{}", checked.rows[0]);
}

#[test]
fn a_held_out_file_is_the_held_out_side() {
    let input =
        Input { rows: source(lines(0..50), Format::Jsonl), held_out: Some(source(lines(40..60), Format::Jsonl)) };
    let checked = run(input, &split(), &WORDS(), &Limits::default()).expect("a report");
    let files: Vec<_> = checked.report.files.iter().map(|file| (file.file, file.accepted, file.refused)).collect();
    assert_eq!(files, [(FileName::HeldOut, 20, 0), (FileName::Rows, 40, 10)]);
    assert_eq!(checked.report.manifest.sides[&Side::HeldOut].rows, 20);
    let of_rows = checked.outcomes.iter().filter(|outcome| outcome.file == FileName::Rows);
    assert!(of_rows.filter_map(|outcome| outcome.accepted).all(|accepted| accepted.side != Side::HeldOut));
}
