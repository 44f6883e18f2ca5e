//! The working memory of a step. It is kept from step to step, so that no step waits for fresh pages.

use kernels::Input;

/// Activations of a step, each `[rows, …]`, f32.
#[derive(Default)]
pub(crate) struct Scratch {
    pub hidden: Rows,
    pub normed: Rows,
    pub q: Rows,
    pub k: Rows,
    pub v: Rows,
    pub mixed: Rows,
    pub gate: Rows,
    pub up: Rows,
    /// What a block adds to `hidden`.
    pub change: Rows,
    pub logits: Rows,
    /// Memory of what enters products.
    pub input: Input<'static>,
}

/// Memory that only grows. What it holds when it is asked for is what the step before left there.
#[derive(Default)]
pub(crate) struct Rows(Vec<f32>);

impl Rows {
    pub fn of(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            self.0.resize(len, 0.0);
        }
        &mut self.0[..len]
    }
}
