//! `banyan gateway` and `banyan worker`: one process alone, configured by file, environment and flags.

mod settings;

pub use settings::Settings;

use chassis::{config, shutdown::Shutdown, telemetry};

use crate::{
    cli::{ConfigArgs, DtypeArg, GatewayArgs, LogArgs, LogFormatArg, WorkerArgs},
    failure::{Failure, Outcome},
    output,
};
