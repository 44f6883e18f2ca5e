//! `banyan bench`: what the engine and the platform do, in figures that can be taken again. It measures what requests
//! get (scheduler, sampler and text included), not kernels alone, and compares it with what the machine can do.

pub(crate) mod arrivals;
mod ceilings;
mod client;
mod clients;
pub(crate) mod cpu_time;
mod fairness;
mod gateway;
mod load;
mod machine;
mod packed;
pub(crate) mod percentile;
mod pool;
pub(crate) mod report;
mod residency;
mod roofline;
mod shape;
mod speed;
mod storm;
mod subject;
mod swap;
mod synthetic;

pub use shape::Shape;

use crate::{
    cli::{BenchArgs, BenchMode, DtypeArg},
    failure::Outcome,
    process::dtype_name,
};

/// # Errors
/// A base that cannot be loaded, numbers that do not fit each other, or what is refused while measuring.
pub fn bench(args: &BenchArgs, as_json: bool) -> Outcome {
    match &args.mode {
        None => speed::speed(&args.speed, as_json),
        Some(BenchMode::Speed(args)) => speed::speed(args, as_json),
        Some(BenchMode::Clients(args)) => clients::clients(args, as_json),
        Some(BenchMode::Load(args)) => load::load(args, as_json),
        Some(BenchMode::Storm(args)) => storm::storm(args, as_json),
        Some(BenchMode::Fairness(args)) => fairness::fairness(args, as_json),
        Some(BenchMode::Swap(args)) => swap::swap(args, as_json),
        Some(BenchMode::Gateway(args)) => gateway::gateway(args, as_json),
        Some(BenchMode::Machine(args)) => ceilings::machine(args, as_json),
    }
}

/// For rows that name their dtype.
fn serialize_dtype<S: serde::Serializer>(dtype: &DtypeArg, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype_name(*dtype))
}
