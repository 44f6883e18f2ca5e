//! One step through the decoder: embedding, layers, output layer, for all rows of a batch at once.

use std::ops::Range;

use kernels::{AttentionShape, AttentionSlice, LoraGroup, Matrix, RotaryTable};

use super::groups::{Group, Groups};
use super::weights::{Layer, Slot};
use super::{Batch, LogitsRows, Model, SequenceSlice};
use crate::kv::{BLOCK_TOKENS, KvCache};
use crate::lora::LinearChange;

/// Rows whose logits are in memory at once.
const LOGITS_ROWS: usize = 16;

/// What all layers of a step need.
struct Step<'a> {
    model: &'a Model,
    sequences: &'a [SequenceSlice<'a>],
    /// Slices in the order of their rows.
    slices: Vec<AttentionSlice<'a>>,
    groups: Groups<'a>,
    /// One for each rope of the model: entry `r` turns row `r`.
    rotary: Vec<RotaryTable>,
}

pub(super) fn forward(model: &Model, batch: &Batch<'_>, kv: &mut KvCache, logits: &mut dyn FnMut(usize, &[f32])) {
    check(model, batch, kv);
    if batch.tokens.is_empty() {
        return;
    }
    let step = Step {
        model,
        sequences: batch.sequences,
        slices: batch.sequences.iter().map(slice).collect(),
        groups: Groups::of(batch.sequences),
        rotary: rotary(model, batch),
    };
    let mut hidden = step.embed(batch.tokens);
    for (index, layer) in model.weights.layers.iter().enumerate() {
        step.attention(index, layer, &mut hidden, kv);
        step.mlp(index, layer, &mut hidden);
    }
    step.logits(&hidden, logits);
}

impl Step<'_> {
    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let (width, embed) = (self.model.config.hidden_size, &self.model.weights.embed);
        let mut hidden = vec![0.0; tokens.len() * width];
        for (token, row) in tokens.iter().zip(hidden.chunks_exact_mut(width)) {
            embed.read_row(*token as usize, row);
        }
        for group in self.groups.iter() {
            let change = &group.adapter.embed;
            for &r in &group.rows {
                let (token, row) = (tokens[r] as usize, &mut hidden[r * width..][..width]);
                if let Some(private) = &change.private {
                    private.read_row(token, row);
                }
                change.apply(token, row);
            }
        }
        hidden
    }

    fn attention(&self, index: usize, layer: &Layer, hidden: &mut [f32], kv: &mut KvCache) {
        let config = &self.model.config;
        let eps = config.rms_norm_eps;
        let x = normed(hidden, &layer.input_norm, eps);
        let mut q = self.project(index, layer, Slot::Q, &x);
        let mut k = self.project(index, layer, Slot::K, &x);
        let v = self.project(index, layer, Slot::V, &x);
        if let Some([q_norm, k_norm]) = &layer.head_norms {
            kernels::rms_norm_in_place(&mut q, q_norm, eps);
            kernels::rms_norm_in_place(&mut k, k_norm, eps);
        }
        let attention = config.attention[index];
        let rotary = &self.rotary[attention.rope];
        kernels::rotate(&mut q, config.heads, rotary);
        kernels::rotate(&mut k, config.kv_heads, rotary);
        let cache = &mut kv.layers[index];
        let width = config.kv_heads * config.head_dim;
        for sequence in self.sequences {
            for (row, position) in sequence.rows.clone().zip(sequence.past..) {
                let part = row * width..(row + 1) * width;
                let block = sequence.blocks[position / BLOCK_TOKENS];
                cache.write(block, position % BLOCK_TOKENS, &k[part.clone()], &v[part]);
            }
        }
        let shape = AttentionShape {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: (1.0 / (config.head_dim as f64).sqrt()) as f32,
            window: attention.window,
        };
        let mut mixed = vec![0.0; q.len()];
        kernels::paged_attention(&shape, &q, cache, &self.slices, &mut mixed);
        add(hidden, &self.project(index, layer, Slot::O, &mixed));
    }

    fn mlp(&self, index: usize, layer: &Layer, hidden: &mut [f32]) {
        let x = normed(hidden, &layer.post_attention_norm, self.model.config.rms_norm_eps);
        let mut gate = self.project(index, layer, Slot::Gate, &x);
        kernels::silu_mul(&mut gate, &self.project(index, layer, Slot::Up, &x));
        add(hidden, &self.project(index, layer, Slot::Down, &gate));
    }

    fn project(&self, index: usize, layer: &Layer, slot: Slot, x: &[f32]) -> Vec<f32> {
        let linear = layer.linear(slot);
        let mut y = product(x, &linear.weight);
        let changes: Vec<_> = self.groups.iter().map(|group| (group, group.adapter.linear(index, slot))).collect();
        finish(x, linear.bias.as_deref(), &changes, linear.weight.outputs(), &mut y);
        y
    }

    /// The output layer for the rows that asked for it, in tiles.
    fn logits(&self, hidden: &[f32], logits: &mut dyn FnMut(usize, &[f32])) {
        let config = &self.model.config;
        let width = config.hidden_size;
        let mut wanted: Vec<usize> = self.sequences.iter().flat_map(wanted_rows).collect();
        wanted.sort_unstable();
        for rows in wanted.chunks(LOGITS_ROWS) {
            let gathered: Vec<f32> = rows.iter().flat_map(|r| &hidden[r * width..(r + 1) * width]).copied().collect();
            let x = normed(&gathered, &self.model.weights.norm, config.rms_norm_eps);
            let y = self.head(&x, &self.groups.select(rows));
            for (row, values) in rows.iter().zip(y.chunks_exact(config.vocab_size)) {
                logits(*row, values);
            }
        }
    }

    /// `[rows, vocab]`: rows of adapters with an output layer of their own use that, all others the base's.
    fn head(&self, x: &[f32], groups: &Groups<'_>) -> Vec<f32> {
        let (width, vocab) = (self.model.config.hidden_size, self.model.config.vocab_size);
        let mut shared: Vec<usize> = (0..x.len() / width).collect();
        let mut y = vec![0.0; shared.len() * vocab];
        for group in groups.iter() {
            if let Some(private) = &group.adapter.head.private {
                shared.retain(|row| group.rows.binary_search(row).is_err());
                product_of_rows(x, &group.rows, private, &mut y);
            }
        }
        product_of_rows(x, &shared, self.model.weights.head(), &mut y);
        let changes: Vec<_> = groups.iter().map(|group| (group, &group.adapter.head.change)).collect();
        finish(x, None, &changes, vocab, &mut y);
        y
    }
}

/// What adapters do to a product `y = x Wᵀ`, and the biases.
fn finish(x: &[f32], bias: Option<&[f32]>, changes: &[(&Group<'_>, &LinearChange)], outputs: usize, y: &mut [f32]) {
    let loras = changes
        .iter()
        .filter_map(|(group, change)| change.lora.as_ref().map(|lora| LoraGroup { rows: &group.rows, lora }));
    kernels::grouped_lora(x, &loras.collect::<Vec<_>>(), y);
    let mut row_of = |r: usize, apply: &dyn Fn(&mut [f32])| apply(&mut y[r * outputs..][..outputs]);
    let mut own_bias = Vec::new();
    for (group, change) in changes {
        for &r in &group.rows {
            if let Some(gain) = &change.gain {
                row_of(r, &|row| kernels::scale_row(row, gain));
            }
            if let Some(bias) = &change.bias {
                row_of(r, &|row| kernels::add_bias(row, bias));
                own_bias.push(r);
            }
            if let Some(bias) = &change.lora_bias {
                row_of(r, &|row| kernels::add_bias(row, bias));
            }
        }
    }
    if let Some(bias) = bias {
        own_bias.sort_unstable();
        for (r, row) in y.chunks_exact_mut(outputs).enumerate() {
            if own_bias.binary_search(&r).is_err() {
                kernels::add_bias(row, bias);
            }
        }
    }
}

fn product(x: &[f32], weight: &Matrix) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / weight.inputs() * weight.outputs()];
    kernels::linear(x, weight, &mut y);
    y
}

/// `y[r] = x[r] Wᵀ` for `rows` alone.
fn product_of_rows(x: &[f32], rows: &[usize], weight: &Matrix, y: &mut [f32]) {
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    if rows.len() * outputs == y.len() {
        return kernels::linear(x, weight, y);
    }
    let gathered: Vec<f32> = rows.iter().flat_map(|r| &x[r * inputs..(r + 1) * inputs]).copied().collect();
    for (r, row) in rows.iter().zip(product(&gathered, weight).chunks_exact(outputs)) {
        y[r * outputs..(r + 1) * outputs].copy_from_slice(row);
    }
}

fn normed(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    kernels::rms_norm(x, weight, eps, &mut out);
    out
}

fn add(hidden: &mut [f32], change: &[f32]) {
    for (value, change) in hidden.iter_mut().zip(change) {
        *value += change;
    }
}

fn slice<'a>(sequence: &SequenceSlice<'a>) -> AttentionSlice<'a> {
    AttentionSlice { rows: sequence.rows.clone(), past: sequence.past, blocks: sequence.blocks }
}

fn wanted_rows(sequence: &SequenceSlice<'_>) -> Range<usize> {
    let rows = sequence.rows.clone();
    match sequence.logits {
        LogitsRows::None => rows.start..rows.start,
        LogitsRows::Last => rows.end.saturating_sub(1).max(rows.start)..rows.end,
        LogitsRows::LastN(n) => rows.end.saturating_sub(n).max(rows.start)..rows.end,
        LogitsRows::All => rows,
    }
}

/// Cosines and sines of all rows. Rows that no sequence names do not exist ([`check`]).
fn rotary(model: &Model, batch: &Batch<'_>) -> Vec<RotaryTable> {
    let mut in_order: Vec<&SequenceSlice<'_>> = batch.sequences.iter().collect();
    in_order.sort_unstable_by_key(|sequence| sequence.rows.start);
    let table = |rope: &super::rope::Rope| {
        let (plain, factor) = rope.frequencies(0);
        let mut table = RotaryTable::new(&plain, factor, std::iter::empty());
        for sequence in &in_order {
            let positions = sequence.past..sequence.past + sequence.rows.len();
            match rope.key(sequence.rope_length) {
                0 => table.extend(&plain, factor, positions),
                length => table.extend(&rope.frequencies(length).0, factor, positions),
            }
        }
        table
    };
    model.config.ropes.iter().map(table).collect()
}

/// Faults of the caller, before anything is written.
fn check(model: &Model, batch: &Batch<'_>, kv: &KvCache) {
    assert_eq!(kv.layers.len(), model.config.layers, "the KV cache is of another model");
    let vocab = model.config.vocab_size;
    assert!(batch.tokens.iter().all(|token| (*token as usize) < vocab), "a token id is out of the vocabulary");
    let mut taken = vec![false; batch.tokens.len()];
    for sequence in batch.sequences {
        for row in sequence.rows.clone() {
            assert!(!std::mem::replace(&mut taken[row], true), "row {row} is in two sequences");
        }
        let blocks = (sequence.past + sequence.rows.len()).div_ceil(BLOCK_TOKENS);
        assert!(sequence.blocks.len() >= blocks, "a sequence needs {blocks} blocks");
        assert!(sequence.blocks.iter().all(|block| (block.0 as usize) < kv.blocks()), "a block is out of the cache");
        if let Some(adapter) = sequence.adapter {
            assert_eq!(adapter.base_digest, model.base.digest(), "the adapter was loaded for another base");
        }
    }
    assert!(taken.iter().all(|taken| *taken), "a row is in no sequence");
}
