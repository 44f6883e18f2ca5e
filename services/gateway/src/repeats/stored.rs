//! A finished answer as it is stored: the message that a client would get if the answer came in one step.

use domain::{Fault, RequestId};
use prost::Message as _;
use proto::v1;

use crate::{
    inference::wire_step,
    workers::{Step, step_of},
};

pub fn write(whole: &Step, run: RequestId, seed: u64) -> Vec<u8> {
    wire_step(whole.clone(), run, seed).encode_to_vec()
}

pub fn read(bytes: &[u8]) -> Result<Step, Fault> {
    let read = v1::GenerateResponse::decode(bytes).ok().and_then(step_of);
    read.ok_or_else(|| {
        tracing::error!("a stored answer is not readable");
        Fault::internal()
    })
}
