//! The frozen weights once more, transposed: with them the gradient of a layer's input is a product like any other, three
//! times as fast as one from the weights as they lie. They are f32 whatever the base is, and cost that memory.

use kernels::{Cpu, Matrix};

use crate::model::{Model, Slot};

pub(super) struct Transposed {
    /// Indexed by layer and slot: `[inputs, outputs]`.
    layers: Vec<[Matrix; 7]>,
    /// `[hidden, vocab]`
    pub head: Matrix,
}

impl Transposed {
    pub fn new(cpu: &Cpu, model: &Model) -> Transposed {
        let weights = model.weights();
        let layer = |layer: &crate::model::Layer| Slot::ALL.map(|slot| layer.linear(slot).weight.transposed(cpu));
        Transposed { layers: weights.layers.iter().map(layer).collect(), head: weights.head().transposed(cpu) }
    }

    pub fn linear(&self, layer: usize, slot: Slot) -> &Matrix {
        &self.layers[layer][slot as usize]
    }

    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(Matrix::bytes).sum::<usize>() + self.head.bytes()
    }
}
