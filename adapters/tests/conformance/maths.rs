//! The numbers of a plan: ranks, alphas, scales, norms and digests. What they do to logits is tested where they are
//! served.

use adapters::{Code, NoteCode, Plan};
use serde_json::json;

use crate::synthetic::*;

/// ‖scale · B A‖ the plain way.
pub fn naive_norm(a: &Tensor, b: &Tensor, scale: f64) -> f64 {
    let (rank, input, output) = (a.shape[0], a.shape[1], b.shape[0]);
    let mut squared = 0.0;
    for o in 0..output {
        for i in 0..input {
            let product = |r: usize| f64::from(b.values[o * rank + r]) * f64::from(a.values[r * input + i]);
            squared += ((0..rank).map(product).sum::<f64>() * scale).powi(2);
        }
    }
    squared.sqrt()
}

fn module<'a>(plan: &'a Plan, path: &str) -> &'a adapters::ModulePlan {
    plan.modules.iter().find(|module| module.module == path).unwrap()
}

const Q: &str = "model.layers.0.self_attn.q_proj";
const V: &str = "model.layers.0.self_attn.v_proj";

/// `q_proj` of layer 0 with `rank`, the rest with 2.
fn with_rank(rank: usize) -> Adapter {
    let mut adapter = Adapter::plain();
    adapter.pair(Q, LLAMA.module(Q).unwrap().kind, rank);
    adapter.with("rank_pattern", json!({"layers.0.self_attn.q_proj": rank}))
}

#[test]
fn m_rank_and_alpha_are_looked_up_independently() {
    let plan = with_rank(5).with("alpha_pattern", json!({"v_proj": 3})).accepted(&LLAMA);
    assert_eq!((module(&plan, Q).rank, module(&plan, Q).alpha), (5, 4.0));
    assert_eq!((module(&plan, V).rank, module(&plan, V).alpha), (2, 3.0));
}

#[test]
fn m_scale_uses_the_patterned_rank() {
    let plan = with_rank(5).accepted(&LLAMA);
    assert_eq!(module(&plan, Q).scale, 4.0 / 5.0);
    let plan =
        with_rank(5).with("use_rslora", json!(true)).with("alpha_pattern", json!({"q_proj": 7})).accepted(&LLAMA);
    assert_eq!(module(&plan, Q).scale, 7.0 / 5f64.sqrt());
    assert_eq!(module(&plan, V).scale, 4.0 / 2f64.sqrt());
}

#[test]
fn m_the_norm_is_that_of_the_scaled_product() {
    for rank in [1, 3, 8, 11] {
        let adapter = with_rank(rank).with("lora_alpha", json!(-1.75));
        let plan = adapter.accepted(&LLAMA);
        for (planned, measured) in plan.modules.iter().zip(&plan.receipt.modules) {
            let (a, b) = (&adapter.tensors[&planned.a.name], &adapter.tensors[&planned.b.name]);
            let expected = naive_norm(a, b, planned.scale);
            assert!((measured.delta_norm - expected).abs() <= 1e-12 * expected, "{} {rank}", planned.module);
        }
        let total: f64 = plan.receipt.modules.iter().map(|module| module.delta_norm.powi(2)).sum();
        assert!((plan.receipt.delta_norm - total.sqrt()).abs() < 1e-12);
    }
}

#[test]
fn m_the_norm_of_an_embedding_change_is_that_of_its_product() {
    let adapter = Adapter::lora(&QWEN3, &["embed_tokens"]);
    let plan = adapter.accepted(&QWEN3);
    let planned = &plan.modules[0];
    let expected = naive_norm(&adapter.tensors[&planned.a.name], &adapter.tensors[&planned.b.name], 2.0);
    assert!((plan.receipt.modules[0].delta_norm - expected).abs() <= 1e-12 * expected);
}

#[test]
fn m_a_converted_adapter_is_the_difference_of_two() {
    // [A | A₀] · [B | −B₀]ᵀ with rank 2r: a change that cancels out has no norm
    let plain = Adapter::plain();
    let doubled = |negate: bool| {
        let mut adapter = plain.clone().with("r", json!(4)).with("lora_alpha", json!(8));
        for (name, tensor) in &mut adapter.tensors {
            let original = tensor.clone();
            if name.contains("lora_A") {
                tensor.shape[0] = 4;
                tensor.values.extend(original.values);
            } else {
                let sign = if negate { -1.0 } else { 1.0 };
                tensor.shape[1] = 4;
                tensor.values =
                    original.values.chunks(2).flat_map(|row| [row[0], row[1], sign * row[0], sign * row[1]]).collect();
            }
        }
        adapter
    };
    let (single, twice) = (plain.accepted(&LLAMA), doubled(false).accepted(&LLAMA));
    for (one, two) in single.receipt.modules.iter().zip(&twice.receipt.modules) {
        assert_eq!(one.scale, two.scale);
        assert!((2.0 * one.delta_norm - two.delta_norm).abs() < 1e-12 * two.delta_norm);
    }
    assert_eq!(doubled(true).refused(&LLAMA), [Code::Noop]);
}

#[test]
fn m_a_change_is_too_large_by_its_norm_and_not_by_a_bound_of_it() {
    // One large value in each tensor, which do not meet: bounds by magnitude say 1e40, the norm is about 1e20.
    let spread = |value: f32| {
        let mut adapter = Adapter::plain();
        for (name, tensor) in &mut adapter.tensors {
            let at = if name.contains("lora_A") { 0 } else { 1 };
            tensor.values[at] = value;
        }
        adapter
    };
    assert!(spread(1e20).accepted(&LLAMA).receipt.delta_norm < 1e22);
    assert_eq!(spread(1e38).with("lora_alpha", json!(400)).refused(&LLAMA), [Code::NonFinite]);
}

#[test]
fn m_a_change_of_one_element_anywhere_is_one() {
    for (row, column) in [(0, 0), (1, 3), (KEY - 1, HIDDEN - 1)] {
        let mut adapter = Adapter::plain();
        for (name, tensor) in &mut adapter.tensors {
            tensor.values.fill(0.0);
            if name.contains("layers.1.self_attn.v_proj") {
                tensor.values[if name.contains("lora_A") { column } else { 2 * row }] = 0.5;
            }
        }
        let plan = adapter.accepted(&LLAMA);
        assert_eq!(plan.notes.iter().filter(|note| note.code == NoteCode::ZeroDelta).count(), plan.modules.len() - 1);
    }
}

#[test]
fn m_padding_changes_no_norm_if_the_scale_is_kept() {
    let plain = Adapter::plain();
    let mut padded = plain.clone().with("r", json!(3)).with("lora_alpha", json!(6));
    for (name, tensor) in &mut padded.tensors {
        if name.contains("lora_A") {
            tensor.shape[0] = 3;
            tensor.values.extend([0.0; HIDDEN]);
        } else {
            tensor.shape[1] = 3;
            tensor.values = tensor.values.chunks(2).flat_map(|row| [row[0], row[1], 0.0]).collect();
        }
    }
    for (one, other) in plain.accepted(&LLAMA).receipt.modules.iter().zip(&padded.accepted(&LLAMA).receipt.modules) {
        assert_eq!((one.scale, one.delta_norm), (other.scale, other.delta_norm));
    }
}

#[test]
fn m_the_receipt_counts_what_is_used() {
    let plan = Adapter::plain().accepted(&LLAMA);
    let parameters = LAYERS * (2 * HIDDEN + QUERY * 2 + 2 * HIDDEN + KEY * 2);
    assert_eq!(plan.receipt.parameters, parameters as u64);
    assert_eq!(plan.bytes, 4 * parameters as u64);
    assert_eq!((plan.receipt.rank_max, plan.receipt.modules.len()), (2, 4));
    assert_eq!((plan.receipt.digest, plan.receipt.base_digest), (plan.digest, LLAMA.digest()));
    let json = serde_json::to_value(&plan.receipt).unwrap();
    assert_eq!(json["modules"][0]["variant"], "lora");
}

#[test]
fn m_the_digest_names_content_and_nothing_else() {
    let digest = Adapter::plain().accepted(&LLAMA).digest;
    let same = [
        Adapter::plain().with("target_modules", json!(["v_proj", "q_proj", "q_proj"])),
        Adapter::plain().with("base_model_name_or_path", json!("somewhere")),
        Adapter::plain().with("rank_pattern", json!({})),
    ];
    for adapter in same {
        assert_eq!(adapter.accepted(&LLAMA).digest, digest);
    }
    let mut other_bytes = Adapter::plain();
    other_bytes.tensors.first_entry().unwrap().get_mut().values[0] += 0.25;
    let mut other_type = Adapter::plain();
    other_type.tensors.first_entry().unwrap().get_mut().dtype = adapters::Dtype::BF16;
    let different = [
        other_bytes,
        other_type,
        Adapter::plain().with("lora_alpha", json!(5)),
        Adapter::plain().with("use_rslora", json!(true)),
        Adapter::plain().with("alpha_pattern", json!({"v_proj": 5})),
    ];
    let mut digests = vec![digest];
    digests.extend(different.map(|adapter| adapter.accepted(&LLAMA).digest));
    let other_base = write_and_read(|dir| {
        write_base(dir, "llama", false, true);
        std::fs::write(dir.join("tokenizer.json"), "{ }").unwrap();
    });
    digests.push(Adapter::plain().accepted(&other_base).digest);
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}
