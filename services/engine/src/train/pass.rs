//! One pass over a batch: forward with what the backward needs, loss, backward. Activations of as many layers as there is
//! memory for are kept; those of the others are computed a second time, which gives the same bits.

use std::ops::Range;

use kernels::{Cpu, Forms};

use super::batch::{Batch, PartRows};
use super::factors::{Packed, Sites};
use super::head::{Back, PartLoss};
use super::layer::Activations;
use super::memory::Memory;
use super::transposed::Transposed;
use crate::model::Model;

/// What all steps of a pass need.
pub(super) struct Pass<'a> {
    pub model: &'a Model,
    pub transposed: &'a Transposed,
    pub cpu: &'a Cpu,
    pub batch: &'a Batch,
    /// One for each part of the batch.
    pub tenants: Vec<Tenant<'a>>,
    /// In which forms activations enter frozen products.
    pub forms: Forms,
    pub logits_bytes_max: usize,
}

/// The adapter of one part.
pub(super) struct Tenant<'a> {
    pub sites: &'a Sites,
    pub values: &'a [f32],
    pub packed: &'a Packed,
    pub rows: Range<usize>,
    pub list: &'a [usize],
    pub trained: Range<usize>,
}

impl<'a> Tenant<'a> {
    pub fn new(sites: &'a Sites, values: &'a [f32], packed: &'a Packed, part: &'a PartRows) -> Tenant<'a> {
        let (rows, trained) = (part.rows.clone(), part.trained.clone());
        Tenant { sites, values, packed, rows, list: &part.list, trained }
    }
}

/// The gradients of all parts, each as its factors lie.
pub(super) type Gradients<'a> = [&'a mut [f32]];

impl Pass<'_> {
    /// The loss of each part.
    pub fn evaluate(&self, memory: &mut Memory) -> Vec<PartLoss> {
        let mut hidden = self.embed(memory);
        for layer in 0..self.model.config().layers {
            let (output, activations) = self.forward_layer(memory, layer, hidden);
            activations.release(memory);
            hidden = output;
        }
        let losses = self.loss(memory, &hidden, None);
        memory.give(hidden);
        losses
    }

    /// The loss of each part; its gradient, of the sum over tokens, is added to `gradients`.
    pub fn learn(&self, memory: &mut Memory, gradients: &mut Gradients<'_>, bytes_max: u64) -> Vec<PartLoss> {
        let layers = self.model.config().layers;
        let first = self.tenants.iter().filter_map(|tenant| tenant.sites.first_layer()).min().unwrap_or(layers);
        let of_layer = Activations::bytes(self.model.config(), self.batch.rows());
        let kept = usize::try_from(bytes_max / of_layer.max(1)).unwrap_or(usize::MAX);
        let mut states = Vec::with_capacity(layers);
        let mut hidden = self.embed(memory);
        for layer in 0..layers {
            let input = (layer >= first && layer + kept < layers).then(|| memory.copy(&hidden));
            let (output, activations) = self.forward_layer(memory, layer, hidden);
            hidden = output;
            states.push(match input {
                Some(input) => {
                    activations.release(memory);
                    State::Input(input)
                }
                None if layer < first => {
                    activations.release(memory);
                    State::Nothing
                }
                None => State::Kept(Box::new(activations)),
            });
        }
        let mut gradient = memory.take(hidden.len());
        gradient.fill(0.0);
        let losses = self.loss(memory, &hidden, Some(Back { hidden: &mut gradient, factors: gradients }));
        memory.give(hidden);
        let embeds = self.tenants.iter().any(|tenant| tenant.sites.embed().is_some());
        for (layer, state) in states.into_iter().enumerate().rev() {
            let activations = match state {
                State::Nothing => break,
                State::Kept(activations) => *activations,
                State::Input(input) => {
                    let (output, activations) = self.forward_layer(memory, layer, input);
                    memory.give(output);
                    activations
                }
            };
            self.backward_layer(memory, layer, activations, &mut gradient, gradients, layer > first || embeds);
        }
        if embeds {
            self.embed_backward(&gradient, gradients);
        }
        memory.give(gradient);
        losses
    }
}

/// What is known of a layer when the backward comes to it.
enum State {
    /// No adapter has a change in it or below it.
    Nothing,
    Input(Vec<f32>),
    Kept(Box<Activations>),
}
