//! `banyan eval`: candidate, current adapter and base answer held-out questions in one batch of the serving engine, and the
//! gate says whether the candidate may take over.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use adapters::{Files, Limits};
use datasets::Version;
use engine::{
    AdapterKey, Engine, EngineConfig, EngineHandle,
    model::{Model, ModelOptions},
};
use evaluation::{Bootstrap, Decision, Gate, Report, Secret, Statistic, Suite, page, text};
use futures::executor;
use trainer::{AnswerOptions, Contest, LocalAdapters, Question, answer_all, held_out_questions, read_questions};

use crate::{
    cli::{DtypeArg, EvalArgs, FigureArg},
    failure::{Failure, Outcome},
    local_base::Checkpoint,
    output, score,
    up::shipped,
};

/// What leaves the skills out.
const NONE: &str = "none";

/// # Errors
/// What cannot be read or answered; [`Failure::Printed`] when the candidate is refused, after the report was printed.
pub fn evaluate(args: &EvalArgs, as_json: bool) -> Outcome {
    let held_out = held_out(&args.held_out)?;
    let skills = skills(args)?.map(|file| questions("--skills", &file)).transpose()?;
    let secrets = args.secrets.as_deref().map(secrets).transpose()?.unwrap_or_default();
    let base = args.base.clone().unwrap_or_else(shipped::base);
    let checkpoint = Checkpoint::open(&base)?;
    let options = ModelOptions::new(score::dtype(DtypeArg::F32));
    let model = Model::load(checkpoint.dir(), &options).map_err(|error| Failure::Failed(format!("--base: {error}")))?;
    let mut source = LocalAdapters::default();
    let contest = Contest {
        candidate: adapter(&mut source, "--candidate", &args.candidate, &model)?,
        current: args.current.as_deref().map(|dir| adapter(&mut source, "--current", dir, &model)).transpose()?,
    };
    let config = EngineConfig { waiting_max: 6 * args.batch as usize, ..EngineConfig::default() };
    let engine = Engine::start(Arc::new(model), checkpoint.text().clone(), config, Box::new(source))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let answered = answer(&engine, args, &held_out, skills.as_deref(), contest);
    engine.shutdown();
    let (held_out, skills) = answered?;
    let report =
        gate(args).judge(&held_out, skills.as_ref(), &secrets).map_err(|error| Failure::Failed(error.to_string()))?;
    write(args, &report)?;
    if as_json {
        let json = serde_json::to_value(&report).map_err(|error| Failure::Failed(error.to_string()))?;
        output::print_json(&json)?;
    } else {
        output::piece(&text(&report))?;
    }
    match report.decision {
        Decision::Promote => Ok(()),
        Decision::Refuse => Err(Failure::Printed),
    }
}

fn gate(args: &EvalArgs) -> Gate {
    let statistic = match args.by {
        FigureArg::ExactMatch => Statistic::ExactMatch,
        FigureArg::MacroF1 => Statistic::MacroF1,
        FigureArg::LogLikelihood => Statistic::LogLikelihood,
    };
    let EvalArgs { items_min, regression_max, draws, confidence, seed, .. } = *args;
    Gate { statistic, items_min, regression_max, bootstrap: Bootstrap { draws, confidence, seed } }
}

/// The held-out suite and the skills', answered.
fn answer(
    engine: &EngineHandle,
    args: &EvalArgs,
    held_out: &[Question],
    skills: Option<&[Question]>,
    contest: Contest,
) -> Result<(Suite, Option<Suite>), Failure> {
    let options = AnswerOptions { tokens_max: args.tokens_max, at_once: args.batch as usize };
    let all = held_out.len() + skills.map_or(0, <[Question]>::len);
    let bar = output::progress(all as u64, "{msg:12} {bar:30} {pos}/{len} {eta} left");
    let suite = |name: &str, questions: &[Question]| {
        bar.set_message(name.to_owned());
        executor::block_on(answer_all(engine, name, questions, contest, options, || bar.inc(1)))
            .map_err(|error| Failure::Failed(format!("{name}: {error}")))
    };
    let held_out = suite("held out", held_out)?;
    // Forgetting is measured against the base; what answers today is not asked.
    let skills = skills.map(|questions| suite("base skills", questions)).transpose()?;
    bar.finish_and_clear();
    Ok((held_out, skills))
}

fn questions(flag: &str, file: &Path) -> Result<Vec<Question>, Failure> {
    let fault = |error: &dyn std::fmt::Display| Failure::Failed(format!("{flag} {}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| fault(&error))?;
    read_questions(&text).map_err(|faults| fault(&format_args!("\n{faults}")))
}

/// Those of a file, or the held-out side of a dataset version.
fn held_out(path: &Path) -> Result<Vec<Question>, Failure> {
    if !path.is_dir() {
        return questions("HELD_OUT", path);
    }
    let fault = |error: &dyn std::fmt::Display| Failure::Failed(format!("HELD_OUT {}: {error}", path.display()));
    let version = Version::open(path).map_err(|error| fault(&error))?;
    let questions = held_out_questions(&version).map_err(|error| fault(&error))?;
    if questions.is_empty() {
        return Err(fault(&"the version holds no conversation out"));
    }
    Ok(questions)
}

/// Those that were asked for, or those of the bundled base.
fn skills(args: &EvalArgs) -> Result<Option<PathBuf>, Failure> {
    match (&args.skills, &args.base) {
        (Some(file), _) if file == Path::new(NONE) => Ok(None),
        (Some(file), _) => Ok(Some(file.clone())),
        (None, None) => Ok(Some(shipped::skills())),
        (None, Some(_)) => Err(Failure::Usage(
            "--skills FILE says what this base can do and must not forget; `--skills none` leaves it out".to_owned(),
        )),
    }
}

fn secrets(file: &Path) -> Result<Vec<Secret>, Failure> {
    let text =
        fs::read_to_string(file).map_err(|error| Failure::Failed(format!("--secrets {}: {error}", file.display())))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(|line| Secret { kind: "listed".to_owned(), text: line.to_owned() }).collect())
}

fn adapter(source: &mut LocalAdapters, flag: &str, dir: &Path, model: &Model) -> Result<AdapterKey, Failure> {
    let limits = Limits::default();
    let judged = Files::read(dir, &limits).and_then(|files| source.add(files, model.base(), &limits));
    judged.map_err(|refusals| {
        let reasons: Vec<_> = refusals.iter().map(|refusal| format!("\n  {refusal}")).collect();
        Failure::Failed(format!("{flag} {} is refused:{}", dir.display(), reasons.concat()))
    })
}

fn write(args: &EvalArgs, report: &Report) -> Outcome {
    let Some(folder) = &args.out else { return Ok(()) };
    let fault = |error: &dyn std::fmt::Display| Failure::Failed(format!("--out {}: {error}", folder.display()));
    let json = serde_json::to_string_pretty(report).map_err(|error| fault(&error))?;
    fs::create_dir_all(folder).map_err(|error| fault(&error))?;
    for (name, content) in [("report.json", json), ("report.txt", text(report)), ("report.html", page(report))] {
        fs::write(folder.join(name), content).map_err(|error| fault(&error))?;
    }
    Ok(())
}
