//! The working memory of a step. It is kept from step to step, so that no step waits for fresh pages.

use kernels::{Buffer, Input};

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

/// Memory that only grows. What it holds when it is asked for is what the step before left there. It is aligned as the
/// kernels' registers are, and on huge pages where it is large: results are stored into it line by line.
#[derive(Default)]
pub(crate) struct Rows(Option<Buffer>);

impl Rows {
    pub fn of(&mut self, len: usize) -> &mut [f32] {
        let bytes = len * size_of::<f32>();
        let memory = self.0.take().filter(|memory| memory.len() >= bytes).unwrap_or_else(|| Buffer::zeroed(bytes));
        let values = self.0.insert(memory).get_f32_mut().expect("nobody shares it");
        &mut values[..len]
    }
}
