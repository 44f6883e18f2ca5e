//! The numbers in the tensors: element types that are served, and no NaN or infinity anywhere. One pass
//! over all of them, which also says how large they get.

use std::collections::BTreeMap;

use crate::container::Container;
use crate::refusal::Code;

use super::findings::Findings;

/// The largest magnitude in each tensor, by its name.
pub(super) type Magnitudes<'a> = BTreeMap<&'a str, f32>;

pub(super) fn check<'a>(weights: &'a Container, findings: &mut Findings) -> Magnitudes<'a> {
    let mut magnitudes = Magnitudes::new();
    for name in weights.names() {
        let Some(tensor) = weights.get(name) else { continue };
        match tensor.dtype.largest(tensor.data) {
            Some(largest) if largest.is_finite() => drop(magnitudes.insert(name, largest)),
            Some(_) => findings.refuse(
                Code::NonFinite,
                name,
                "The tensor holds NaN or infinity, so the training has diverged. Upload an earlier checkpoint.",
            ),
            None => findings.refuse(
                Code::Dtype,
                name,
                format!(
                    "The tensor is {}; F32, F16 and BF16 are served. Convert it and save again.",
                    tensor.dtype.name()
                ),
            ),
        }
    }
    magnitudes
}
