//! `banyan dataset`: accounts for every row of a file, and makes versions, without a server.

mod base_text;
mod sink;

use std::path::Path;

use datasets::{CheckError, Input, Limits, Options, Report, Side, Source, SplitOptions, Version, VersionError, check};
use serde_json::json;

pub use self::base_text::BaseText;
use self::sink::Outputs;
use crate::{
    cli::{DatasetArgs, DatasetCheckArgs, DatasetShowArgs, DatasetVerb},
    failure::{Failure, Outcome},
    output::{self, Table},
    up::shipped,
};

/// # Errors
/// What cannot be read or written; or [`Failure::Printed`] after a report in which too much was refused.
pub fn dataset(args: DatasetArgs, as_json: bool) -> Outcome {
    match args.verb {
        DatasetVerb::Check(args) => check_file(&args, as_json),
        DatasetVerb::Show(args) => show(&args, as_json),
    }
}

fn check_file(args: &DatasetCheckArgs, as_json: bool) -> Outcome {
    let base = args.base.clone().unwrap_or_else(shipped::base);
    let text = BaseText::load(&base).map_err(|error| Failure::Failed(format!("--base {}: {error}", base.display())))?;
    let options = options(args, &text);
    options.validate().map_err(|faults| Failure::Usage(faults.join("; ")))?;
    let limits = Limits::default();
    let rows = open(&args.file, &limits)?;
    let held_out = args.held_out.as_deref().map(|path| open(path, &limits)).transpose()?;
    let input = Input { rows, held_out };
    let mut outputs = Outputs::open(args, &input)?;
    let checked = check(input, &text, &options, &limits, &mut outputs);
    outputs.end_account()?;
    let report = checked.map_err(|error| failed(&args.file, error))?;
    let is_good = report.accepted() > 0 && !(args.strict && report.refused() > 0);
    let version = if is_good { outputs.finish(&report.manifest).map_err(not_written)? } else { None };
    print(&report, version.as_ref().and(args.out.as_deref()), as_json)?;
    if is_good { Ok(()) } else { Err(Failure::Printed) }
}

fn options(args: &DatasetCheckArgs, text: &BaseText) -> Options {
    Options {
        shape: args.shape,
        mapping: args.map.clone(),
        labels: args.label_set.as_ref().map(|labels| labels.iter().map(|label| label.trim().to_owned()).collect()),
        group: args.group.clone(),
        split: SplitOptions {
            seed: args.split_seed,
            held_out_percent: if args.held_out.is_some() { 0 } else { args.held_out_percent },
            validation_percent: args.validation_percent,
        },
        mask: args.mask,
        tokens_max: args.tokens_max.unwrap_or(text.context_length()),
    }
}

fn open(path: &Path, limits: &Limits) -> Result<Source, Failure> {
    Source::open(path, limits).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

fn failed(file: &Path, error: CheckError) -> Failure {
    Failure::Failed(format!("{}: {error}", file.display()))
}

fn not_written(error: VersionError) -> Failure {
    Failure::Failed(format!("--out: {error}"))
}

fn print(report: &Report, written: Option<&Path>, as_json: bool) -> Outcome {
    if as_json {
        let report = serde_json::to_value(report).map_err(|error| Failure::Failed(error.to_string()))?;
        return Ok(output::print_json(&report)?);
    }
    output::line(report.to_text().trim_end())?;
    if let Some(dir) = written {
        eprintln!("written to {}", dir.display());
    }
    Ok(())
}

fn show(args: &DatasetShowArgs, as_json: bool) -> Outcome {
    let fault = |error: VersionError| Failure::Failed(format!("{}: {error}", args.dir.display()));
    let version = Version::open(&args.dir).map_err(fault)?;
    let manifest = version.manifest();
    if as_json {
        return Ok(output::print_json(&json!({ "digest": version.digest(), "manifest": manifest }))?);
    }
    let options = &manifest.options;
    output::line(&format!("{}\nshape {}", version.digest(), options.shape.map_or("", |shape| shape.as_str())))?;
    let mut table = Table::new(&["SIDE", "ROWS", "TOKENS", "LEARNED"]);
    for (side, counts) in &manifest.sides {
        let counts = [counts.rows, counts.tokens, counts.trained_tokens].map(|count| count.to_string());
        let [rows, tokens, learned] = counts;
        table.row([Side::as_str(*side).to_owned(), rows, tokens, learned]);
    }
    table.print()?;
    for (label, rows) in &manifest.labels {
        output::line(&format!("label {label} {rows}"))?;
    }
    Ok(())
}
