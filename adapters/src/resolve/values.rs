//! The numbers in the tensors: element types that are served, and no NaN or infinity anywhere.

use crate::container::Container;
use crate::refusal::Code;

use super::findings::Findings;

pub(super) fn check(weights: &Container, findings: &mut Findings) {
    for name in weights.names() {
        let Some(tensor) = weights.get(name) else { continue };
        match tensor.dtype.all_finite(tensor.data) {
            Some(true) => {}
            Some(false) => findings.refuse(
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
}
