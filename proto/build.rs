//! Compiles the contract with protox, so that no `protoc` is needed, and keeps the descriptor set for reflection.
use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 11] = [
    "banyan/v1/inference.proto",
    "banyan/v1/tenants.proto",
    "banyan/v1/api_keys.proto",
    "banyan/v1/audit.proto",
    "banyan/v1/plans.proto",
    "banyan/v1/limits.proto",
    "banyan/v1/prices.proto",
    "banyan/v1/ledger.proto",
    "banyan/v1/adapters.proto",
    "banyan/v1/rollouts.proto",
    "banyan/worker/v1/worker.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=banyan");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
