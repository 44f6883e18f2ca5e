//! One step through the decoder: embedding, layers, output layer, for all rows of a batch at once.

use std::ops::Range;

use kernels::{AttentionSlice, BlockId, Cpu, Forms, Input, LoraGroup, LoraSite, Matrix, RotaryTable};

use super::groups::{Group, Groups};
use super::scratch::Scratch;
use super::weights::{Layer, Slot};
use super::{Batch, LogitsRows, Model, SequenceSlice};
use crate::kv::{BLOCK_TOKENS, KvCache};
use crate::lora::{Adapter, LinearChange};

/// Logits that are in memory at once; at least those of one row.
const LOGITS_BYTES: usize = 64 << 20;

/// What all layers of a step need.
struct Step<'a> {
    model: &'a Model,
    cpu: &'a Cpu,
    sequences: &'a [SequenceSlice<'a>],
    rows: usize,
    /// Slices in the order of their rows.
    slices: Vec<AttentionSlice<'a>>,
    /// Where each row's key and value go.
    places: Vec<(BlockId, usize)>,
    groups: Groups<'a>,
    /// In which forms activations enter products.
    forms: Forms,
    /// One for each rope of the model: entry `r` turns row `r`.
    rotary: Vec<RotaryTable>,
}

pub(super) fn forward(model: &Model, batch: &Batch<'_>, kv: &mut KvCache, logits: &mut dyn FnMut(&[usize], &[f32])) {
    check(model, batch, kv);
    if batch.tokens.is_empty() {
        return;
    }
    let groups = Groups::of(batch.sequences);
    let step = Step {
        model,
        cpu: &model.cpu,
        sequences: batch.sequences,
        rows: batch.tokens.len(),
        slices: batch.sequences.iter().map(slice).collect(),
        places: places(batch),
        forms: forms(model, &groups),
        groups,
        rotary: rotary(model, batch),
    };
    // Left empty by a step that panicked; the next one starts afresh.
    let mut scratch = std::mem::take(&mut kv.scratch);
    step.embed(batch.tokens, &mut scratch);
    for (index, layer) in model.weights.layers.iter().enumerate() {
        step.attention(index, layer, kv, &mut scratch);
        step.mlp(index, layer, &mut scratch);
    }
    step.logits(&mut scratch, logits);
    kv.scratch = scratch;
}

impl<'a> Step<'a> {
    fn embed(&self, tokens: &[u32], scratch: &mut Scratch) {
        let (width, embed) = (self.model.config.hidden_size, &self.model.weights.embed);
        let hidden = scratch.hidden.of(self.rows * width);
        self.cpu.each_chunk(hidden, width, |r, row| embed.read_row(tokens[r] as usize, row));
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
    }

    /// `hidden += attention(norm(hidden))`, and leaves the norm of that in `normed` for the block that follows.
    fn attention(&self, index: usize, layer: &Layer, kv: &mut KvCache, scratch: &mut Scratch) {
        let config = &self.model.config;
        let eps = config.rms_norm_eps;
        let (rows, dim) = (self.rows, config.head_dim);
        let hidden = scratch.hidden.of(rows * config.hidden_size);
        let normed = scratch.normed.of(hidden.len());
        let (q, k) = (scratch.q.of(rows * config.heads * dim), scratch.k.of(rows * config.kv_heads * dim));
        let v = scratch.v.of(k.len());

        kernels::rms_norm(self.cpu, hidden, &layer.input_norm, eps, normed);
        let x = std::mem::take(&mut scratch.input).refill(self.cpu, normed, config.hidden_size, self.forms);
        self.project(index, layer, &x, [(Slot::Q, &mut *q), (Slot::K, &mut *k), (Slot::V, &mut *v)]);
        if let Some([q_norm, k_norm]) = &layer.head_norms {
            kernels::rms_norm_in_place(self.cpu, q, q_norm, eps);
            kernels::rms_norm_in_place(self.cpu, k, k_norm, eps);
        }
        let rotary = &self.rotary[config.attention[index].rope];
        kernels::rotate(self.cpu, q, config.heads, rotary);
        kernels::rotate(self.cpu, k, config.kv_heads, rotary);
        let cache = &mut kv.layers[index];
        cache.write_rows(self.cpu, k, v, &self.places);

        let shape = config.attention_shape(index);
        let mixed = scratch.mixed.of(q.len());
        kernels::paged_attention(self.cpu, &shape, q, cache, &self.slices, mixed);
        let x = x.refill(self.cpu, mixed, config.heads * dim, self.forms);
        let change = scratch.change.of(hidden.len());
        self.project(index, layer, &x, [(Slot::O, &mut *change)]);
        scratch.input = x.release();
        kernels::add_rms_norm(self.cpu, hidden, change, &layer.post_attention_norm, eps, normed);
    }

    /// `hidden += mlp(normed)`
    fn mlp(&self, index: usize, layer: &Layer, scratch: &mut Scratch) {
        let config = &self.model.config;
        let hidden = scratch.hidden.of(self.rows * config.hidden_size);
        let normed = scratch.normed.of(hidden.len());
        let inner = self.rows * config.intermediate_size;
        let (gate, up) = (scratch.gate.of(inner), scratch.up.of(inner));

        let x = std::mem::take(&mut scratch.input).refill(self.cpu, normed, config.hidden_size, self.forms);
        self.project(index, layer, &x, [(Slot::Gate, &mut *gate), (Slot::Up, &mut *up)]);
        kernels::silu_mul(self.cpu, gate, up);
        let x = x.refill(self.cpu, gate, config.intermediate_size, self.forms);
        let change = scratch.change.of(hidden.len());
        self.project(index, layer, &x, [(Slot::Down, &mut *change)]);
        scratch.input = x.release();
        kernels::add(self.cpu, hidden, change);
    }

    /// The products of one input with some linear layers of a decoder layer, each with what the adapters add to it.
    fn project<const N: usize>(&self, index: usize, layer: &Layer, x: &Input, slots: [(Slot, &mut [f32]); N]) {
        let mut products = slots.map(|(slot, y)| (layer.linear(slot), slot, y));
        let mut dense: Vec<_> = products.iter_mut().map(|(linear, _, y)| (&linear.weight, &mut **y)).collect();
        kernels::linears(self.cpu, x, &mut dense);
        if !self.groups.is_empty() {
            let sites = products.iter_mut().map(|(linear, slot, y)| {
                let change = |adapter: &'a Adapter| adapter.linear(index, *slot);
                (loras(&self.groups, change), linear.weight.outputs(), &mut **y)
            });
            add_loras(self.cpu, x, sites.collect());
        }
        for (linear, slot, y) in products {
            let changes = self.groups.iter().map(|group| (group, group.adapter.linear(index, slot)));
            finish(self.cpu, linear.bias.as_deref(), linear.weight.outputs(), changes, y);
        }
    }

    /// The output layer for the rows that asked for it, in tiles.
    fn logits(&self, scratch: &mut Scratch, logits: &mut dyn FnMut(&[usize], &[f32])) {
        let config = &self.model.config;
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        let mut wanted: Vec<usize> = self.sequences.iter().flat_map(wanted_rows).collect();
        wanted.sort_unstable();
        let tile = (LOGITS_BYTES / (vocab * size_of::<f32>())).max(1);
        for rows in wanted.chunks(tile) {
            let hidden = scratch.hidden.of(self.rows * width);
            let gathered = scratch.change.of(rows.len() * width);
            for (row, out) in rows.iter().zip(gathered.chunks_exact_mut(width)) {
                out.copy_from_slice(&hidden[row * width..][..width]);
            }
            let x = scratch.normed.of(gathered.len());
            kernels::rms_norm(self.cpu, gathered, &self.model.weights.norm, config.rms_norm_eps, x);
            let y = scratch.logits.of(rows.len() * vocab);
            self.head(x, &self.groups.select(rows), y);
            logits(rows, y);
        }
    }

    /// `[rows, vocab]`: rows of adapters with an output layer of their own use that, all others the base's.
    fn head(&self, x: &[f32], groups: &Groups<'_>, y: &mut [f32]) {
        let (width, vocab) = (self.model.config.hidden_size, self.model.config.vocab_size);
        let mut shared: Vec<usize> = (0..x.len() / width).collect();
        for group in groups.iter() {
            if let Some(private) = &group.adapter.head.private {
                shared.retain(|row| group.rows.binary_search(row).is_err());
                self.product_of_rows(x, &group.rows, private, y);
            }
        }
        self.product_of_rows(x, &shared, self.model.weights.head(), y);
        let own = loras(groups, |adapter| &adapter.head.change);
        if !own.is_empty() {
            let x = Input::new(self.cpu, x, width, self.forms);
            add_loras(self.cpu, &x, vec![(own, vocab, &mut *y)]);
        }
        finish(self.cpu, None, vocab, groups.iter().map(|group| (group, &group.adapter.head.change)), y);
    }

    /// `y[r] = x[r] Wᵀ` for `rows` alone.
    fn product_of_rows(&self, x: &[f32], rows: &[usize], weight: &Matrix, y: &mut [f32]) {
        let (inputs, outputs) = (weight.inputs(), weight.outputs());
        if rows.len() * outputs == y.len() {
            return kernels::linear(self.cpu, &Input::new(self.cpu, x, inputs, self.forms), weight, y);
        }
        if rows.is_empty() {
            return;
        }
        let gathered: Vec<f32> = rows.iter().flat_map(|r| &x[r * inputs..(r + 1) * inputs]).copied().collect();
        let mut product = vec![0.0; rows.len() * outputs];
        kernels::linear(self.cpu, &Input::new(self.cpu, &gathered, inputs, self.forms), weight, &mut product);
        for (r, row) in rows.iter().zip(product.chunks_exact(outputs)) {
            y[r * outputs..(r + 1) * outputs].copy_from_slice(row);
        }
    }
}

/// The low-rank changes of one linear layer, by group; groups without one are left out.
fn loras<'a, 'g: 'a>(groups: &'a Groups<'g>, change: impl Fn(&'g Adapter) -> &'g LinearChange) -> Vec<LoraGroup<'a>> {
    let lora =
        |group: &'a Group<'g>| change(group.adapter).lora.as_ref().map(|lora| LoraGroup { rows: &group.rows, lora });
    groups.iter().filter_map(lora).collect()
}

fn add_loras(cpu: &Cpu, x: &Input, sites: Vec<(Vec<LoraGroup<'_>>, usize, &mut [f32])>) {
    let (groups, rest): (Vec<_>, Vec<_>) = sites.into_iter().map(|(groups, outputs, y)| (groups, (outputs, y))).unzip();
    let site = |(groups, (outputs, y))| LoraSite { groups, outputs, y };
    let mut sites: Vec<_> = groups.iter().map(Vec::as_slice).zip(rest).map(site).collect();
    kernels::grouped_loras(cpu, x, &mut sites);
}

/// Magnitudes of DoRA, and the biases.
fn finish<'a, 'g: 'a>(
    cpu: &Cpu,
    bias: Option<&[f32]>,
    outputs: usize,
    changes: impl Iterator<Item = (&'a Group<'g>, &'a LinearChange)>,
    y: &mut [f32],
) {
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
        if own_bias.is_empty() {
            return kernels::add_bias_rows(cpu, y, bias);
        }
        own_bias.sort_unstable();
        cpu.each_chunk(y, outputs, |r, row| {
            if own_bias.binary_search(&r).is_err() {
                kernels::add_bias(row, bias);
            }
        });
    }
}

/// The forms in which the base and the adapters of this step read activations.
fn forms(model: &Model, groups: &Groups<'_>) -> Forms {
    let base = Forms::from(model.dtype.storage());
    if groups.is_empty() { base } else { base | model.adapter_storage.into() }
}

/// Block and slot of each row.
fn places(batch: &Batch<'_>) -> Vec<(BlockId, usize)> {
    let mut places = vec![(BlockId(0), 0); batch.tokens.len()];
    for sequence in batch.sequences {
        for (row, position) in sequence.rows.clone().zip(sequence.past..) {
            places[row] = (sequence.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        }
    }
    places
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
    let positions =
        |sequence: &&SequenceSlice<'_>| (sequence.past..sequence.past + sequence.rows.len(), sequence.rope_length);
    let positions: Vec<_> = in_order.iter().map(positions).collect();
    model.config.rotary(&model.cpu, &positions)
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
