//! `banyan up`: everything in one process, on embedded defaults. The story: take the data directory · start the
//! stack · import what ships · say how to use it · run until told to stop · drain.

mod banner;
pub(crate) mod data_dir;
mod demo;
pub mod shipped;
pub(crate) mod stack;
pub(crate) mod stages;

use chassis::{shutdown::Shutdown, telemetry, telemetry::TelemetryConfig};

use self::{banner::Banner, data_dir::DataDir, stack::Stack, stages::Stages};
use crate::{
    cli::{LogArgs, UpArgs},
    failure::{Failure, Outcome},
    process::format_of,
};

/// Runs until Ctrl-C or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// Whatever keeps the platform from starting, or ends it before it was told to.
pub async fn up(args: UpArgs, as_json: bool) -> Outcome {
    let _telemetry = telemetry::init(&reporting(&args.log)).map_err(|error| Failure::Failed(error.to_string()))?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let data = DataDir::open(&args.data.data)?;
    // A start that is cut short leaves nothing that the next one does not repair.
    let (stack, banner) = tokio::select! {
        started = start(&args, &data, shutdown.clone()) => started?,
        () = shutdown.triggered() => return Ok(()),
    };
    banner.print(as_json)?;
    let drain = args.drain_seconds;
    let told = shutdown.triggered();
    let saying = tokio::spawn(async move {
        told.await;
        eprintln!("stopping: running answers may take up to {drain} s; Ctrl-C again stops at once");
    });
    let ended = stack.run(&shutdown).await;
    saying.abort();
    Ok(ended?)
}

async fn start(args: &UpArgs, data: &DataDir, shutdown: Shutdown) -> anyhow::Result<(Stack, Banner)> {
    let stages = Stages::new();
    let secrets = data.secrets()?;
    let stack = Stack::start(args, data, &secrets, &stages, shutdown).await?;
    let demo = demo::provide(args, data, &secrets, &stack, &stages).await?;
    stages.done();
    Ok((stack, Banner::new(args, demo)))
}

/// Quiet by default: the banner is what a newcomer should see.
fn reporting(args: &LogArgs) -> TelemetryConfig {
    let default = TelemetryConfig::default();
    TelemetryConfig {
        log_filter: args.log.clone().unwrap_or_else(|| "warn".to_owned()),
        log_format: args.log_format.map_or(default.log_format, format_of),
        otlp_endpoint: args.otlp.clone().unwrap_or_default(),
        ..default
    }
}
