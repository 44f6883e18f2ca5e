//! The `banyan` command: parse what was typed, run the verb, exit with its code. Everything else is in the library.

use std::process::ExitCode;

use banyan::cli::Cli;
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.json;
    match banyan::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(as_json),
    }
}
