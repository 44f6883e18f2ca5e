//! The mutation suite: a good adapter, broken in one way, is refused with the code of that way.

use adapters::{Code, Dtype};
use serde_json::json;

use crate::synthetic::*;

const A: &str = "model.layers.0.self_attn.q_proj.lora_A.weight";
const B: &str = "model.layers.0.self_attn.q_proj.lora_B.weight";

fn tensor(name: &str) -> Tensor {
    Adapter::plain().tensors[&format!("{PREFIX}{name}")].clone()
}

#[test]
fn x_dropping_any_tensor_is_refused() {
    let full = Adapter::lora(&LLAMA, &["q_proj", "down_proj", "embed_tokens"]).with("lora_bias", json!(false));
    for name in full.tensors.keys() {
        let mut mutated = full.clone();
        mutated.tensors.remove(name);
        assert_eq!(mutated.refused(&LLAMA), [Code::Unpaired], "{name}");
    }
}

#[test]
fn x_swapping_a_and_b_is_refused() {
    assert_eq!(Adapter::plain().tensor(A, tensor(B)).tensor(B, tensor(A)).refused(&LLAMA), [Code::Shape]);
}

#[test]
fn x_transposing_b_is_refused() {
    let mut transposed = tensor(B);
    transposed.shape.reverse();
    assert_eq!(Adapter::plain().tensor(B, transposed).refused(&LLAMA), [Code::Shape]);
}

#[test]
fn x_shifting_layers_by_one_is_refused() {
    let shifted =
        Adapter::plain().renamed(|name| name.replace("layers.1.", "layers.2.").replace("layers.0.", "layers.1."));
    assert_eq!(shifted.refused(&LLAMA), [Code::BaseMismatch, Code::Missing]);
}

#[test]
fn x_renaming_the_prefix_is_refused() {
    let renamed =
        Adapter::plain().renamed(|name| name.replace("base_model.model.model.", "base_model.model.transformer."));
    assert_eq!(renamed.refused(&LLAMA), [Code::BaseMismatch, Code::Missing]);
}

#[test]
fn x_the_wrong_base_is_refused() {
    let other = write_and_read(|dir| {
        write_base(dir, "llama", false, true);
        let mut config = base_config("llama", false);
        config["hidden_size"] = json!(2 * HIDDEN);
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let wider = base_tensors("llama", false, true).into_iter().map(|(name, tensor)| {
            let shape: Vec<usize> =
                tensor.shape.iter().map(|extent| if *extent == HIDDEN { 2 * HIDDEN } else { *extent }).collect();
            (name, Tensor::random(&shape, 1))
        });
        std::fs::write(dir.join("model.safetensors"), safetensors(&wider.collect())).unwrap();
    });
    assert_eq!(Adapter::plain().refused(&other), [Code::Shape]);
}

#[test]
fn x_nan_is_refused() {
    let mut poisoned = tensor(A);
    poisoned.values[5] = f32::NAN;
    assert_eq!(Adapter::plain().tensor(A, poisoned).refused(&LLAMA), [Code::NonFinite]);
}

#[test]
fn x_a_rank_conflict_is_refused() {
    assert_eq!(Adapter::plain().with("r", json!(8)).refused(&LLAMA), [Code::RankConflict]);
}

#[test]
fn x_an_alpha_overlap_is_refused() {
    let overlap = json!({"q_proj": 1, ".*_proj": 2});
    assert_eq!(Adapter::plain().with("alpha_pattern", overlap).refused(&LLAMA), [Code::PatternAmbiguous]);
}

#[test]
fn x_a_pickle_under_the_right_name_is_refused() {
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend([0; 64]);
    for file in [b"\x80\x02}q\x00.".to_vec(), zip] {
        let refusal = parse(file).unwrap_err();
        assert!(matches!(refusal.code, Code::Container | Code::Quota), "{refusal}");
    }
}

#[test]
fn x_an_unconverted_pissa_is_refused() {
    assert_eq!(Adapter::plain().with("init_lora_weights", json!("pissa")).refused(&LLAMA), [Code::BaseMutating]);
}

#[test]
fn x_a_saved_module_that_is_not_kept_is_refused() {
    let adapter = Adapter::plain()
        .with("modules_to_save", json!(["model.norm"]))
        .tensor("model.norm.weight", Tensor::zeros(&[HIDDEN]));
    assert_eq!(adapter.refused(&LLAMA), [Code::FullModule]);
}

#[test]
fn x_a_zero_adapter_is_refused() {
    let mut zero = Adapter::plain();
    zero.tensors.values_mut().for_each(|tensor| tensor.values.fill(0.0));
    assert_eq!(zero.refused(&LLAMA), [Code::Noop]);
}

#[test]
fn x_a_strange_tensor_or_type_is_refused() {
    assert_eq!(Adapter::plain().tensor("extra", Tensor::zeros(&[1])).refused(&LLAMA), [Code::UnknownTensor]);
    assert_eq!(Adapter::plain().tensor(A, tensor(A).stored_as(Dtype::I8)).refused(&LLAMA), [Code::Dtype]);
}

#[test]
fn x_no_single_flipped_byte_of_the_config_panics_or_is_misread_as_another_adapter() {
    let adapter = Adapter::plain();
    let (text, weights) = (adapter.config.to_string().into_bytes(), adapter.container());
    for index in 0..text.len() {
        for byte in [0u8, b'"', b'{', b'9', 0xff] {
            let mut mutated = text.clone();
            mutated[index] = byte;
            if let Ok(plan) = adapters::resolve(&mutated, &weights, &LLAMA, &adapters::Limits::default()) {
                assert_eq!(plan.modules.len(), 4);
            }
        }
    }
}
