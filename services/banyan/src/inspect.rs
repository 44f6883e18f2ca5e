//! `banyan inspect`: judges an adapter against a base as the gateway would, without a server.

use adapters::{
    Base, Files, Limits, Refusal,
    receipt::{Receipt, Variant},
};
use serde_json::json;

use crate::{
    cli::InspectArgs,
    failure::{Failure, Outcome},
    local_base::Checkpoint,
    output::{self, Table, bytes_text},
};

/// # Errors
/// A base that cannot be read; or [`Failure::Printed`] when the adapter is refused, after every refusal was printed.
pub fn inspect(args: &InspectArgs, as_json: bool) -> Outcome {
    let checkpoint = Checkpoint::open(&args.base)?;
    let base = Base::read(checkpoint.dir()).map_err(|error| Failure::Failed(format!("--base: {error}")))?;
    let base = base.with_names(args.base_name.iter().cloned());
    let limits = Limits::default();
    match Files::read(&args.dir, &limits).and_then(|files| files.resolve(&base, &limits)) {
        Ok(plan) if as_json => {
            let answer = json!({ "accepted": true, "receipt": plan.receipt, "refusals": [] });
            Ok(output::print_json(&answer)?)
        }
        Ok(plan) => print_receipt(&plan.receipt),
        Err(refusals) => {
            if as_json {
                output::print_json(&json!({ "accepted": false, "receipt": null, "refusals": refusals }))?;
            } else {
                print_refusals(&refusals)?;
            }
            Err(Failure::Printed)
        }
    }
}

fn print_refusals(refusals: &[Refusal]) -> Outcome {
    output::line(&format!("refused, {} reason(s):", refusals.len()))?;
    for refusal in refusals {
        output::line(&format!("  {refusal}"))?;
    }
    Ok(())
}

fn print_receipt(receipt: &Receipt) -> Outcome {
    output::line(&format!("accepted  {}\nbase      {}", receipt.digest, receipt.base_digest))?;
    output::line(&format!(
        "{} parameters, {}, largest rank {}, |dW| {:.4}\n",
        receipt.parameters,
        bytes_text(receipt.bytes),
        receipt.rank_max,
        receipt.delta_norm
    ))?;
    let mut table = Table::new(&["MODULE", "KIND", "RANK", "ALPHA", "SCALE", "|dW|", "DTYPE"]);
    for module in &receipt.modules {
        let kind = match module.variant {
            Variant::Lora => "lora",
            Variant::Dora => "dora",
        };
        table.row([
            module.module.clone(),
            kind.to_owned(),
            module.rank.to_string(),
            module.alpha.to_string(),
            format!("{:.4}", module.scale),
            format!("{:.4}", module.delta_norm),
            module.dtype.name().to_owned(),
        ]);
    }
    table.print()?;
    for private in &receipt.private {
        output::line(&format!("private   {} {} {}", private.module, private.dtype.name(), bytes_text(private.bytes)))?;
    }
    for bias in &receipt.biases {
        output::line(&format!("bias      {bias}"))?;
    }
    for note in &receipt.notes {
        output::line(&format!("note      {} {}: {}", note.code.as_str(), note.subject, note.message))?;
    }
    Ok(())
}
