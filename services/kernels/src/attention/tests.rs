use half::bf16;

use super::*;
use crate::kv_blocks::KvStorage;
use crate::reference::{assert_close, assert_same_bits, cpus, values};

const SHAPE: AttentionShape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 40, scale: 0.2, window: None };
const STORAGES: [KvStorage; 2] = [KvStorage::F32, KvStorage::Bf16];

struct Sequence {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    blocks: Vec<BlockId>,
}

fn place(blocks: &[BlockId], t: usize) -> (BlockId, usize) {
    (blocks[t / BLOCK_TOKENS], t % BLOCK_TOKENS)
}

/// Blocks are shuffled over the cache and what they held before is no number.
fn setup(shape: &AttentionShape, storage: KvStorage, lengths: &[usize]) -> (KvBlocks, Vec<Sequence>) {
    let cpu = Cpu::serial();
    let total: usize = lengths.iter().map(|l| l.div_ceil(BLOCK_TOKENS)).sum();
    let kv = shape.kv_heads * shape.head_dim;
    let mut cache = KvBlocks::new(total + 1, shape.kv_heads, shape.head_dim, storage);
    let stale: Vec<_> =
        (0..=total as u32).flat_map(|b| (0..BLOCK_TOKENS).map(move |slot| (BlockId(b), slot))).collect();
    let (k, v) = (vec![f32::INFINITY; stale.len() * kv], vec![f32::NAN; stale.len() * kv]);
    cache.write_rows(&cpu, &k, &v, &stale);
    let mut next = (0..total as u32).rev();
    let sequences = lengths.iter().enumerate().map(|(i, length)| {
        let seed = 10 * i as u64;
        let sequence = Sequence {
            q: values(length * shape.heads * shape.head_dim, seed),
            k: values(length * kv, seed + 1),
            v: values(length * kv, seed + 2),
            blocks: next.by_ref().take(length.div_ceil(BLOCK_TOKENS)).map(BlockId).collect(),
        };
        let places: Vec<_> = (0..*length).map(|t| place(&sequence.blocks, t)).collect();
        cache.write_rows(&cpu, &sequence.k, &sequence.v, &places);
        sequence
    });
    let sequences = sequences.collect();
    (cache, sequences)
}

/// Attention of `sequence` in f64, its keys and values seen through `round`.
fn reference(shape: &AttentionShape, s: &Sequence, round: impl Fn(f32) -> f32) -> Vec<f64> {
    let (dim, heads, kv_heads) = (shape.head_dim, shape.heads, shape.kv_heads);
    let mut out = Vec::new();
    for row in 0..s.q.len() / (heads * dim) {
        let start = shape.window.map_or(0, |w| (row + 1).saturating_sub(w));
        for head in 0..heads {
            let q = &s.q[(row * heads + head) * dim..][..dim];
            let at = |t: usize| (t * kv_heads + head / (heads / kv_heads)) * dim;
            let product = |t: usize, d: usize| f64::from(q[d]) * f64::from(round(s.k[at(t) + d]));
            let score = |t: usize| (0..dim).map(|d| product(t, d)).sum::<f64>() * f64::from(shape.scale);
            let weights: Vec<f64> = (start..=row).map(|t| score(t).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let value = |t: usize, d: usize| f64::from(round(s.v[at(t) + d]));
            out.extend(
                (0..dim)
                    .map(|d| (start..=row).zip(&weights).map(|(t, weight)| weight / sum * value(t, d)).sum::<f64>()),
            );
        }
    }
    out
}

fn shapes() -> Vec<AttentionShape> {
    let mut shapes = Vec::new();
    for (heads, kv_heads, head_dim) in [(6, 2, 40), (4, 4, 8), (7, 1, 64), (2, 1, 128), (9, 1, 80), (3, 3, 7)] {
        for window in [None, Some(1), Some(7), Some(20)] {
            shapes.push(AttentionShape { heads, kv_heads, head_dim, window, ..SHAPE });
        }
    }
    shapes
}

fn whole(cpu: &Cpu, shape: &AttentionShape, cache: &KvBlocks, s: &Sequence) -> Vec<f32> {
    let mut out = vec![0.0; s.q.len()];
    let slice = AttentionSlice { rows: 0..s.q.len() / (shape.heads * shape.head_dim), past: 0, blocks: &s.blocks };
    paged_attention(cpu, shape, &s.q, cache, &[slice], &mut out);
    out
}

fn to_bf16(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

/// Values are in [-1, 1). Tolerances: 2e-6 where all is f32, the error of a few tens of roundings. Where queries and weights
/// are rounded to bf16 too, 2⁻⁹ of a score of up to a few (queries) and of each weight: 1.5e-2 against the same keys and
/// values. 2e-2 against those before they were rounded.
#[test]
fn prefill_agrees_with_a_scalar_f64_attention_on_every_instruction_set() {
    for shape in shapes() {
        for storage in STORAGES {
            let (cache, sequences) = setup(&shape, storage, &[37]);
            let s = &sequences[0];
            let exact = reference(&shape, s, |value| value);
            let rounded = reference(&shape, s, to_bf16);
            for cpu in cpus(1) {
                let out = whole(&cpu, &shape, &cache, s);
                match storage {
                    KvStorage::F32 => assert_close(&out, &exact, 2e-6),
                    KvStorage::Bf16 => {
                        let products = cpu.isa() >= Isa::Avx512Bf16;
                        assert_close(&out, &rounded, if products { 1.5e-2 } else { 2e-6 });
                        assert_close(&out, &exact, 2e-2);
                    }
                }
            }
        }
    }
}

/// Several parts, merged: as above.
#[test]
fn a_long_context_agrees_with_f64_however_it_is_cut_over_threads() {
    for window in [None, Some(300)] {
        let shape = AttentionShape { heads: 7, kv_heads: 1, head_dim: 64, scale: 0.5, window };
        for storage in STORAGES {
            let (cache, sequences) = setup(&shape, storage, &[2 * PART_TOKENS + 37]);
            let s = &sequences[0];
            let width = shape.heads * shape.head_dim;
            let last = s.q.len() / width - 1;
            let want = reference(&shape, s, |value| if storage == KvStorage::F32 { value } else { to_bf16(value) });
            for (one, many) in cpus(1).iter().zip(&cpus(8)) {
                let products = storage == KvStorage::Bf16 && one.isa() >= Isa::Avx512Bf16;
                let all = whole(one, &shape, &cache, s);
                assert_close(&all, &want, if products { 1.5e-2 } else { 3e-6 });
                let decode = |cpu: &Cpu| {
                    let mut out = vec![0.0; width];
                    let slice = AttentionSlice { rows: 0..1, past: last, blocks: &s.blocks };
                    paged_attention(cpu, &shape, &s.q[last * width..], &cache, &[slice], &mut out);
                    out
                };
                assert_same_bits(&decode(one), &all[last * width..]);
                assert_same_bits(&decode(many), &all[last * width..]);
            }
        }
    }
}

#[test]
fn chunks_decode_company_and_threads_change_no_bit() {
    for shape in shapes() {
        for storage in STORAGES {
            let (cache, sequences) = setup(&shape, storage, &[37, 5, 50]);
            let width = shape.heads * shape.head_dim;
            for (one, many) in cpus(1).iter().zip(&cpus(3)) {
                let want: Vec<_> = sequences.iter().map(|s| whole(one, &shape, &cache, s)).collect();
                // One step: the tail of the first, all of the second, one token of the third.
                let parts = [(20, 37), (0, 5), (49, 50)];
                let (mut q, mut slices) = (Vec::new(), Vec::new());
                for (s, (from, to)) in sequences.iter().zip(parts) {
                    let first = q.len() / width;
                    q.extend_from_slice(&s.q[from * width..to * width]);
                    slices.push(AttentionSlice { rows: first..first + to - from, past: from, blocks: &s.blocks });
                }
                let mut out = vec![0.0; q.len()];
                paged_attention(many, &shape, &q, &cache, &slices, &mut out);
                for ((want, slice), (from, to)) in want.iter().zip(&slices).zip(parts) {
                    let got = &out[slice.rows.start * width..slice.rows.end * width];
                    assert_same_bits(got, &want[from * width..to * width]);
                }
            }
        }
    }
}

#[test]
fn f32_has_the_same_bits_on_every_instruction_set() {
    for shape in shapes() {
        let (cache, sequences) = setup(&shape, KvStorage::F32, &[50]);
        let outs: Vec<_> = cpus(1).iter().map(|cpu| whole(cpu, &shape, &cache, &sequences[0])).collect();
        outs.windows(2).for_each(|pair| assert_same_bits(&pair[0], &pair[1]));
    }
}

/// A later token of the same chunk that is no number leaves the rows before it alone, and shows in its own.
#[test]
fn a_value_that_is_no_number_reaches_those_who_see_it_and_nobody_else() {
    for storage in STORAGES {
        let shape = AttentionShape { window: Some(4), ..SHAPE };
        let (mut cache, mut sequences) = setup(&shape, storage, &[20]);
        let s = &mut sequences[0];
        let (width, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        for cpu in cpus(1) {
            let clean = whole(&cpu, &shape, &cache, s);
            let bad = vec![f32::NAN; kv];
            cache.write_rows(&cpu, &s.k[9 * kv..10 * kv], &bad, &[place(&s.blocks, 9)]);
            let out = whole(&cpu, &shape, &cache, s);
            assert_same_bits(&out[..9 * width], &clean[..9 * width]);
            assert!(out[9 * width..13 * width].iter().all(|value| value.is_nan()));
            assert_same_bits(&out[13 * width..], &clean[13 * width..]);
            cache.write_rows(&cpu, &s.k[9 * kv..10 * kv], &s.v[9 * kv..10 * kv], &[place(&s.blocks, 9)]);
        }
    }
}

#[test]
#[should_panic(expected = "slices are disjoint")]
fn two_slices_of_one_row_are_refused() {
    let (cache, sequences) = setup(&SHAPE, KvStorage::F32, &[5]);
    let slice = AttentionSlice { rows: 0..5, past: 0, blocks: &sequences[0].blocks };
    let mut out = vec![0.0; sequences[0].q.len()];
    paged_attention(&Cpu::serial(), &SHAPE, &sequences[0].q, &cache, &[slice.clone(), slice], &mut out);
}
