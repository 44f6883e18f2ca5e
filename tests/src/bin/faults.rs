//! `faults`: runs the fault lanes and prints their table. Exits with 1 when an invariant is broken.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::{Parser, ValueEnum as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tests::faults::{Lane, Options, run};

const HELP: &str = "\
PostgreSQL and Redis must be installed (tests/services.sh); it starts servers of its own and stops them again.

Examples:
  cargo run -p tests --bin faults                              every lane, a few rounds each
  cargo run -p tests --bin faults -- worker-kill --kills 50
  cargo run -p tests --bin faults -- --kills 50 --json         the long form: 200 kills";

/// Kills, stops and cuts off what a deployment under load consists of, and counts what is lost.
#[derive(Parser, Debug)]
#[command(after_help = HELP)]
struct Arguments {
    /// Which lanes; all by default.
    #[arg(value_enum, value_name = "LANE")]
    lanes: Vec<Lane>,
    /// Kills in each lane that kills.
    #[arg(long, value_name = "N", default_value_t = 5)]
    kills: usize,
    /// Rounds of each other lane; three rounds of a network lane are one each of cut, swallowed and late.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// How long a stop or a cut lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
    /// Clients of each tenant.
    #[arg(long, value_name = "N", default_value_t = 2)]
    clients: usize,
    /// Of the moments at which something is done.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The program to test; by default it is built, in the profile of this one.
    #[arg(long, value_name = "FILE")]
    banyan: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let program = arguments.banyan.clone().unwrap_or_else(build);
    let lanes = if arguments.lanes.is_empty() { Lane::value_variants().to_vec() } else { arguments.lanes };
    let options = Options {
        lanes,
        kills: arguments.kills,
        rounds: arguments.rounds,
        hold: Duration::from_secs_f64(arguments.seconds),
        clients: arguments.clients,
        seed: arguments.seed,
    };
    let rounds: usize = options.lanes.iter().map(|lane| options.rounds_of(*lane)).sum();
    let bar = ProgressBar::with_draw_target(Some(rounds as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report = runtime.block_on(run(&program, &options, |lane| {
        bar.set_message(lane.to_owned());
        bar.inc(1);
    }));
    bar.finish_and_clear();
    println!("{}", if arguments.json { report.to_json() } else { report.to_text() });
    if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cargo knows whether there is anything to do.
fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its file");
    let folder = own.parent().expect("a file has a folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "banyan", "--bin", "banyan"]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let built = command.args(["--manifest-path", manifest]).status().expect("run cargo");
    assert!(built.success(), "banyan does not build");
    folder.join("banyan")
}
