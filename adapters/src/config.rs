//! `adapter_config.json`, field by field, as every PEFT release since 0.4 writes it: `LoraConfig` of PEFT.
//!
//! A field that changes the arithmetic is read or refused; a field that cannot is ignored; an unknown field is noted
//! when its value is neutral and refused when it is not. Whether the config fits tensors and base is not judged here.

mod fields;
mod method;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::limits::Limits;
use crate::plan::Note;
use crate::refusal::{Code, Refusal};

use fields::Fields;

/// The part of a LoRA config that has a meaning when the adapter is served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoraConfig {
    /// `base_model_name_or_path`.
    #[serde(skip)]
    pub base_model: Option<String>,
    #[serde(skip)]
    pub peft_version: Option<String>,
    /// `r`.
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `use_rslora`: scale by `alpha / √rank`.
    pub rslora: bool,
    /// `use_dora`.
    pub dora: bool,
    /// `lora_bias`: B has a bias.
    pub lora_bias: bool,
    pub bias: Bias,
    pub target_modules: TargetModules,
    pub exclude_modules: Option<TargetModules>,
    pub modules_to_save: BTreeSet<String>,
    /// `layers_to_transform`.
    pub layers: Option<BTreeSet<i64>>,
    pub layers_pattern: Vec<String>,
    /// In the order of the file, which decides.
    pub rank_pattern: Vec<(String, usize)>,
    /// In the order of the file, which decides.
    pub alpha_pattern: Vec<(String, f64)>,
    /// The output layer follows the embedding; refused where that means something.
    pub ensure_weight_tying: bool,
}

/// Which biases of the base were trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    None,
    All,
    LoraOnly,
}

/// `target_modules` (and `exclude_modules`, which knows the last two only).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetModules {
    /// `null`: PEFT's choice for the model type, `q_proj` and `v_proj` for every family that is served.
    Default,
    /// Every linear but the output layer.
    AllLinear,
    Pattern(String),
    Names(BTreeSet<String>),
}

/// What reading a config gives: everything at once.
#[derive(Clone, Debug)]
pub struct Reading {
    /// `None` if the file is not a LoRA config at all. With refusals, faulty fields hold their defaults.
    pub config: Option<LoraConfig>,
    pub refusals: Vec<Refusal>,
    pub notes: Vec<Note>,
}

/// What PEFT assumes where a config says nothing.
impl Default for LoraConfig {
    fn default() -> LoraConfig {
        LoraConfig {
            base_model: None,
            peft_version: None,
            rank: 8,
            alpha: 8.0,
            rslora: false,
            dora: false,
            lora_bias: false,
            bias: Bias::None,
            target_modules: TargetModules::Default,
            exclude_modules: None,
            modules_to_save: BTreeSet::new(),
            layers: None,
            layers_pattern: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            ensure_weight_tying: false,
        }
    }
}

impl LoraConfig {
    /// Reads the bytes of `adapter_config.json`.
    pub fn read(bytes: &[u8], limits: &Limits) -> Reading {
        let refused = |code, message: String| Reading {
            config: None,
            refusals: vec![Refusal::new(code, crate::files::CONFIG, message)],
            notes: Vec::new(),
        };
        if bytes.len() > limits.config_bytes_max {
            let message = format!(
                "The config is {} bytes long, {} are allowed. It should hold the settings of the adapter alone.",
                bytes.len(),
                limits.config_bytes_max
            );
            return refused(Code::Quota, message);
        }
        let object = match crate::json::parse(bytes, limits.json_depth_max) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return refused(Code::Config, "The config must be a JSON object, as PEFT writes it.".into()),
            Err(fault) => {
                let fault = crate::refusal::clip(&fault.to_string(), 256);
                return refused(
                    Code::Config,
                    format!("The config is not strict JSON: {fault}. Write it again with PEFT."),
                );
            }
        };
        let mut fields = Fields::new(object, limits);
        if let Err(refusal) = method::check(&mut fields) {
            return Reading { config: None, refusals: vec![refusal], notes: Vec::new() };
        }
        let config = read_fields(&mut fields);
        method::refuse_other_arithmetic(&mut fields, &config);
        check_together(&mut fields, &config);
        let (refusals, notes) = fields.finish();
        Reading { config: Some(config), refusals, notes }
    }

    /// The fields that change what is served, as canonical text: equal meaning of every field gives equal text.
    pub(crate) fn canonical(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value.sort_all_objects();
        value.to_string()
    }
}

fn read_fields(fields: &mut Fields<'_>) -> LoraConfig {
    LoraConfig {
        base_model: fields.text("base_model_name_or_path").filter(|name| !name.is_empty()),
        peft_version: fields.text("peft_version").map(|version| crate::refusal::clip(&version, 64)),
        rank: fields.rank("r", 8),
        alpha: fields.number("lora_alpha", 8.0),
        rslora: fields.flag("use_rslora"),
        dora: fields.flag("use_dora"),
        lora_bias: fields.flag("lora_bias"),
        bias: fields.bias(),
        target_modules: fields.target_modules(),
        exclude_modules: fields.exclude_modules(),
        modules_to_save: fields.names("modules_to_save").into_iter().collect(),
        layers: fields.layers(),
        layers_pattern: fields.names_or_one("layers_pattern"),
        rank_pattern: fields.rank_pattern(),
        alpha_pattern: fields.alpha_pattern(),
        ensure_weight_tying: fields.flag("ensure_weight_tying"),
    }
}

/// Combinations that PEFT itself refuses.
fn check_together(fields: &mut Fields<'_>, config: &LoraConfig) {
    let by_string = matches!(config.target_modules, TargetModules::AllLinear | TargetModules::Pattern(_));
    if by_string && config.layers.is_some() {
        fields.refuse(
            Code::Config,
            "layers_to_transform",
            "`layers_to_transform` works with a list of `target_modules` only: put the layers into the pattern, or list the modules.",
        );
    }
    if !config.layers_pattern.is_empty() {
        if by_string {
            fields.refuse(
                Code::Config,
                "layers_pattern",
                "`layers_pattern` works with a list of `target_modules` only: drop it, or list the modules.",
            );
        } else if config.layers.is_none() {
            fields.refuse(
                Code::Config,
                "layers_pattern",
                "`layers_pattern` needs `layers_to_transform`: state the layers, or drop the pattern.",
            );
        }
    }
    if config.lora_bias && config.dora {
        fields.refuse(
            Code::Config,
            "lora_bias",
            "`lora_bias` and `use_dora` exclude each other in PEFT: correct the field that does not describe the tensors.",
        );
    }
}
