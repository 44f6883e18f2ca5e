//! The forward of one decoder layer, operation by operation that of [`crate::model::Model::forward`], with everything kept
//! that the way back needs.

use kernels::{AttentionSlice, Input};

use super::memory::Memory;
use super::pass::Pass;
use super::project::Hidden;
use crate::model::{ModelConfig, Slot};

/// What one layer computed, each `[rows, …]`.
pub(super) struct Activations {
    pub input: Vec<f32>,
    pub normed: Vec<f32>,
    /// Queries and keys before the norm of each head, where the model has one.
    pub raw: Option<[Vec<f32>; 2]>,
    /// Turned.
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub mixed: Vec<f32>,
    /// The input and what attention added to it.
    pub middle: Vec<f32>,
    pub normed_middle: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    /// `silu(gate) · up`
    pub inner: Vec<f32>,
    /// Indexed by slot.
    pub hidden: [Hidden; 7],
}

impl Activations {
    /// Memory for `rows` rows, the small `hidden` apart.
    pub fn bytes(config: &ModelConfig, rows: usize) -> u64 {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let raw = if config.head_norms { q + kv } else { 0 };
        let row = 4 * config.hidden_size + raw + 2 * q + 2 * kv + 3 * config.intermediate_size;
        (rows * row * size_of::<f32>()) as u64
    }

    /// Gives the buffers back.
    pub fn release(self, memory: &mut Memory) {
        let Activations { input, normed, raw, q, k, v, mixed, middle, normed_middle, gate, up, inner, hidden: _ } =
            self;
        let all = [input, normed, q, k, v, mixed, middle, normed_middle, gate, up, inner];
        all.into_iter().chain(raw.into_iter().flatten()).for_each(|buffer| memory.give(buffer));
    }
}

impl Pass<'_> {
    /// What layer `index` makes of `input` `[rows, hidden]`.
    pub fn forward_layer(&self, memory: &mut Memory, index: usize, input: Vec<f32>) -> (Vec<f32>, Activations) {
        let (config, layer) = (self.model.config(), &self.model.weights().layers[index]);
        let (rows, eps, width) = (self.batch.rows(), config.rms_norm_eps, config.hidden_size);
        let (of_q, of_kv) = (rows * config.heads * config.head_dim, rows * config.kv_heads * config.head_dim);

        let mut normed = memory.take(input.len());
        kernels::rms_norm(self.cpu, &input, &layer.input_norm, eps, &mut normed);
        let [mut q, mut k, mut v, mut mixed] = [of_q, of_kv, of_kv, of_q].map(|len| memory.take(len));
        let x = Input::new(self.cpu, &normed, width, self.forms);
        let [q_hidden, k_hidden, v_hidden] =
            self.project(index, layer, &x, [(Slot::Q, &mut q), (Slot::K, &mut k), (Slot::V, &mut v)]);
        let raw = layer.head_norms.as_ref().map(|[q_norm, k_norm]| {
            let raw = [memory.copy(&q), memory.copy(&k)];
            kernels::rms_norm_in_place(self.cpu, &mut q, q_norm, eps);
            kernels::rms_norm_in_place(self.cpu, &mut k, k_norm, eps);
            raw
        });
        let rotary = &self.batch.rotary[config.attention[index].rope];
        kernels::rotate(self.cpu, &mut q, config.heads, rotary);
        kernels::rotate(self.cpu, &mut k, config.kv_heads, rotary);
        let cache = memory.cache(config, self.batch.block_count());
        cache.write_rows(self.cpu, &k, &v, &self.batch.places);
        let slices = self.batch.sequences.iter().zip(&self.batch.blocks);
        let slices: Vec<AttentionSlice<'_>> =
            slices.map(|(rows, blocks)| AttentionSlice { rows: rows.clone(), past: 0, blocks }).collect();
        kernels::paged_attention(self.cpu, &config.attention_shape(index), &q, cache, &slices, &mut mixed);

        let mut change = memory.take(input.len());
        let x = Input::new(self.cpu, &mixed, config.heads * config.head_dim, self.forms);
        let [o_hidden] = self.project(index, layer, &x, [(Slot::O, &mut change)]);
        let (mut middle, mut normed_middle) = (memory.copy(&input), memory.take(input.len()));
        let norm = &layer.post_attention_norm;
        kernels::add_rms_norm(self.cpu, &mut middle, &change, norm, eps, &mut normed_middle);

        let of_inner = rows * config.intermediate_size;
        let [mut gate, mut up] = [of_inner, of_inner].map(|len| memory.take(len));
        let x = Input::new(self.cpu, &normed_middle, width, self.forms);
        let [gate_hidden, up_hidden] = self.project(index, layer, &x, [(Slot::Gate, &mut gate), (Slot::Up, &mut up)]);
        let mut inner = memory.copy(&gate);
        kernels::silu_mul(self.cpu, &mut inner, &up);
        let x = Input::new(self.cpu, &inner, config.intermediate_size, self.forms);
        let [down_hidden] = self.project(index, layer, &x, [(Slot::Down, &mut change)]);
        let mut output = memory.copy(&middle);
        kernels::add(self.cpu, &mut output, &change);
        memory.give(change);
        let hidden = [q_hidden, k_hidden, v_hidden, o_hidden, gate_hidden, up_hidden, down_hidden];
        (output, Activations { input, normed, raw, q, k, v, mixed, middle, normed_middle, gate, up, inner, hidden })
    }
}
