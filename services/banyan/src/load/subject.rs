//! What requests go through on their way to the worker.

use super::{
    bare_relay::BareRelay, drive::Target, gateway_process::GatewayProcess, measured_process::MeasuredProcess,
    scripted_worker::ScriptedWorker,
};
use crate::{
    cli::{LoadArgs, LoadCase},
    failure::{Failure, Outcome},
};

pub enum Subject {
    Bare(BareRelay),
    Gateway(Box<GatewayProcess>),
}

impl Subject {
    /// # Errors
    /// What does not start.
    pub async fn start(args: &LoadArgs, case: LoadCase, worker: &ScriptedWorker) -> Result<Self, Failure> {
        Ok(match case {
            LoadCase::Bare => Self::Bare(BareRelay::start(args, worker).await?),
            LoadCase::Local | LoadCase::Redis => {
                Self::Gateway(Box::new(GatewayProcess::start(args, case, worker).await?))
            }
        })
    }

    pub const fn process(&self) -> &MeasuredProcess {
        match self {
            Self::Bare(relay) => &relay.process,
            Self::Gateway(gateway) => &gateway.process,
        }
    }

    /// # Errors
    /// Nobody answers.
    pub async fn target(&self, args: &LoadArgs) -> Result<Target, Failure> {
        match self {
            Self::Bare(relay) => relay.target(args).await,
            Self::Gateway(gateway) => gateway.target(args).await,
        }
    }

    /// # Errors
    /// What does not end.
    pub async fn stop(self) -> Outcome {
        match self {
            Self::Bare(mut relay) => relay.process.kill(),
            Self::Gateway(gateway) => gateway.stop().await,
        }
    }
}
