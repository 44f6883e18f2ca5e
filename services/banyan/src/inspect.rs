//! `banyan inspect`: judges an adapter against a base as the gateway would, without a server.

use adapters::{Base, Container, Files, Limits, Refusal, resolve};
use serde_json::json;

use crate::{
    cli::InspectArgs,
    failure::{Failure, Outcome},
    output::{self, Table, bytes_text},
};

/// # Errors
/// A base that cannot be read; or [`Failure::Printed`] when the adapter is refused, after every refusal was printed.
pub fn inspect(args: &InspectArgs, as_json: bool) -> Outcome {
    let base = Base::read(&args.base).map_err(|error| Failure::Failed(format!("--base: {error}")))?;
    match judge(args, &base) {
        Ok(receipt) if as_json => {
            Ok(output::print_json(&json!({ "accepted": true, "receipt": receipt, "refusals": [] }))?)
        }
        Ok(receipt) => print_receipt(&receipt),
        Err(refusals) => {
            if as_json {
                output::print_json(&json!({ "accepted": false, "refusals": refusals }))?;
            } else {
                print_refusals(&refusals)?;
            }
            Err(Failure::Printed)
        }
    }
}
