//! Is it LoRA, and LoRA of the kind that is served? PEFT knows some forty methods and a dozen variants of LoRA; each
//! that computes something else is refused by name.

use serde_json::Value;

use super::LoraConfig;
use super::fields::{Fields, is_neutral};
use crate::plan::NoteCode;
use crate::refusal::{Code, Refusal, clip};

/// Fields that say how the adapter was trained or stored, and nothing about what it computes.
const INERT: [&str; 14] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "velora_config",
    // bookkeeping of PEFT that some training tools write out
    "modules_to_tie",
    "target_modules_to_tie",
];

/// Variants that compute something else (or act on something else) than the LoRA that is served.
const VARIANTS: [(&str, &str); 9] = [
    ("alora_invocation_tokens", "aLoRA, which acts only after its invocation tokens,"),
    ("arrow_config", "Arrow routing between several adapters"),
    ("enable_lora", "LoRA on parts of a merged linear"),
    ("layer_replication", "layer replication, which changes the number of layers of the base,"),
    ("megatron_config", "Megatron parallel layers"),
    ("monteclora_config", "MonteCLoRA"),
    ("target_parameters", "LoRA on bare parameters (experts)"),
    ("trainable_token_indices", "training of single tokens"),
    ("use_bdlora", "block-diagonal LoRA"),
];

/// Variants that change the base model they were trained on.
const MUTATING: [(&str, &str); 3] = [("kasa_config", "KaSA"), ("loftq_config", "LoftQ"), ("use_qalora", "QALoRA")];

/// `peft_type` and `task_type`: without the right ones, no other field has a known meaning.
pub(super) fn check(fields: &mut Fields<'_>) -> Result<(), Refusal> {
    match fields.take("peft_type") {
        Value::String(method) if method == "LORA" => Ok(()),
        Value::String(method) => Err(Refusal::new(
            Code::PeftType,
            "peft_type",
            format!(
                "This is an adapter of the method {}; only LORA is served. Train it again with LoraConfig.",
                clip(&method, 64)
            ),
        )),
        _ => Err(Refusal::new(
            Code::PeftType,
            "peft_type",
            "The config must state \"peft_type\": \"LORA\". Write it again with PEFT, or add the field if the adapter is LoRA.",
        )),
    }
}

/// Takes every field that is not about plain LoRA, and refuses those that ask for something else.
pub(super) fn refuse_other_arithmetic(fields: &mut Fields<'_>, config: &LoraConfig) {
    task(fields);
    initialisation(fields, config);
    for (field, what) in VARIANTS {
        if !is_neutral(&fields.take(field)) {
            fields.refuse(
                Code::Unsupported,
                field,
                format!("The adapter uses {what} and that is not served. Train it again with `{field}` unset."),
            );
        }
    }
    for (field, what) in MUTATING {
        if !is_neutral(&fields.take(field)) {
            fields.refuse(
                Code::BaseMutating,
                field,
                format!("{what} trains against a changed base model, so the adapter does not fit the original one. Train it again with `{field}` unset."),
            );
        }
    }
    if fields.flag("fan_in_fan_out") {
        fields.note(
            NoteCode::IgnoredField,
            "fan_in_fan_out",
            "Linear modules keep their weight as [out, in]; PEFT ignores the field for them, and so does Banyan.",
        );
    }
    for field in INERT {
        fields.take(field);
    }
}

fn task(fields: &mut Fields<'_>) {
    match fields.take("task_type") {
        Value::Null => {}
        Value::String(task) if task == "CAUSAL_LM" => {}
        other => fields.refuse(
            Code::TaskType,
            "task_type",
            format!(
                "The task is {}; only CAUSAL_LM is served. Train for causal language modelling, or correct the field.",
                clip(&other.to_string(), 64)
            ),
        ),
    }
}

fn initialisation(fields: &mut Fields<'_>, config: &LoraConfig) {
    const FIELD: &str = "init_lora_weights";
    let method = match fields.take(FIELD) {
        Value::Null | Value::Bool(_) => return,
        Value::String(method) => method,
        other => {
            let found = clip(&other.to_string(), 64);
            return fields.refuse(
                Code::Config,
                FIELD,
                format!("`{FIELD}` must be true, false or the name of a method, not {found}. Correct it."),
            );
        }
    };
    let name = method.to_lowercase();
    let mutates = name.starts_with("pissa") || name.starts_with("corda");
    if mutates || matches!(name.as_str(), "olora" | "lora_ga" | "loftq") {
        fields.refuse(
            Code::BaseMutating,
            FIELD,
            format!(
                "Initialisation with {} changes the base model, so the adapter does not fit the original one. Convert it: \
                 `save_pretrained(..., path_initial_model_for_weight_conversion=...)` with the initial adapter.",
                clip(&method, 64)
            ),
        );
    } else if !matches!(name.as_str(), "gaussian" | "orthogonal" | "eva" | "mica") {
        fields.refuse(
            Code::UnknownSemantics,
            FIELD,
            format!("The initialisation {} is not known here and may change the base model. Convert the adapter to plain LoRA and set the field to true.", clip(&method, 64)),
        );
    }
    if config.lora_bias {
        fields.refuse(Code::Config, FIELD, "PEFT knows `lora_bias` only with the plain initialisation: correct the field that does not describe the tensors.");
    }
}
