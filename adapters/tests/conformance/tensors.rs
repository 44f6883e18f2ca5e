//! Tensor keys.

use adapters::receipt::ModuleReceipt;
use adapters::{Code, Dtype, NoteCode};
use serde_json::json;

use crate::synthetic::*;

fn swap_prefix(from: &'static str, to: &'static str) -> impl Fn(&str) -> String {
    move |name| format!("{to}{}", name.strip_prefix(from).unwrap_or(name))
}

#[test]
fn t01_canonical_keys_make_a_plan() {
    let plan = Adapter::plain().accepted(&LLAMA);
    let first = &plan.modules[0];
    assert_eq!(first.module, "model.layers.0.self_attn.q_proj");
    assert_eq!(first.a.name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_eq!(first.b.name, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
    assert_eq!((first.rank, first.alpha, first.scale), (2, 4.0, 2.0));
    assert_eq!((&first.a.rows, &first.b.rows, &first.magnitude, &first.lora_bias), (&None, &None, &None, &None));
    assert_eq!(plan.base_digest, LLAMA.digest());
    let json = serde_json::to_string(&plan.plan).unwrap();
    assert_eq!(serde_json::from_str::<adapters::Plan>(&json).unwrap(), plan.plan);
}

#[test]
fn t02_keys_without_the_peft_prefix_are_accepted_with_a_note() {
    let plan = Adapter::plain().renamed(swap_prefix(PREFIX, "")).accepted(&LLAMA);
    assert_eq!(plan.modules.len(), 4);
    assert!(note(&plan, NoteCode::RenamedTensors).is_some());
    let both = Adapter::plain();
    let stripped = both.clone().renamed(swap_prefix(PREFIX, ""));
    let mut doubled = both;
    doubled.tensors.extend(stripped.tensors);
    assert_eq!(doubled.refused(&LLAMA), [Code::DuplicateTensor]);
}

#[test]
fn t03_one_adapter_name_inside_keys_is_accepted_and_two_are_refused() {
    let dumped = |name: &'static str| move |key: &str| key.replace(".weight", &format!(".{name}.weight"));
    for name in ["default", "other", "weight"] {
        let plan = Adapter::plain().renamed(dumped(name)).accepted(&LLAMA);
        assert_eq!(plan.modules.len(), 4, "{name}");
        assert_eq!(note(&plan, NoteCode::RenamedTensors).unwrap().subject, name);
    }
    let mixed = Adapter::plain().renamed(|key| dumped(if key.contains("layers.0") { "a" } else { "b" })(key));
    assert_eq!(mixed.refused(&LLAMA), [Code::UnknownTensor]);
}

#[test]
fn t04_embeddings_have_keys_of_their_own() {
    for base in [&*LLAMA, &*QWEN3] {
        let adapter = Adapter::lora(base, &["embed_tokens"]);
        let plan = adapter.accepted(base);
        assert_eq!(plan.modules[0].module, "model.embed_tokens");
        assert!(plan.modules[0].a.name.ends_with("lora_embedding_A"));
        let as_linear = adapter.renamed(|key| {
            key.replace("lora_embedding_A", "lora_A.weight").replace("lora_embedding_B", "lora_B.weight")
        });
        assert_eq!(as_linear.refused(base), [Code::Shape]);
    }
    let linear = Adapter::plain()
        .renamed(|key| key.replace("lora_A.weight", "lora_embedding_A").replace("lora_B.weight", "lora_embedding_B"));
    assert_eq!(linear.refused(&LLAMA), [Code::Shape]);
}

#[test]
fn t05_magnitudes_are_there_exactly_with_dora() {
    for suffix in ["lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight"] {
        let adapter = Adapter::plain().with("use_dora", json!(true)).with_vectors(&LLAMA, suffix);
        assert!(adapter.accepted(&LLAMA).modules.iter().all(|module| module.magnitude.is_some()), "{suffix}");
        assert_eq!(adapter.with("use_dora", json!(false)).refused(&LLAMA), [Code::Undeclared], "{suffix}");
    }
    let adapter = Adapter::plain().with("use_dora", json!(true)).with_vectors(&LLAMA, "lora_magnitude_vector");
    let name = "model.layers.0.self_attn.q_proj.lora_magnitude_vector";
    assert_eq!(adapter.clone().without(name).refused(&LLAMA), [Code::Missing]);
    assert_eq!(adapter.tensor(name, Tensor::zeros(&[HIDDEN])).refused(&LLAMA), [Code::Shape]);
    let embedding = Adapter::lora(&LLAMA, &["embed_tokens"])
        .with("use_dora", json!(true))
        .with_vectors(&LLAMA, "lora_magnitude_vector");
    embedding.accepted(&LLAMA);
}

#[test]
fn t06_biases_of_b_are_there_exactly_with_lora_bias() {
    let adapter = Adapter::plain().with("lora_bias", json!(true)).with_vectors(&LLAMA, "lora_B.bias");
    adapter.accepted(&LLAMA);
    let name = "model.layers.1.self_attn.v_proj.lora_B.bias";
    assert_eq!(adapter.clone().without(name).refused(&LLAMA), [Code::Missing]);
    assert_eq!(adapter.clone().tensor(name, Tensor::zeros(&[KEY + 1])).refused(&LLAMA), [Code::Shape]);
    assert_eq!(adapter.with("lora_bias", json!(false)).refused(&LLAMA), [Code::Undeclared]);
}

#[test]
fn t07_base_biases_are_there_exactly_with_bias() {
    let name = "model.layers.1.self_attn.v_proj.base_layer.bias";
    let adapter = Adapter::plain().with("bias", json!("lora_only")).with_vectors(&LLAMA, "base_layer.bias");
    adapter.accepted(&LLAMA);
    assert_eq!(adapter.clone().without(name).refused(&LLAMA), [Code::Missing]);
    assert_eq!(adapter.clone().with("bias", json!("none")).refused(&LLAMA), [Code::Undeclared]);
    let twice = adapter.tensor("model.layers.1.self_attn.v_proj.bias", Tensor::zeros(&[KEY]));
    assert_eq!(twice.refused(&LLAMA), [Code::DuplicateTensor]);
}

#[test]
fn t08_vocabulary_tensors_are_dropped_if_equal_and_refused_if_not() {
    let base_weight = |base: &str, name: &str| {
        let tensors =
            if base == "llama" { base_tensors("llama", false, true) } else { base_tensors("qwen3", true, false) };
        tensors[name].clone()
    };
    let embedding = "model.embed_tokens";
    for (base, model, path, source) in [
        (&LLAMA, "llama", embedding, embedding),
        (&LLAMA, "llama", "lm_head", "lm_head"),
        (&QWEN3, "qwen3", embedding, embedding),
        (&QWEN3, "qwen3", "lm_head", embedding),
    ] {
        let weight = base_weight(model, &format!("{source}.weight"));
        for middle in ["", ".base_layer", ".original_module"] {
            let name = format!("{path}{middle}.weight");
            for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
                let adapter = Adapter::lora(base, &["q_proj"]).tensor(&name, weight.clone().stored_as(dtype));
                let plan = adapter.accepted(base);
                assert!(note(&plan, NoteCode::EqualToBase).is_some() && plan.private.is_empty(), "{name}");
            }
            let mut changed = weight.clone();
            changed.values[3] += 0.5;
            assert_eq!(
                Adapter::lora(base, &["q_proj"]).tensor(&name, changed).refused(base),
                [Code::VocabChanged],
                "{name}"
            );
            let resized = Tensor::random(&[VOCAB + 2, HIDDEN], 3);
            assert_eq!(
                Adapter::lora(base, &["q_proj"]).tensor(&name, resized).refused(base),
                [Code::VocabChanged],
                "{name}"
            );
        }
        // a private copy that changes nothing is not kept either
        let saved = Adapter::lora(base, &["q_proj"])
            .with("modules_to_save", json!([path.rsplit('.').next().unwrap()]))
            .tensor(&format!("{path}.weight"), weight);
        assert!(saved.accepted(base).private.is_empty());
    }
    let full =
        Adapter::plain().tensor("model.layers.0.self_attn.q_proj.base_layer.weight", Tensor::zeros(&[QUERY, HIDDEN]));
    assert_eq!(full.refused(&LLAMA), [Code::FullModule]);
    assert_eq!(
        Adapter::plain().tensor("model.norm.weight", Tensor::zeros(&[HIDDEN])).refused(&LLAMA),
        [Code::FullModule]
    );
}

#[test]
fn t09_a_or_b_alone_is_refused() {
    for part in ["lora_A", "lora_B"] {
        let adapter = Adapter::plain().without(&format!("model.layers.1.self_attn.q_proj.{part}.weight"));
        assert_eq!(adapter.refused(&LLAMA), [Code::Unpaired], "{part}");
    }
    let embedding = Adapter::lora(&LLAMA, &["embed_tokens"]).without("model.embed_tokens.lora_embedding_A");
    assert_eq!(embedding.refused(&LLAMA), [Code::Unpaired]);
}

#[test]
fn t10_ranks_of_a_and_b_must_agree() {
    let adapter =
        Adapter::plain().tensor("model.layers.0.self_attn.q_proj.lora_A.weight", Tensor::random(&[3, HIDDEN], 1));
    assert_eq!(adapter.refused(&LLAMA), [Code::Shape]);
}

#[test]
fn t11_sizes_must_be_those_of_the_base() {
    let b = "model.layers.0.self_attn.v_proj.lora_B.weight";
    let as_query = Adapter::plain().tensor(b, Tensor::random(&[QUERY, 2], 1));
    assert_eq!(as_query.refused(&LLAMA), [Code::Shape], "v has the rows of q: grouped heads confused");
    let a = "model.layers.0.self_attn.v_proj.lora_A.weight";
    let wider = Adapter::plain().tensor(a, Tensor::random(&[2, HIDDEN * 2], 1));
    assert_eq!(wider.refused(&LLAMA), [Code::Shape]);
    for shape in [vec![2 * HIDDEN], vec![1, 2, HIDDEN]] {
        assert_eq!(Adapter::plain().tensor(a, Tensor::random(&shape, 1)).refused(&LLAMA), [Code::Shape]);
    }
}

#[test]
fn t12_the_rank_of_the_file_must_be_that_of_the_config() {
    assert_eq!(Adapter::plain().with("r", json!(4)).refused(&LLAMA), [Code::RankConflict]);
    let by_pattern = Adapter::plain().with("rank_pattern", json!({"q_proj": 4}));
    assert_eq!(by_pattern.refused(&LLAMA), [Code::RankConflict]);
}

#[test]
fn t13_tensors_of_modules_that_are_no_targets_are_refused() {
    let adapter = Adapter::lora(&LLAMA, &["q_proj", "k_proj"]).with("target_modules", json!(["q_proj"]));
    assert_eq!(adapter.refused(&LLAMA), [Code::Untargeted]);
}

#[test]
fn t14_targets_without_tensors_are_refused() {
    let adapter = Adapter::plain().with("target_modules", json!(["q_proj", "v_proj", "o_proj"]));
    let refusals = adapter.judge(&LLAMA).unwrap_err();
    assert_eq!(codes(&refusals), [Code::Missing]);
    assert_eq!(refusals.len(), LAYERS, "each module is named");
}

#[test]
fn t15_a_target_that_the_base_has_not_is_noted_unless_it_is_all() {
    let plan = Adapter::plain().with("target_modules", json!(["q_proj", "v_proj", "c_attn"])).accepted(&LLAMA);
    assert_eq!(note(&plan, NoteCode::TargetAbsent).unwrap().subject, "c_attn");
    let mut none = Adapter::plain().with("target_modules", json!(["c_attn", "c_proj"]));
    none.tensors.clear();
    assert_eq!(none.refused(&LLAMA), [Code::NoTarget]);
}

#[test]
fn t16_a_layer_that_the_base_has_not_is_refused() {
    let adapter = Adapter::plain().renamed(|key| key.replace("layers.1.", "layers.40."));
    let refusals = adapter.judge(&LLAMA).unwrap_err();
    assert_eq!(codes(&refusals), [Code::BaseMismatch, Code::Missing]);
    assert!(refusals.iter().any(|refusal| refusal.message.contains("2 layers") && refusal.message.contains("40")));
    let unknown = Adapter::plain().tensor("model.layers.0.self_attn.c_attn.lora_A.weight", Tensor::zeros(&[2, HIDDEN]));
    assert_eq!(unknown.refused(&LLAMA), [Code::BaseMismatch]);
}

#[test]
fn t17_fused_projections_are_split_by_rows_of_b() {
    let mut adapter = Adapter::lora(&LLAMA, &[]).with("target_modules", json!(["qkv_proj", "gate_up_proj", "o_proj"]));
    for layer in 0..LAYERS {
        let linear =
            |out_features, in_features| adapters::ModuleKind::Linear { in_features, out_features, bias: false };
        adapter.pair(&format!("model.layers.{layer}.self_attn.qkv_proj"), linear(QUERY + 2 * KEY, HIDDEN), 2);
        adapter.pair(&format!("model.layers.{layer}.mlp.gate_up_proj"), linear(2 * FEED, HIDDEN), 2);
        adapter.pair(&format!("model.layers.{layer}.self_attn.o_proj"), linear(HIDDEN, QUERY), 2);
    }
    let adapter = adapter.with("alpha_pattern", json!({"layers.1.self_attn.qkv_proj": 8}));
    let plan = adapter.accepted(&LLAMA);
    assert_eq!(plan.modules.len(), 6 * LAYERS);
    assert!(note(&plan, NoteCode::FusedSplit).is_some());
    let of = |path: &str| plan.modules.iter().find(|module| module.module == path).unwrap();
    let rows = ["q_proj", "k_proj", "v_proj"]
        .map(|name| of(&format!("model.layers.1.self_attn.{name}")).b.rows.clone().unwrap());
    assert_eq!(rows, [0..QUERY, QUERY..QUERY + KEY, QUERY + KEY..QUERY + 2 * KEY]);
    assert_eq!(of("model.layers.0.mlp.up_proj").b.rows, Some(FEED..2 * FEED));
    assert_eq!((of("model.layers.0.self_attn.k_proj").alpha, of("model.layers.1.self_attn.k_proj").alpha), (4.0, 8.0));
    // the norms of the parts add up to that of the whole
    let fused = &adapter.tensors["base_model.model.model.layers.1.self_attn.qkv_proj.lora_B.weight"];
    let a = &adapter.tensors["base_model.model.model.layers.1.self_attn.qkv_proj.lora_A.weight"];
    let whole = crate::maths::naive_norm(a, fused, 4.0);
    let is_part = |module: &&ModuleReceipt| {
        ["q_proj", "k_proj", "v_proj"].iter().any(|name| module.module == format!("model.layers.1.self_attn.{name}"))
    };
    let parts: Vec<f64> = plan.receipt.modules.iter().filter(is_part).map(|part| part.delta_norm.powi(2)).collect();
    assert!((parts.iter().sum::<f64>().sqrt() - whole).abs() < 1e-9 * whole);

    let mut both = adapter;
    let path = "model.layers.0.self_attn.q_proj";
    both.pair(path, LLAMA.module(path).unwrap().kind, 2);
    assert_eq!(both.refused(&LLAMA), [Code::DuplicateTensor]);
}

#[test]
fn t18_wrapper_prefixes_are_taken_off_and_reported() {
    for prefix in ["base_model.model.model.language_model.", "base_model.model.language_model.model."] {
        let adapter = Adapter::plain().renamed(swap_prefix("base_model.model.model.", prefix));
        let plan = adapter.accepted(&LLAMA);
        assert_eq!(plan.modules[0].module, "model.layers.0.self_attn.q_proj", "{prefix}");
        assert!(note(&plan, NoteCode::RenamedTensors).is_some());
        // patterns speak of the names that the adapter knows
        let own = prefix.trim_start_matches("base_model.model.").replace('.', r"\.");
        adapter.with("target_modules", json!(format!(r"{own}layers\.\d\.self_attn\.[qv]_proj"))).accepted(&LLAMA);
    }
    for prefix in [
        "base_model.model._orig_mod.model.",
        "_orig_mod.base_model.model.model.",
        "base_model.model._fsdp_wrapped_module.model.",
    ] {
        let plan = Adapter::plain().renamed(swap_prefix("base_model.model.model.", prefix)).accepted(&LLAMA);
        assert!(note(&plan, NoteCode::RenamedTensors).is_some(), "{prefix}");
    }
    let inside = Adapter::plain().renamed(|key| key.replace("self_attn", "_fsdp_wrapped_module.self_attn"));
    inside.accepted(&LLAMA);
    for prefix in ["base_model.model.module.model.", "base_model.model.transformer.", "base_model.model."] {
        let adapter = Adapter::plain().renamed(swap_prefix("base_model.model.model.", prefix));
        assert!(adapter.refused(&LLAMA).contains(&Code::BaseMismatch), "{prefix}");
    }
    let mixed =
        Adapter::plain().renamed(|key| key.replace("model.model.layers.1", "model.model.language_model.layers.1"));
    assert!(mixed.refused(&LLAMA).contains(&Code::BaseMismatch));
}

#[test]
fn t19_a_base_in_another_layout_than_hugging_face_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_base(dir.path(), "llama", false, true);
    let meta = base_tensors("llama", false, true).into_iter().map(|(name, tensor)| {
        (name.replace("model.layers", "layers").replace("self_attn.q_proj", "attention.wq"), tensor)
    });
    std::fs::write(dir.path().join("model.safetensors"), safetensors(&meta.collect())).unwrap();
    assert!(
        adapters::Base::read(dir.path()).unwrap_err().to_string().contains("model.layers.0.self_attn.q_proj.weight")
    );
}

#[test]
fn t20_module_names_that_look_like_parts_are_read_from_the_right() {
    // no supported base has such modules, so the refusal must name the module that was read
    for (key, module) in [
        ("weight.lora_A.weight", "weight"),
        ("lora_A.lora_A.weight", "lora_A"),
        ("default.lora_B.default.weight", "default"),
    ] {
        let refusals = Adapter::plain().tensor(key, Tensor::zeros(&[2, 2])).judge(&LLAMA).unwrap_err();
        assert!(refusals.iter().any(|r| r.code == Code::BaseMismatch && r.subject == module), "{key}: {refusals:?}");
    }
}

#[test]
fn t21_zero_modules_are_noted_and_a_zero_adapter_is_refused() {
    let mut adapter = Adapter::plain();
    let name = "model.layers.0.self_attn.q_proj";
    adapter = adapter.tensor(&format!("{name}.lora_B.weight"), Tensor::zeros(&[QUERY, 2]));
    let plan = adapter.accepted(&LLAMA);
    assert_eq!(plan.receipt.modules[0].delta_norm, 0.0);
    assert_eq!(note(&plan, NoteCode::ZeroDelta).unwrap().subject, name);
    for part in ["lora_A", "lora_B"] {
        let mut zero = Adapter::plain();
        zero.tensors.iter_mut().filter(|(key, _)| key.contains(part)).for_each(|(_, tensor)| tensor.values.fill(-0.0));
        assert_eq!(zero.refused(&LLAMA), [Code::Noop], "{part}");
    }
    // zero pairs with a bias of B, a private module or a trained bias do change answers
    let mut zero = Adapter::plain();
    zero.tensors.values_mut().for_each(|tensor| tensor.values.fill(0.0));
    zero.clone().with("lora_bias", json!(true)).with_vectors(&LLAMA, "lora_B.bias").accepted(&LLAMA);
    zero.clone().with("bias", json!("lora_only")).with_vectors(&LLAMA, "base_layer.bias").accepted(&LLAMA);
    zero.with("modules_to_save", json!(["lm_head"]))
        .tensor("lm_head.weight", Tensor::random(&[VOCAB, HIDDEN], 5))
        .accepted(&LLAMA);
}

#[test]
fn t22_a_tied_output_layer_is_adapted_alone() {
    let plan = Adapter::lora(&QWEN3, &["lm_head"]).accepted(&QWEN3);
    let touched: Vec<&str> = plan.modules.iter().map(|module| module.module.as_str()).collect();
    assert_eq!(touched, ["lm_head"], "the embedding is not");
    let saved = Adapter::lora(&QWEN3, &["q_proj"])
        .with("modules_to_save", json!(["lm_head"]))
        .tensor("lm_head.weight", Tensor::random(&[VOCAB, HIDDEN], 5))
        .accepted(&QWEN3);
    assert_eq!(saved.private.len(), 1);
    assert_eq!(saved.private[0].module, "lm_head");
}

#[test]
fn t23_tensors_of_other_methods_are_refused_with_their_name() {
    for (key, method) in [
        ("prompt_embeddings", "prompt"),
        ("model.layers.0.mlp.down_proj.ia3_l", "IA3"),
        ("model.layers.0.mlp.down_proj.hada_w1_a", "LOHA"),
        ("model.layers.0.mlp.down_proj.lokr_w1", "LOKR"),
        ("model.layers.0.mlp.down_proj.vera_lambda_b", "VERA"),
        ("model.layers.0.mlp.down_proj.lora_E", "ADALORA"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", "trainable tokens"),
    ] {
        let refusals = Adapter::plain().tensor(key, Tensor::zeros(&[2, 2])).judge(&LLAMA).unwrap_err();
        assert_eq!(codes(&refusals), [Code::PeftType], "{key}");
        assert!(refusals[0].message.contains(method), "{}", refusals[0]);
    }
    for unknown in
        ["model.layers.0.self_attn.q_proj.lora_C.weight", "optimizer", "model.layers.0.self_attn.q_proj.lora_A"]
    {
        let adapter = Adapter::plain().tensor(unknown, Tensor::zeros(&[2, 2]));
        assert!(!adapter.refused(&LLAMA).is_empty(), "{unknown}");
    }
}
