//! The engine against transformers and peft on the files of `tests/golden` (`make.py` there says how they were made):
//! every checkpoint with every adapter, alone and all mixed in one batch.
//!
//! On every instruction set of this machine and in every element type, adapters in one of their own too. Tolerance on
//! each natural log-probability against the f32 reference: [`tolerances`]. Mixed against alone: no bit may differ.

#![allow(clippy::unwrap_used)] // helpers of a test may panic as the test itself may

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adapters::{Container, Files, Limits};
use engine::model::{
    Adapter, BLOCK_TOKENS, Batch, BlockId, CpuConfig, Dtype, Isa, LogitsRows, Model, ModelOptions, SequenceSlice,
};

/// The checkpoints are tiny and random, so what rounding does to them shows in full; a trained model loses far less.
///
/// Of any one, and of the root of their mean square. The largest is a matter of luck with one token in thousands: the same
/// adapter in int8 is 0.4 off on one instruction set and 0.6 on another.
fn tolerances(dtype: Dtype, of_adapters: Dtype) -> [f64; 2] {
    match (dtype, of_adapters) {
        (Dtype::F32, Dtype::F32) => [1e-4, 1e-5],
        (Dtype::F32 | Dtype::Bf16, Dtype::F32 | Dtype::Bf16) => [0.35, 0.02],
        (Dtype::Int8, Dtype::F32 | Dtype::Bf16) => [0.5, 0.045],
        (_, Dtype::Int8) => [0.8, 0.05],
    }
}

#[derive(serde::Deserialize)]
struct Expected {
    sequences: Vec<Vec<u32>>,
    /// By adapter, `base` included: for each sequence the log-probability of each token after the first.
    logprobs: BTreeMap<String, Vec<Vec<f64>>>,
}

struct Golden {
    name: String,
    model: Model,
    expected: Expected,
    /// `None` is the base.
    adapters: BTreeMap<String, Option<Adapter>>,
}

/// One sequence under one adapter.
struct Case<'a> {
    label: String,
    tokens: &'a [u32],
    adapter: Option<&'a Adapter>,
    want: &'a [f64],
}

impl Golden {
    fn all(dtype: Dtype, adapter_dtype: Option<Dtype>, isa: Isa) -> Vec<Golden> {
        let mut dirs: Vec<PathBuf> = std::fs::read_dir(bases()).unwrap().map(|entry| entry.unwrap().path()).collect();
        dirs.sort();
        assert!(dirs.len() >= 10, "the golden files are missing");
        dirs.iter().map(|dir| Golden::read(dir, dtype, adapter_dtype, isa)).collect()
    }

    fn read(dir: &Path, dtype: Dtype, adapter_dtype: Option<Dtype>, isa: Isa) -> Golden {
        let cpu = CpuConfig { isa: Some(isa), ..CpuConfig::default() };
        let model = Model::load(dir, &ModelOptions { adapter_dtype, cpu, ..ModelOptions::new(dtype) }).unwrap();
        let expected: Expected = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        let load = |name: &String| {
            let adapter = (name != "base").then(|| load_adapter(&model, &dir.join("adapters").join(name)));
            (name.clone(), adapter)
        };
        let adapters = expected.logprobs.keys().map(load).collect();
        Golden { name: dir.file_name().unwrap().to_string_lossy().into_owned(), model, expected, adapters }
    }

    fn cases(&self) -> Vec<Case<'_>> {
        let mut cases = Vec::new();
        for (name, want) in &self.expected.logprobs {
            for (tokens, want) in self.expected.sequences.iter().zip(want) {
                let label = format!("{} + {name}, {} tokens", self.name, tokens.len());
                cases.push(Case { label, tokens, adapter: self.adapters[name].as_ref(), want });
            }
        }
        cases
    }
}

fn bases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bases")
}

fn load_adapter(model: &Model, dir: &Path) -> Adapter {
    let limits = Limits::default();
    let refused = |refusals: Vec<adapters::Refusal>| -> String {
        refusals.iter().map(|refusal| format!("{}: {refusal:?}\n", dir.display())).collect()
    };
    let files = Files::read(dir, &limits).unwrap_or_else(|refusals| panic!("{}", refused(refusals)));
    let plan = files.judge(model.base(), &limits).unwrap_or_else(|refusals| panic!("{}", refused(refusals)));
    let weights = Container::parse(files.weights, &limits).unwrap();
    let adapter = Adapter::load(model, &plan, &weights).unwrap();
    assert_eq!(adapter.digest(), plan.digest);
    assert!(adapter.bytes() > 0);
    adapter
}

/// Log-probabilities of each case's tokens after the first, with its sequence taken in steps that end at `cuts(len)`,
/// all cases side by side in every step.
fn score(model: &Model, cases: &[&Case<'_>], cuts: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<f64>> {
    let blocks_of = |case: &Case<'_>| case.tokens.len().div_ceil(BLOCK_TOKENS);
    // Blocks are handed out backwards: their order in memory is not that of the sequence.
    let total: usize = cases.iter().map(|case| blocks_of(case)).sum();
    let mut free = (0..total as u32).rev().map(BlockId);
    let blocks: Vec<Vec<BlockId>> = cases.iter().map(|case| free.by_ref().take(blocks_of(case)).collect()).collect();
    let ends: Vec<Vec<usize>> = cases.iter().map(|case| cuts(case.tokens.len())).collect();
    let mut kv = model.new_kv_cache(total);
    let mut scores = vec![Vec::new(); cases.len()];
    for step in 0..ends.iter().map(Vec::len).max().unwrap_or(0) {
        let (mut tokens, mut sequences, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (i, case) in cases.iter().enumerate() {
            let Some(&end) = ends[i].get(step) else { continue };
            let past = if step == 0 { 0 } else { ends[i][step - 1] };
            let first = tokens.len();
            tokens.extend_from_slice(&case.tokens[past..end]);
            owners.extend((past..end).map(|position| (i, position)));
            sequences.push(SequenceSlice {
                rows: first..tokens.len(),
                past,
                blocks: &blocks[i],
                adapter: case.adapter,
                logits: LogitsRows::All,
                rope_length: case.tokens.len(),
            });
        }
        let mut next_row = 0;
        model.forward(&Batch { tokens: &tokens, sequences: &sequences }, &mut kv, &mut |rows, logits| {
            for (row, logits) in rows.iter().zip(logits.chunks_exact(model.config().vocab_size)) {
                assert_eq!(*row, next_row, "rows come in order");
                next_row += 1;
                let (case, position) = owners[*row];
                if let Some(next) = cases[case].tokens.get(position + 1) {
                    scores[case].push(f64::from(logits[*next as usize]) - kernels::log_sum_exp(logits));
                }
            }
        });
        assert_eq!(next_row, tokens.len(), "every row has logits");
    }
    scores
}

fn whole(length: usize) -> Vec<usize> {
    vec![length]
}

/// A chunk of 5, one of 16, then token by token.
fn chunked(length: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = [5, 21].into_iter().filter(|end| *end < length).collect();
    ends.extend(ends.last().copied().unwrap_or(0) + 1..=length);
    ends
}

fn assert_same_bits(label: &str, how: &str, got: &[f64], want: &[f64]) {
    let same = got.len() == want.len() && got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same, "{label}: {how} differs from alone: {got:?} and {want:?}");
}

/// All checkpoints, adapters and sequences in one element type on one instruction set.
fn agrees_with_the_reference(dtype: Dtype, adapter_dtype: Option<Dtype>, isa: Isa) {
    let of_adapters = adapter_dtype.unwrap_or(dtype);
    let types = format!("{dtype:?} with adapters in {of_adapters:?}");
    let [tolerance, usual_tolerance] = tolerances(dtype, of_adapters);
    let mut worst = 0.0f64;
    let (mut squares, mut tokens) = (0.0, 0);
    let mut count = 0;
    for golden in Golden::all(dtype, adapter_dtype, isa) {
        let cases = golden.cases();
        let mut worst_here = (0.0f64, String::new());
        let alone: Vec<Vec<f64>> = cases.iter().flat_map(|case| score(&golden.model, &[case], whole)).collect();
        for (case, got) in cases.iter().zip(&alone) {
            assert_eq!(got.len(), case.want.len(), "{}", case.label);
            for (got, want) in got.iter().zip(case.want) {
                squares += (got - want).powi(2);
                tokens += 1;
                if (got - want).abs() > worst_here.0 || got.is_nan() {
                    worst_here = ((got - want).abs(), case.label.clone());
                }
            }
        }
        let (name, off, label) = (&golden.name, worst_here.0, &worst_here.1);
        println!("{types} on {isa}, {name}: {} cases, max |Δ log p| = {off:.1e} ({label})", cases.len());
        assert!(off <= tolerance, "{types} on {isa}, {label}: {off:e}");
        worst = worst.max(off);
        count += cases.len();

        let all: Vec<&Case<'_>> = cases.iter().collect();
        for ((case, mixed), alone) in cases.iter().zip(score(&golden.model, &all, whole)).zip(&alone) {
            assert_same_bits(&case.label, "one mixed batch", &mixed, alone);
        }
        for ((case, mixed), alone) in cases.iter().zip(score(&golden.model, &all, chunked)).zip(&alone) {
            assert_same_bits(&case.label, "mixed in chunks, then token by token,", &mixed, alone);
        }
    }
    let usual = (squares / f64::from(tokens)).sqrt();
    println!("{types} on {isa}: {count} cases, |Δ log p|: max {worst:.1e}, rms {usual:.1e}");
    assert!(usual <= usual_tolerance, "{types} on {isa}: {usual:e}");
}

#[test]
fn f32_agrees_with_the_reference_alone_and_mixed_on_every_instruction_set() {
    Isa::available().into_iter().for_each(|isa| agrees_with_the_reference(Dtype::F32, None, isa));
}

#[test]
fn bf16_agrees_with_the_reference_alone_and_mixed_on_every_instruction_set() {
    Isa::available().into_iter().for_each(|isa| agrees_with_the_reference(Dtype::Bf16, None, isa));
}

#[test]
fn int8_agrees_with_the_reference_alone_and_mixed_on_every_instruction_set() {
    Isa::available().into_iter().for_each(|isa| agrees_with_the_reference(Dtype::Int8, None, isa));
}

#[test]
fn adapters_in_another_type_than_the_base_agree_with_the_reference() {
    agrees_with_the_reference(Dtype::Int8, Some(Dtype::Bf16), Isa::best());
    for isa in Isa::available() {
        agrees_with_the_reference(Dtype::F32, Some(Dtype::Int8), isa);
    }
}

#[test]
fn an_adapter_changes_the_output_and_leaves_base_rows_alone() {
    for golden in Golden::all(Dtype::F32, None, Isa::best()) {
        let cases = golden.cases();
        let longest = |name: &str| {
            let own = cases.iter().filter(|case| case.label.contains(&format!("+ {name},")));
            own.max_by_key(|case| case.tokens.len()).unwrap()
        };
        let base = longest("base");
        let plain = score(&golden.model, &[base], whole);
        for name in golden.adapters.keys().filter(|name| *name != "base") {
            let scores = score(&golden.model, &[base, longest(name), base], whole);
            assert_same_bits(&base.label, name, &scores[0], &plain[0]);
            assert_same_bits(&base.label, name, &scores[2], &plain[0]);
            assert_ne!(scores[1], plain[0], "{} + {name} does nothing", golden.name);
        }
    }
}
