//! What is read from a config, and what is refused.

use super::*;
use serde_json::{Value, json};

fn with(changes: Value) -> Result<ModelConfig, String> {
    let mut config = json!({
        "model_type": "qwen2", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    ModelConfig::parse(config.to_string().as_bytes(), None).map_err(|fault| fault.to_string())
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    config.attention.iter().map(|layer| layer.window).collect()
}

#[test]
fn defaults_are_those_of_transformers() {
    let qwen2 = with(json!({})).unwrap();
    assert_eq!((qwen2.head_dim, qwen2.sliding_window, qwen2.context_length), (16, None, 128));
    assert_eq!(qwen2.biases, Biases { qkv: true, o: false, mlp: false });
    assert_eq!((qwen2.bos_token_id, qwen2.eos_token_ids), (None, vec![]));
    let mistral = with(json!({"model_type": "mistral"})).unwrap();
    assert_eq!((mistral.sliding_window, mistral.eos_token_ids), (Some(4096), vec![2]));
    assert_eq!(with(json!({"model_type": "mistral", "sliding_window": null})).unwrap().sliding_window, None);
    assert_eq!(with(json!({"model_type": "qwen3"})).unwrap().head_dim, 128);
    let llama = with(json!({"model_type": "llama", "attention_bias": true, "mlp_bias": true})).unwrap();
    assert_eq!(llama.biases, Biases { qkv: true, o: true, mlp: true });
}

#[test]
fn qwen_windows_need_the_switch_and_begin_at_max_window_layers() {
    let off = json!({"sliding_window": 8, "max_window_layers": 1});
    assert_eq!(windows(&with(off).unwrap()), [None; 3]);
    let on = with(json!({"sliding_window": 8, "max_window_layers": 1, "use_sliding_window": true})).unwrap();
    assert_eq!(windows(&on), [None, Some(8), Some(8)]);
    assert_eq!(on.sliding_window, None);
    let named = json!({
        "sliding_window": 8, "use_sliding_window": true,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    });
    assert_eq!(windows(&with(named).unwrap()), [Some(8), None, Some(8)]);
    let contradiction = json!({"layer_types": ["full_attention", "full_attention", "sliding_attention"]});
    assert!(with(contradiction).unwrap_err().contains("no window is set"));
}

#[test]
fn both_forms_of_rope_settings_mean_the_same() {
    let four = with(json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})).unwrap();
    let five = with(json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2}})).unwrap();
    let linear = json!({"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0});
    let by_type = with(json!({"rope_parameters": {"full_attention": linear}})).unwrap();
    assert_eq!(four, five);
    assert_eq!(four, by_type);
    assert_eq!(four.context_length, 256);
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for (changes, part) in [
        (json!({"model_type": "gpt2"}), "gpt2"),
        (json!({"hidden_act": "gelu"}), "gelu"),
        (json!({"rope_scaling": {"type": "longrope", "factor": 2.0}}), "longrope"),
        (json!({"rope_scaling": {"type": "linear"}}), "factor is missing"),
        (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"layer_types": ["full_attention"]}), "layer_types"),
        (json!({"layer_types": ["linear_attention", "full_attention", "full_attention"]}), "linear_attention"),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        (json!({"num_key_value_heads": 3}), "heads"),
        (json!({"hidden_size": "64"}), "hidden_size"),
        (json!({"vocab_size": null}), "vocab_size is missing"),
        (json!({"head_dim": 7}), "even"),
        (json!({"is_causal": false}), "causal"),
    ] {
        let fault = with(changes.clone()).unwrap_err();
        assert!(fault.contains(part) && fault.starts_with("config.json: "), "{changes} gave {fault:?}");
    }
}

#[test]
fn generation_config_wins_for_eos() {
    let config = br#"{"model_type": "qwen2", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8, "eos_token_id": 3}"#;
    let parse = |generation: &str| ModelConfig::parse(config, Some(generation.as_bytes())).unwrap().eos_token_ids;
    assert_eq!(parse(r#"{"eos_token_id": [5, 6]}"#), [5, 6]);
    assert_eq!(parse(r#"{"eos_token_id": null}"#), [3]);
    assert_eq!(parse("{}"), [3]);
}
