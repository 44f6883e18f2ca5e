//! The worker process: the engine on the wire. It is stateless towards the platform: no database, no shared limits; a
//! request carries the tenant, the pinned version and the tokens, and everything else is fetched from the registry.

mod answer;
mod auth;
mod call;
pub mod config;
mod forecast;
mod parse;
mod running;
mod serve;
mod source;
mod status;
mod tokenize;
mod usage;

pub use config::{DEFAULTS, ENV_PREFIX, WorkerConfig};
pub use running::{RunningWorker, Worker, WorkerError};
