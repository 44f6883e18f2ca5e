//! Whether changes are too large for the arithmetic, or nothing at all. Both are settled by bounds that cost next to
//! nothing; only where those do not decide is a change measured ([`crate::norm`]). It is the same verdict for everybody,
//! whether the norms are wanted or not.

use crate::base::ModuleKind;
use crate::container::Container;
use crate::norm::Norms;
use crate::plan::{ModulePlan, NoteCode};
use crate::refusal::Code;

use super::findings::Findings;
use super::values::Magnitudes;
use super::whole::Whole;

/// Elements of a change that are looked at for one that is not zero.
const SAMPLES: usize = 8;
/// More than rounding in f64 adds to a norm.
const ROUNDING: f64 = 1.0 + 1e-6;

/// The numbers of an adapter's tensors.
pub(super) struct Values<'a> {
    pub weights: &'a Container,
    pub magnitudes: &'a Magnitudes<'a>,
}

/// Refuses changes that no f32 can hold, whose answers would be no numbers, and an adapter that changes nothing; notes
/// modules whose change is zero.
pub(super) fn judge(modules: &[ModulePlan], whole: &Whole, values: &Values<'_>, findings: &mut Findings) {
    let mut norms = Norms::default();
    for plan in modules.iter().filter(|plan| values.overflows(plan, &mut norms)) {
        findings.refuse(
            Code::NonFinite,
            &plan.module,
            "The scaled change is too large for an f32, so answers would be no numbers. Correct `lora_alpha`, or upload an earlier checkpoint.",
        );
    }
    let zeros: Vec<&ModulePlan> = modules.iter().filter(|plan| values.is_nothing(plan, &mut norms)).collect();
    if zeros.len() == modules.len() && whole.private.is_empty() && whole.biases.is_empty() {
        return findings.refuse(
            Code::Noop,
            "adapter",
            "Every change is zero (B or A is zero, or `lora_alpha` is 0), so answers would be those of the base. Upload a trained checkpoint.",
        );
    }
    for plan in zeros {
        findings.note(NoteCode::ZeroDelta, &plan.module, "The change of this module is zero.");
    }
}

impl Values<'_> {
    fn overflows(&self, plan: &ModulePlan, norms: &mut Norms) -> bool {
        let fits = |norm: f64| (norm as f32).is_finite();
        !fits(plan.scale) || !fits(self.bound(plan) * ROUNDING) && !fits(norms.of(plan, self.weights))
    }

    fn is_nothing(&self, plan: &ModulePlan, norms: &mut Norms) -> bool {
        let no_bias = || match &plan.lora_bias {
            Some(bias) if plan.scale != 0.0 => {
                let largest = self.weights.elements(bias).and_then(|(dtype, data)| dtype.largest(data));
                largest == Some(0.0)
            }
            _ => true,
        };
        plan.magnitude.is_none() && self.is_zero(plan, norms) && no_bias()
    }

    /// Whether the change is zero as far as f64 can tell.
    fn is_zero(&self, plan: &ModulePlan, norms: &mut Norms) -> bool {
        self.bound(plan) == 0.0
            || !(0..SAMPLES).any(|n| self.is_certainly_not_zero(plan, n)) && norms.of(plan, self.weights) == 0.0
    }

    /// No less than the norm: `‖s·BA‖ ≤ |s|·‖B‖·‖A‖`, and neither norm exceeds the largest magnitude in its tensor times
    /// the root of the number of elements.
    fn bound(&self, plan: &ModulePlan) -> f64 {
        let [inputs, outputs] = sizes(plan.kind);
        let norm = |name: &str, elements: usize| {
            let largest = self.magnitudes.get(name).copied().unwrap_or(f32::INFINITY);
            f64::from(largest) * (elements as f64).sqrt()
        };
        plan.scale.abs() * norm(&plan.a.name, plan.rank * inputs) * norm(&plan.b.name, plan.rank * outputs)
    }

    /// Whether the element of the change at place `n` of [`SAMPLES`] differs from zero by more than rounding explains.
    fn is_certainly_not_zero(&self, plan: &ModulePlan, n: usize) -> bool {
        let [inputs, outputs] = sizes(plan.kind);
        let (o, i) = (outputs * n / SAMPLES, inputs * n / SAMPLES);
        let (Some((type_a, a)), Some((type_b, b))) = (self.weights.elements(&plan.a), self.weights.elements(&plan.b))
        else {
            return false;
        };
        // Products of two f32 are exact in f64; a sum of `rank` of them is wrong by less than `rank · ε` of their sizes.
        let (mut sum, mut size) = (0.0, 0.0);
        for r in 0..plan.rank {
            let (Some(a), Some(b)) = (type_a.element(a, r * inputs + i), type_b.element(b, o * plan.rank + r)) else {
                return false;
            };
            let product = f64::from(a) * f64::from(b);
            sum += product;
            size += product.abs();
        }
        let element = plan.scale * sum;
        sum.abs() > size * plan.rank as f64 * f64::EPSILON && element.abs() >= f64::MIN_POSITIVE
    }
}

/// Inputs and outputs of a change.
fn sizes(kind: ModuleKind) -> [usize; 2] {
    match kind {
        ModuleKind::Linear { in_features, out_features, .. } => [in_features, out_features],
        ModuleKind::Embedding { vocab, dim } => [vocab, dim],
        ModuleKind::Norm { dim } => [dim, dim],
    }
}
