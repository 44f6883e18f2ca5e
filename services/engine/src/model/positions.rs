//! What of a layer's attention follows from the config and from positions alone; serving and training share it.

use std::ops::Range;

use kernels::{AttentionShape, Cpu, RotaryTable};

use super::ModelConfig;
use super::rope::Rope;

impl ModelConfig {
    /// What all sequences of a layer have in common.
    pub(crate) fn attention_shape(&self, layer: usize) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (1.0 / (self.head_dim as f64).sqrt()) as f32,
            window: self.attention[layer].window,
        }
    }

    /// Cosines and sines of the rows of some sequences, in order: their positions, and the length that fixes the
    /// frequencies of a `dynamic` model. One table for each rope of the model.
    pub(crate) fn rotary(&self, cpu: &Cpu, sequences: &[(Range<usize>, usize)]) -> Vec<RotaryTable> {
        let table = |rope: &Rope| {
            let (plain, factor) = rope.frequencies(0);
            let mut table = RotaryTable::new(cpu, &plain, factor, std::iter::empty());
            for (positions, length) in sequences {
                match rope.key(*length) {
                    0 => table.extend(cpu, &plain, factor, positions.clone()),
                    length => table.extend(cpu, &rope.frequencies(length).0, factor, positions.clone()),
                }
            }
            table
        };
        self.ropes.iter().map(table).collect()
    }
}
