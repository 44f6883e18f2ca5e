use super::*;
use crate::reference::{assert_close, assert_same_bits, differences, each_cpu, values};

/// Heads, key-value heads, width of a head, window, and lengths of sequences.
type Case = (usize, usize, usize, Option<usize>, &'static [usize]);

const CASES: [Case; 6] = [
    (1, 1, 2, None, &[1, 3]),
    (4, 2, 16, None, &[5, 1, 17]),
    (4, 1, 10, Some(3), &[9, 20]),
    (2, 2, 24, Some(18), &[40]),
    (6, 2, 32, None, &[33]),
    (2, 1, 64, Some(1), &[4]),
];

/// Naive attention of all sequences in f64.
fn naive(shape: &AttentionShape, sequences: &[Range<usize>], q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let (dim, repeats) = (shape.head_dim, shape.heads / shape.kv_heads);
    let mut out = vec![0.0; q.len()];
    for sequence in sequences {
        for row in sequence.clone() {
            let begin = shape.window.map_or(sequence.start, |w| sequence.start.max((row + 1).saturating_sub(w)));
            for head in 0..shape.heads {
                let query = &q[(row * shape.heads + head) * dim..][..dim];
                let at = |key: usize| (key * shape.kv_heads + head / repeats) * dim;
                let score = |key: usize| -> f64 { query.iter().zip(&k[at(key)..][..dim]).map(|(q, k)| q * k).sum() };
                let weights: Vec<f64> = (begin..=row).map(|key| (score(key) * f64::from(shape.scale)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let out = &mut out[(row * shape.heads + head) * dim..][..dim];
                for (key, weight) in (begin..=row).zip(&weights) {
                    out.iter_mut().zip(&v[at(key)..]).for_each(|(out, v)| *out += weight / sum * v);
                }
            }
        }
    }
    out
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Tolerance 1e-5 against central differences of the naive forward in f64.
#[test]
fn gradients_agree_with_differences_and_a_sequence_has_the_same_bits_alone() {
    for (heads, kv_heads, head_dim, window, lengths) in CASES {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.4, window };
        let mut sequences = Vec::new();
        for length in lengths {
            let first = sequences.last().map_or(0, |last: &Range<usize>| last.end);
            sequences.push(first..first + length);
        }
        let rows = sequences.last().expect("a sequence").end;
        let (queries, keys) = (rows * heads * head_dim, rows * kv_heads * head_dim);
        let [q, k, v, d_out] = [(queries, 1), (keys, 2), (keys, 3), (queries, 4)].map(|(n, seed)| values(n, seed));
        let out: Vec<f32> =
            naive(&shape, &sequences, &wide(&q), &wide(&k), &wide(&v)).iter().map(|v| *v as f32).collect();
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            naive(&shape, &sequences, q, k, v).iter().zip(&d_out).map(|(out, d)| out * f64::from(*d)).sum()
        };
        let (wq, wk, wv) = (wide(&q), wide(&k), wide(&v));
        let want = [
            differences(&q, |q| loss(q, &wk, &wv)),
            differences(&k, |k| loss(&wq, k, &wv)),
            differences(&v, |v| loss(&wq, &wk, v)),
        ];
        let all = AttentionRows { q: &q, k: &k, v: &v, out: &out, d_out: &d_out };
        each_cpu(|cpu| {
            let mut got = [vec![f32::NAN; queries], vec![f32::NAN; keys], vec![f32::NAN; keys]];
            let [dq, dk, dv] = &mut got;
            attention_backward(cpu, &shape, &sequences, all, dq, dk, dv);
            got.iter().zip(&want).for_each(|(got, want)| assert_close(got, want, 1e-5));
            for sequence in &sequences {
                let part = |width: usize| sequence.start * width..sequence.end * width;
                let (of_q, of_k) = (part(heads * head_dim), part(kv_heads * head_dim));
                let alone = AttentionRows {
                    q: &q[of_q.clone()],
                    k: &k[of_k.clone()],
                    v: &v[of_k.clone()],
                    out: &out[of_q.clone()],
                    d_out: &d_out[of_q.clone()],
                };
                let mut own = [vec![0.0; of_q.len()], vec![0.0; of_k.len()], vec![0.0; of_k.len()]];
                let [dq, dk, dv] = &mut own;
                let whole = 0..sequence.len();
                attention_backward(&Cpu::serial(), &shape, std::slice::from_ref(&whole), alone, dq, dk, dv);
                for ((own, got), part) in own.iter().zip(&got).zip([of_q, of_k.clone(), of_k]) {
                    assert_same_bits(own, &got[part]);
                }
            }
        });
    }
}

#[test]
#[should_panic(expected = "sequences are disjoint")]
fn sequences_have_no_row_in_common() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, scale: 1.0, window: None };
    let x = [0.0; 6];
    let rows = AttentionRows { q: &x, k: &x, v: &x, out: &x, d_out: &x };
    attention_backward(&Cpu::serial(), &shape, &[0..2, 1..3], rows, &mut [0.0; 6], &mut [0.0; 6], &mut [0.0; 6]);
}
