//! `adapter_config.json`, field by field.

use adapters::{Code, Dtype, Limits, LoraConfig, NoteCode, Refusal};
use serde_json::{Value, json};

use crate::synthetic::*;

fn read(text: &str) -> Vec<Refusal> {
    LoraConfig::read(text.as_bytes(), &Limits::default()).refusals
}

#[track_caller]
fn refused(field: &str, value: Value) -> Vec<Code> {
    Adapter::plain().with(field, value).refused(&LLAMA)
}

#[track_caller]
fn accepted(field: &str, value: Value) {
    Adapter::plain().with(field, value).accepted(&LLAMA);
}

#[test]
fn f09_hostile_json_is_refused() {
    for text in [
        r#"{"peft_type": "LORA", "r": 8, "r": 16}"#,
        r#"{"peft_type": "LORA", "rank_pattern": {"a": 1, "a": 2}}"#,
        r#"{"peft_type": "LORA", "lora_alpha": NaN}"#,
        r#"{"peft_type": "LORA", "lora_alpha": Infinity}"#,
        r#"{"peft_type": "LORA", "lora_alpha": 1e999}"#,
        r#"{"peft_type": "LORA"} {}"#,
        r#"{"peft_type": "LORA""#,
        "[]",
        "",
        "\u{feff}{}",
    ] {
        assert_eq!(codes(&read(text)), [Code::Config], "{text}");
    }
    let deep = format!(r#"{{"peft_type": "LORA", "auto_mapping": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(codes(&read(&deep)), [Code::Config]);
    let shallow = format!(r#"{{"peft_type": "LORA", "auto_mapping": {}{}}}"#, "[".repeat(20), "]".repeat(20));
    assert!(read(&shallow)[0].message.contains("nested"));
    let long = format!(r#"{{"peft_type": "LORA", "revision": "{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(codes(&read(&long)), [Code::Quota]);
    let not_utf8 = LoraConfig::read(b"{\"peft_type\": \"LOR\xff\"}", &Limits::default());
    assert_eq!(codes(&not_utf8.refusals), [Code::Config]);
}

#[test]
fn c01_only_lora_is_taken_and_others_are_refused_by_name() {
    for method in ["IA3", "LOHA", "LOKR", "VERA", "OFT", "MISS", "ADALORA", "XLORA", "PREFIX_TUNING", "lora", ""] {
        let refusals = Adapter::plain().with("peft_type", json!(method)).judge(&LLAMA).unwrap_err();
        assert_eq!(codes(&refusals), [Code::PeftType]);
        assert!(refusals[0].message.contains(method));
    }
    for missing in [json!(null), json!(1)] {
        assert_eq!(refused("peft_type", missing), [Code::PeftType]);
    }
    assert_eq!(codes(&read("{}")), [Code::PeftType]);
}

#[test]
fn c02_only_causal_language_modelling_is_taken() {
    accepted("task_type", json!("CAUSAL_LM"));
    accepted("task_type", json!(null));
    for task in ["SEQ_CLS", "TOKEN_CLS", "SEQ_2_SEQ_LM", "QUESTION_ANS", "FEATURE_EXTRACTION", "nonsense"] {
        assert_eq!(refused("task_type", json!(task)), [Code::TaskType], "{task}");
    }
}

#[test]
fn c03_the_stated_base_is_compared_by_name_where_that_is_possible() {
    let named = LLAMA.clone().with_names(["acme/Tiny-Llama".to_owned()]);
    let stated = |name: Value| Adapter::plain().with("base_model_name_or_path", name);
    assert!(note(&stated(json!(null)).accepted(&named), NoteCode::BaseUnstated).is_some());
    for same in ["acme/Tiny-Llama", "acme/tiny-llama"] {
        assert!(stated(json!(same)).accepted(&named).notes.is_empty(), "{same}");
    }
    assert_eq!(stated(json!("meta/other-llama")).refused(&named), [Code::BaseMismatch]);
    assert_eq!(stated(json!("other")).refused(&named), [Code::BaseMismatch]);
    for unknown in ["/home/someone/checkpoints/run-7", "./out", "C:\\models\\x"] {
        assert!(note(&stated(json!(unknown)).accepted(&named), NoteCode::BaseUnverified).is_some(), "{unknown}");
    }
    assert!(note(&stated(json!("meta/other-llama")).accepted(&LLAMA), NoteCode::BaseUnverified).is_some());
    let mapped = named.with_names(["meta/other-llama".to_owned()]);
    assert!(stated(json!("meta/other-llama")).accepted(&mapped).notes.is_empty());
    assert_eq!(mapped.digest(), LLAMA.digest(), "a name is not content");
}

#[test]
fn c04_rank_is_a_whole_number_above_zero() {
    for rank in [json!(0), json!(-1), json!(2.0), json!(true), json!("2"), json!(null)] {
        assert_eq!(refused("r", rank.clone()), [Code::Config], "{rank}");
    }
    let mut eight = Adapter::plain();
    eight.config.as_object_mut().unwrap().remove("r");
    assert_eq!(eight.refused(&LLAMA), [Code::RankConflict], "absent means 8, the tensors have 2");
}

#[test]
fn c05_alpha_is_any_number_and_zero_changes_nothing() {
    let plan = Adapter::plain().with("lora_alpha", json!(-3.5)).accepted(&LLAMA);
    assert_eq!((plan.modules[0].alpha, plan.modules[0].scale), (-3.5, -1.75));
    assert!(plan.receipt.modules[0].delta_norm > 0.0);
    let mut eight = Adapter::plain();
    eight.config.as_object_mut().unwrap().remove("lora_alpha");
    assert_eq!(eight.accepted(&LLAMA).modules[0].alpha, 8.0);
    assert_eq!(refused("lora_alpha", json!(0)), [Code::Noop]);
    for alpha in [json!(true), json!("16"), json!(null), json!([16])] {
        assert_eq!(refused("lora_alpha", alpha), [Code::Config]);
    }
}

#[test]
fn c06_rslora_divides_by_the_root_of_the_rank() {
    let plan = Adapter::plain().with("use_rslora", json!(true)).accepted(&LLAMA);
    assert_eq!(plan.modules[0].scale, 4.0 / 2f64.sqrt());
    assert_eq!(Adapter::plain().accepted(&LLAMA).modules[0].scale, 2.0);
    assert_eq!(refused("use_rslora", json!(1)), [Code::Config]);
}

#[test]
fn c07_dora_needs_its_magnitudes_and_excludes_what_peft_excludes() {
    let dora = Adapter::plain().with("use_dora", json!(true)).with_vectors(&LLAMA, "lora_magnitude_vector");
    let plan = dora.accepted(&LLAMA);
    assert!(plan.modules.iter().all(|module| module.magnitude.is_some()));
    assert_eq!(refused("use_dora", json!(true)), [Code::Missing]);
    let with_bias = dora.clone().with("lora_bias", json!(true)).with_vectors(&LLAMA, "lora_B.bias");
    assert_eq!(with_bias.refused(&LLAMA), [Code::Config]);
    let with_parameters = dora.with("target_parameters", json!(["experts.w"]));
    assert_eq!(with_parameters.refused(&LLAMA), [Code::Unsupported]);
}

#[test]
fn c08_rank_and_alpha_patterns_are_read() {
    let mut adapter = Adapter::lora(&LLAMA, &["q_proj", "v_proj"]);
    for layer in 0..LAYERS {
        let path = format!("model.layers.{layer}.self_attn.q_proj");
        adapter.pair(&path, LLAMA.module(&path).unwrap().kind, 3);
    }
    let adapter = adapter
        .with("rank_pattern", json!({"q_proj": 3}))
        .with("alpha_pattern", json!({"layers.1.self_attn.v_proj": 9.5}));
    let plan = adapter.accepted(&LLAMA);
    let facts: Vec<(usize, f64)> = plan.modules.iter().map(|module| (module.rank, module.alpha)).collect();
    assert_eq!(facts, [(3, 4.0), (2, 4.0), (3, 4.0), (2, 9.5)]);
    for wrong in [json!({"q_proj": 0}), json!({"q_proj": 1.5}), json!({"q_proj": true}), json!(["q_proj"])] {
        assert_eq!(refused("rank_pattern", wrong), [Code::Config]);
    }
    for wrong in [json!({"q_proj": "8"}), json!({"q_proj": null}), json!(8)] {
        assert_eq!(refused("alpha_pattern", wrong), [Code::Config]);
    }
    accepted("rank_pattern", json!(null));
    accepted("alpha_pattern", json!({}));
    let unused = Adapter::plain().with("alpha_pattern", json!({"down_proj": 7})).accepted(&LLAMA);
    assert_eq!(note(&unused, NoteCode::PatternUnused).unwrap().subject, "down_proj");
}

#[test]
fn c09_a_list_of_targets_matches_whole_names_and_dotted_ends() {
    accepted("target_modules", json!(["self_attn.q_proj", "v_proj"]));
    accepted(
        "target_modules",
        json!(["v_proj", "model.layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "v_proj"]),
    );
    assert_eq!(refused("target_modules", json!(["q_proj"])), [Code::Untargeted]);
    assert_eq!(refused("target_modules", json!(["proj"])), [Code::NoTarget, Code::Untargeted]);
    assert_eq!(refused("target_modules", json!([1])), [Code::Config]);
    assert_eq!(refused("target_modules", json!({"q_proj": 1})), [Code::Config]);
}

#[test]
fn c10_a_string_target_matches_the_whole_name_and_all_linear_is_special() {
    accepted("target_modules", json!(r".*\.self_attn\.(q|v)_proj"));
    accepted("target_modules", json!(r"model.layers.\d+.self_attn.[qv]_proj"));
    assert!(refused("target_modules", json!(r"self_attn\.(q|v)_proj")).contains(&Code::NoTarget));
    let linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    for spelling in ["all-linear", "All-Linear"] {
        let plan = Adapter::lora(&LLAMA, &linears).with("target_modules", json!(spelling)).accepted(&LLAMA);
        assert_eq!(plan.modules.len(), 7 * LAYERS);
    }
    let with_head =
        Adapter::lora(&LLAMA, &[&linears[..], &["lm_head"]].concat()).with("target_modules", json!("all-linear"));
    assert_eq!(with_head.refused(&LLAMA), [Code::Untargeted]);
}

#[test]
fn c11_no_targets_mean_those_of_the_family() {
    accepted("target_modules", json!(null));
    let keys = Adapter::lora(&LLAMA, &["k_proj"]).with("target_modules", json!(null));
    assert_eq!(keys.refused(&LLAMA), [Code::Untargeted, Code::Missing]);
}

#[test]
fn c12_an_empty_list_of_targets_is_refused() {
    assert!(refused("target_modules", json!([])).contains(&Code::NoTarget));
    assert!(refused("target_modules", json!("")).contains(&Code::NoTarget));
}

#[test]
fn c13_exclusions_win() {
    let keys_too = Adapter::plain().with("target_modules", json!(["q_proj", "v_proj", "k_proj"]));
    assert_eq!(keys_too.refused(&LLAMA), [Code::Missing]);
    for exclude in [json!(["k_proj"]), json!(["self_attn.k_proj"]), json!(r".*k_proj")] {
        keys_too.clone().with("exclude_modules", exclude).accepted(&LLAMA);
    }
    for exclude in [json!([]), json!(null), json!(""), json!(["proj"]), json!("k_proj")] {
        assert_eq!(keys_too.clone().with("exclude_modules", exclude).refused(&LLAMA), [Code::Missing]);
    }
    assert_eq!(refused("exclude_modules", json!(["q_proj"])), [Code::Untargeted]);
}

#[test]
fn c14_saved_modules_of_the_vocabulary_are_private_and_others_refused() {
    let weight = || Tensor::random(&[VOCAB, HIDDEN], 77);
    for (base, name, path) in
        [(&LLAMA, "lm_head", "lm_head"), (&QWEN3, "lm_head", "lm_head"), (&QWEN3, "embed_tokens", "model.embed_tokens")]
    {
        let adapter = Adapter::lora(base, &["q_proj"]).with("modules_to_save", json!([name]));
        let plan = adapter.clone().tensor(&format!("{path}.weight"), weight()).accepted(base);
        let private = &plan.private[0];
        assert_eq!(
            (plan.private.len(), private.module.as_str(), private.bytes),
            (1, path, (VOCAB * HIDDEN * 4) as u64)
        );
        assert_eq!(plan.bytes, plan.receipt.bytes);
        assert!(plan.bytes > private.bytes);
        assert_eq!(note(&plan, NoteCode::PrivateUntie).is_some(), base.tied_embeddings());
        // as a raw dump of the training run names them
        let dumped = adapter.clone().tensor(&format!("{path}.modules_to_save.default.weight"), weight());
        assert_eq!(dumped.accepted(base).private.len(), 1);
        assert_eq!(adapter.refused(base), [Code::Missing]);
        let resized = adapter.tensor(&format!("{path}.weight"), Tensor::random(&[VOCAB + 4, HIDDEN], 7));
        assert_eq!(resized.refused(base), [Code::VocabChanged]);
    }
    for name in ["norm", "model.norm", "up_proj", "mlp", "model.layers.0"] {
        assert!(refused("modules_to_save", json!([name])).contains(&Code::FullModule), "{name}");
    }
    let absent = Adapter::plain().with("modules_to_save", json!(["score"])).accepted(&LLAMA);
    assert!(note(&absent, NoteCode::TargetAbsent).is_some());
}

#[test]
fn c14_a_saved_module_is_no_lora_target() {
    let adapter = Adapter::lora(&LLAMA, &["q_proj"])
        .with("modules_to_save", json!(["lm_head"]))
        .with("target_modules", json!(["q_proj", "lm_head"]))
        .tensor("lm_head.weight", Tensor::random(&[VOCAB, HIDDEN], 5));
    let plan = adapter.accepted(&LLAMA);
    assert!(plan.modules.iter().all(|module| module.module.ends_with("q_proj")));
}

#[test]
fn c15_layers_are_chosen_by_index_and_zero_is_one() {
    let only = |layer: usize| {
        let mut adapter = Adapter::plain();
        adapter.tensors.retain(|name, _| name.contains(&format!("layers.{layer}.")));
        adapter
    };
    for layer in 0..LAYERS {
        for layers in [json!(layer), json!([layer])] {
            let plan = only(layer).with("layers_to_transform", layers).accepted(&LLAMA);
            assert_eq!(plan.modules.len(), 2);
        }
    }
    assert_eq!(only(0).with("layers_to_transform", json!(1)).refused(&LLAMA), [Code::Untargeted, Code::Missing]);
    accepted("layers_to_transform", json!([0, 1]));
    accepted("layers_to_transform", json!([]));
    for wrong in [json!("0"), json!(0.5), json!([0.5]), json!(true)] {
        assert_eq!(refused("layers_to_transform", wrong), [Code::Config]);
    }
    for target in ["all-linear", ".*q_proj"] {
        let by_string = Adapter::plain().with("target_modules", json!(target)).with("layers_to_transform", json!([0]));
        assert_eq!(by_string.refused(&LLAMA), [Code::Config]);
    }
}

#[test]
fn c16_a_layers_pattern_needs_layers_and_says_where_the_index_stands() {
    let both = Adapter::plain().with("layers_to_transform", json!([0, 1]));
    for pattern in [json!("layers"), json!(["layers"]), json!(["h", "layers"]), json!(""), json!([]), json!(null)] {
        both.clone().with("layers_pattern", pattern).accepted(&LLAMA);
    }
    assert!(both.with("layers_pattern", json!("h")).refused(&LLAMA).contains(&Code::NoTarget));
    assert_eq!(refused("layers_pattern", json!("layers")), [Code::Config]);
    let by_string =
        Adapter::plain().with("target_modules", json!(".*[qv]_proj")).with("layers_pattern", json!("layers"));
    assert_eq!(by_string.refused(&LLAMA), [Code::Config]);
}

#[test]
fn c17_trained_biases_replace_those_of_the_base_and_may_not_be_absent() {
    let all = || {
        let mut adapter = Adapter::plain().with("bias", json!("all"));
        for (path, module) in LLAMA.modules() {
            if let adapters::ModuleKind::Linear { out_features, bias: true, .. } = module.kind {
                let middle = if adapter.modules().contains(path) { ".base_layer" } else { "" };
                adapter = adapter.tensor(&format!("{path}{middle}.bias"), Tensor::random(&[out_features], 9));
            }
        }
        adapter
    };
    let plan = all().accepted(&LLAMA);
    assert_eq!(plan.biases.len(), 7 * LAYERS);
    assert_eq!(plan.receipt.biases.len(), 7 * LAYERS);

    let lora_only = |name: &str| {
        let mut adapter = Adapter::plain().with("bias", json!("lora_only")).with_vectors(&LLAMA, name);
        adapter.config["r"] = json!(2);
        adapter
    };
    assert_eq!(lora_only("base_layer.bias").accepted(&LLAMA).biases.len(), 4);
    assert_eq!(lora_only("bias").accepted(&LLAMA).biases.len(), 4, "as old releases named them");

    for bias in ["all", "lora_only"] {
        assert_eq!(refused("bias", json!(bias)), [Code::Missing], "{bias}");
        let unbiased = Adapter::lora(&QWEN3, &["q_proj"]).with("bias", json!(bias));
        assert!(unbiased.accepted(&QWEN3).biases.is_empty(), "a base without biases has none to train");
    }
    assert_eq!(all().with("bias", json!("none")).refused(&LLAMA), [Code::Undeclared]);
    assert_eq!(all().with("bias", json!("lora_only")).refused(&LLAMA), [Code::Untargeted]);
    assert_eq!(all().tensor("model.layers.0.mlp.up_proj.bias", Tensor::zeros(&[3])).refused(&LLAMA), [Code::Shape]);
    assert_eq!(all().tensor("lm_head.bias", Tensor::zeros(&[VOCAB])).refused(&LLAMA), [Code::Shape]);
    assert_eq!(refused("bias", json!("some")), [Code::Config]);
}

#[test]
fn c18_the_bias_of_b_is_read_and_refused_where_peft_refuses_it() {
    let biased =
        |base| Adapter::lora(base, &["q_proj"]).with("lora_bias", json!(true)).with_vectors(base, "lora_B.bias");
    for base in [&*LLAMA, &*QWEN3] {
        let plan = biased(base).accepted(base);
        assert!(plan.modules.iter().all(|module| module.lora_bias.is_some()));
        assert!(plan.receipt.modules[0].lora_bias);
    }
    assert_eq!(refused("lora_bias", json!(true)), [Code::Missing]);
    assert_eq!(biased(&LLAMA).with("lora_bias", json!(false)).refused(&LLAMA), [Code::Undeclared]);
    assert_eq!(biased(&LLAMA).with("init_lora_weights", json!("gaussian")).refused(&LLAMA), [Code::Config]);
    let embedding =
        Adapter::lora(&LLAMA, &["embed_tokens"]).with("lora_bias", json!(true)).with_vectors(&LLAMA, "lora_B.bias");
    assert_eq!(embedding.refused(&LLAMA), [Code::Config]);
}

#[test]
fn c19_fan_in_fan_out_has_no_effect_on_linears() {
    let plan = Adapter::plain().with("fan_in_fan_out", json!(true)).accepted(&LLAMA);
    assert!(note(&plan, NoteCode::IgnoredField).is_some());
    assert_eq!(plan.digest, Adapter::plain().accepted(&LLAMA).digest);
}

#[test]
fn c20_dropout_is_ignored() {
    let plan = Adapter::plain().with("lora_dropout", json!(0.1)).accepted(&LLAMA);
    assert_eq!(plan.digest, Adapter::plain().accepted(&LLAMA).digest);
}

#[test]
fn c21_initialisations_that_change_the_base_are_refused_until_converted() {
    for neutral in
        [json!(true), json!(false), json!("gaussian"), json!("orthogonal"), json!("eva"), json!("mica"), json!(null)]
    {
        accepted("init_lora_weights", neutral);
    }
    for mutating in ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "lora_ga", "loftq"] {
        assert_eq!(refused("init_lora_weights", json!(mutating)), [Code::BaseMutating], "{mutating}");
    }
    assert_eq!(refused("init_lora_weights", json!("something-new")), [Code::UnknownSemantics]);
    assert_eq!(refused("init_lora_weights", json!(3)), [Code::Config]);
}

#[test]
fn c22_variants_with_another_base_or_other_arithmetic_are_refused() {
    for (field, value) in [
        ("loftq_config", json!({"loftq_bits": 4})),
        ("kasa_config", json!({"beta": 1e-4})),
        ("use_qalora", json!(true)),
    ] {
        assert_eq!(refused(field, value), [Code::BaseMutating], "{field}");
    }
    for field in ["use_bdlora", "monteclora_config", "arrow_config"] {
        assert_eq!(refused(field, json!({"nblocks": 2})), [Code::Unsupported], "{field}");
    }
    for field in ["eva_config", "corda_config", "lora_ga_config", "velora_config"] {
        accepted(field, json!({"rho": 2.0}));
    }
}

#[test]
fn c23_alora_is_refused() {
    assert_eq!(refused("alora_invocation_tokens", json!([1, 2])), [Code::Unsupported]);
    accepted("alora_invocation_tokens", json!(null));
}

#[test]
fn c24_layer_replication_is_refused() {
    assert_eq!(refused("layer_replication", json!([[0, 1], [0, 2]])), [Code::Unsupported]);
}

#[test]
fn c25_target_parameters_are_refused() {
    assert_eq!(refused("target_parameters", json!(["experts.gate_up_proj"])), [Code::Unsupported]);
}

#[test]
fn c26_trainable_tokens_are_refused() {
    assert_eq!(refused("trainable_token_indices", json!([1])), [Code::Unsupported]);
    assert_eq!(refused("trainable_token_indices", json!({"embed_tokens": [1]})), [Code::Unsupported]);
}

#[test]
fn c27_megatron_defaults_are_ignored() {
    accepted("megatron_core", json!("megatron.core"));
    accepted("megatron_config", json!(null));
    assert_eq!(refused("megatron_config", json!({"tensor_model_parallel_size": 2})), [Code::Unsupported]);
}

#[test]
fn c28_tying_is_refused_where_it_means_something() {
    let tied = Adapter::lora(&QWEN3, &["embed_tokens"]).with("ensure_weight_tying", json!(true));
    assert_eq!(tied.refused(&QWEN3), [Code::Unsupported]);
    let elsewhere = Adapter::lora(&QWEN3, &["q_proj"]).with("ensure_weight_tying", json!(true)).accepted(&QWEN3);
    assert!(note(&elsewhere, NoteCode::IgnoredField).is_some());
    let untied = Adapter::lora(&LLAMA, &["embed_tokens"]).with("ensure_weight_tying", json!(true));
    untied.accepted(&LLAMA);
}

#[test]
fn c29_bookkeeping_is_ignored() {
    let digest = Adapter::plain().accepted(&LLAMA).digest;
    for (field, value) in [
        ("inference_mode", json!(true)),
        ("auto_mapping", json!({"base_model_class": "X", "parent_library": "y"})),
        ("peft_version", json!("0.21.2")),
        ("runtime_config", json!({"ephemeral_gpu_offload": true})),
        ("revision", json!("main")),
    ] {
        let plan = Adapter::plain().with(field, value).accepted(&LLAMA);
        assert_eq!(plan.digest, digest, "{field}");
    }
    let plan = Adapter::plain().with("peft_version", json!("0.21.2")).accepted(&LLAMA);
    assert_eq!(plan.receipt.peft_version.as_deref(), Some("0.21.2"));
}

#[test]
fn c30_unknown_fields_are_noted_if_neutral_and_refused_if_not() {
    for neutral in [json!(null), json!(false), json!({}), json!([]), json!("")] {
        let plan = Adapter::plain().with("use_next_year", neutral).accepted(&LLAMA);
        assert_eq!(note(&plan, NoteCode::UnknownField).unwrap().subject, "use_next_year");
    }
    for meaning in [json!(true), json!(1), json!("x"), json!([0]), json!({"a": null})] {
        assert_eq!(refused("use_next_year", meaning), [Code::UnknownSemantics]);
    }
}

/// As each release writes a plain adapter: every field at its default.
fn written_by_release() -> Vec<(&'static str, Value)> {
    let v0_4 = json!({"auto_mapping": null, "base_model_name_or_path": "x", "bias": "none", "fan_in_fan_out": false,
        "inference_mode": true, "init_lora_weights": true, "layers_pattern": null, "layers_to_transform": null,
        "lora_alpha": 4, "lora_dropout": 0.05, "modules_to_save": null, "peft_type": "LORA", "r": 2, "revision": null,
        "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"});
    let with = |earlier: &Value, fields: Value| {
        let mut config = earlier.clone();
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    };
    let v0_2 = with(&v0_4, json!({"enable_lora": null, "merge_weights": false}));
    let v0_6 = with(&v0_4, json!({"alpha_pattern": {}, "rank_pattern": {}}));
    let v0_9 = with(
        &v0_6,
        json!({"loftq_config": {}, "megatron_config": null, "megatron_core": "megatron.core",
        "use_rslora": false, "use_dora": false}),
    );
    let v0_13 = with(&v0_9, json!({"layer_replication": null}));
    let v0_15 = with(
        &v0_13,
        json!({"corda_config": null, "eva_config": null, "exclude_modules": null, "lora_bias": false,
        "trainable_token_indices": null}),
    );
    let v0_17 = with(&v0_15, json!({"qalora_group_size": 16, "target_parameters": null, "use_qalora": false}));
    let v0_18 = with(
        &v0_17,
        json!({"alora_invocation_tokens": null, "arrow_config": null, "ensure_weight_tying": false,
        "peft_version": "0.18.0"}),
    );
    let v0_21 = with(
        &v0_18,
        json!({"kasa_config": null, "lora_ga_config": null, "monteclora_config": null,
        "peft_version": "0.21.2", "use_bdlora": null, "velora_config": null}),
    );
    let trained = with(
        &v0_17,
        json!({"auto_mapping": {"base_model_class": "LlamaForCausalLM",
        "parent_library": "transformers.models.llama.modeling_llama"}, "init_lora_weights": "gaussian"}),
    );
    vec![
        ("0.2", v0_2),
        ("0.4", v0_4),
        ("0.6", v0_6),
        ("0.9", v0_9),
        ("0.13", v0_13),
        ("0.15", v0_15),
        ("0.17", v0_17),
        ("0.18", v0_18),
        ("0.21", v0_21),
        ("a training tool", trained),
    ]
}

#[test]
fn c30a_what_every_release_writes_is_accepted_without_a_remark() {
    let mut digests = std::collections::BTreeSet::new();
    for (release, config) in written_by_release() {
        let plan = Adapter { config, ..Adapter::plain() }.accepted(&LLAMA);
        let remarks: Vec<_> = plan.notes.iter().filter(|note| note.code != NoteCode::BaseUnverified).collect();
        assert!(remarks.is_empty(), "{release}: {remarks:?}");
        digests.insert(plan.digest);
    }
    assert_eq!(digests.len(), 1, "all of them mean the same");
}

#[test]
fn c31_look_around_and_back_references_work_and_what_cannot_be_decided_is_refused() {
    accepted("target_modules", json!(r"(?!.*mlp).*(?<=self_attn\.)(q|v)_proj"));
    accepted("target_modules", json!(r".*\.layers\.(?P<n>\d)\.(?!\1)self_attn\.[qv]_proj"));
    for undecidable in
        [r"(", r"*", r"[a", r"a{2,1}", r"a\", r"\hq_proj", r"[a&&b]", r"[[:alpha:]]", r"\p{L}+", r"\x{41}"]
    {
        assert!(refused("target_modules", json!(undecidable)).contains(&Code::Pattern), "{undecidable}");
    }
    let endless = r"((?=.)(\w|\w\w|\.)*)*(?<!x)!";
    assert!(refused("target_modules", json!(endless)).contains(&Code::Pattern));
    let huge = format!("({}){{500}}", r"\w{500}");
    assert!(refused("target_modules", json!(huge)).contains(&Code::Pattern));
    for field in ["rank_pattern", "alpha_pattern"] {
        assert!(refused(field, json!({"(": 2})).contains(&Code::Pattern), "{field}");
    }
    assert!(refused("modules_to_save", json!(["("])).contains(&Code::Pattern));
    assert!(refused("exclude_modules", json!("(")).contains(&Code::Pattern));
}

#[test]
fn all_faults_come_at_once() {
    let mut adapter =
        Adapter::plain().with("r", json!(0)).with("task_type", json!("SEQ_CLS")).with("use_next_year", json!(1));
    adapter.tensors.first_entry().unwrap().get_mut().values[0] = f32::NAN;
    adapter.tensors.last_entry().unwrap().get_mut().dtype = Dtype::I64;
    let adapter = adapter.without("model.layers.0.self_attn.v_proj.lora_B.weight");
    let expected = [Code::Dtype, Code::NonFinite, Code::Config, Code::TaskType, Code::UnknownSemantics, Code::Unpaired];
    assert_eq!(adapter.refused(&LLAMA), expected);
}
