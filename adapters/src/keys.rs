//! Names of tensors in an adapter file: which module and which part of it. Read from the right, because a module may
//! itself be called `lora_A`, `weight` or `default`. It does not know the base.

use crate::refusal::{Code, Refusal};

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// `lora_A.weight`
    A,
    /// `lora_B.weight`
    B,
    /// `lora_B.bias`
    BBias,
    /// `lora_embedding_A`
    EmbeddingA,
    /// `lora_embedding_B`
    EmbeddingB,
    /// `lora_magnitude_vector`
    Magnitude,
    /// A whole weight, that of the module as trained: `weight` or `modules_to_save…weight`.
    Weight,
    /// A whole weight, that of the base: `base_layer.weight` or `original_module.weight`.
    BaseWeight,
    /// `bias` or `base_layer.bias`: a trained bias of the base.
    Bias,
}

/// A tensor name, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Module path without the prefixes of PEFT and of wrappers.
    pub module: String,
    pub part: Part,
    /// Name of the adapter inside the key, as a raw dump of the state has it.
    pub adapter: Option<String>,
    /// Whether `base_model.model.` was there.
    pub prefixed: bool,
    /// Whether a segment of `torch.compile` or FSDP was taken out.
    pub unwrapped: bool,
}

/// Segments that wrappers of a training run put into names.
const WRAPPERS: [&str; 2] = ["_orig_mod", "_fsdp_wrapped_module"];

/// Marks of other methods in tensor names.
const OTHER_METHODS: [(&str, &str); 16] = [
    ("prompt_embeddings", "prompt or prefix tuning"),
    ("prompt_encoder", "prompt or prefix tuning"),
    ("ia3_l", "IA3"),
    ("hada_", "LOHA"),
    ("lokr_", "LOKR"),
    ("vera_lambda_", "VERA"),
    ("oft_", "OFT or BOFT"),
    ("boft_", "BOFT"),
    ("trainable_tokens_", "trainable tokens"),
    ("lora_E", "ADALORA"),
    ("ranknum", "ADALORA"),
    ("randlora_", "RANDLORA"),
    ("fourierft_", "FOURIERFT"),
    ("hra_u", "HRA"),
    ("vblora_", "VBLORA"),
    ("internal_xlora", "XLORA"),
];

impl Key {
    /// Reads a tensor name, or says why no rule takes it.
    pub fn parse(name: &str) -> Result<Key, Refusal> {
        let all: Vec<&str> = name.split('.').collect();
        let segments: Vec<&str> = all.iter().copied().filter(|segment| !WRAPPERS.contains(segment)).collect();
        let unwrapped = segments.len() < all.len();
        let (module, part, adapter) = tail(&segments).ok_or_else(|| unknown(name, &segments))?;
        let (module, prefixed) = match module {
            ["base_model", "model", rest @ ..] => (rest, true),
            rest => (rest, false),
        };
        if module.is_empty() || module.iter().any(|segment| segment.is_empty()) {
            return Err(unknown(name, &segments));
        }
        let adapter = adapter.map(str::to_owned);
        Ok(Key { module: module.join("."), part, adapter, prefixed, unwrapped })
    }
}

/// Splits off what follows the module.
fn tail<'a, 'b>(segments: &'b [&'a str]) -> Option<(&'b [&'a str], Part, Option<&'a str>)> {
    Some(match segments {
        [module @ .., "lora_A", "weight"] => (module, Part::A, None),
        [module @ .., "lora_B", "weight"] => (module, Part::B, None),
        [module @ .., "lora_B", "bias"] => (module, Part::BBias, None),
        [module @ .., "lora_embedding_A"] => (module, Part::EmbeddingA, None),
        [module @ .., "lora_embedding_B"] => (module, Part::EmbeddingB, None),
        [module @ .., "lora_magnitude_vector"] => (module, Part::Magnitude, None),
        [module @ .., "lora_magnitude_vector", "weight"] => (module, Part::Magnitude, None),
        [module @ .., "base_layer", "weight"] => (module, Part::BaseWeight, None),
        [module @ .., "original_module", "weight"] => (module, Part::BaseWeight, None),
        [module @ .., "base_layer", "bias"] => (module, Part::Bias, None),
        [module @ .., "modules_to_save", "weight"] => (module, Part::Weight, None),
        [module @ .., "lora_A", adapter, "weight"] => (module, Part::A, Some(adapter)),
        [module @ .., "lora_B", adapter, "weight"] => (module, Part::B, Some(adapter)),
        [module @ .., "lora_B", adapter, "bias"] => (module, Part::BBias, Some(adapter)),
        [module @ .., "lora_embedding_A", adapter] => (module, Part::EmbeddingA, Some(adapter)),
        [module @ .., "lora_embedding_B", adapter] => (module, Part::EmbeddingB, Some(adapter)),
        [module @ .., "lora_magnitude_vector", adapter, "weight"] => (module, Part::Magnitude, Some(adapter)),
        [module @ .., "lora_magnitude_vector", adapter] => (module, Part::Magnitude, Some(adapter)),
        [module @ .., "modules_to_save", adapter, "weight"] => (module, Part::Weight, Some(adapter)),
        [module @ .., "weight"] if !is_foreign(segments) => (module, Part::Weight, None),
        [module @ .., "bias"] if !is_foreign(segments) => (module, Part::Bias, None),
        _ => return None,
    })
}

fn is_foreign(segments: &[&str]) -> bool {
    method_of(segments).is_some() || segments.contains(&"lora_A") || segments.contains(&"lora_B")
}

fn method_of(segments: &[&str]) -> Option<&'static str> {
    let marks = |mark: &str| segments.iter().any(|segment| segment.starts_with(mark));
    OTHER_METHODS.iter().find(|(mark, _)| marks(mark)).map(|(_, method)| *method)
}

fn unknown(name: &str, segments: &[&str]) -> Refusal {
    match method_of(segments) {
        Some(method) => Refusal::new(
            Code::PeftType,
            name,
            format!("This tensor belongs to {method}, which is not served. Train again with LoraConfig."),
        ),
        None => Refusal::new(
            Code::UnknownTensor,
            name,
            "No rule takes this tensor. Save the adapter with PEFT's `save_pretrained`, which writes adapter tensors only.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> (String, Part, Option<String>) {
        let key = Key::parse(name).unwrap();
        (key.module, key.part, key.adapter)
    }

    #[test]
    fn t20_names_are_read_from_the_right() {
        let cases = [
            ("base_model.model.a.lora_A.lora_A.weight", "a.lora_A", Part::A),
            ("base_model.model.a.weight.lora_B.weight", "a.weight", Part::B),
            ("base_model.model.a.default.lora_A.weight", "a.default", Part::A),
            ("base_model.model.base_model.model.lora_A.weight", "base_model.model", Part::A),
            ("base_model.model.lora_B.lora_A.weight", "lora_B", Part::A),
        ];
        for (name, module, part) in cases {
            assert_eq!(read(name), (module.to_owned(), part, None), "{name}");
        }
        let default = Some("default".to_owned());
        assert_eq!(read("base_model.model.a.default.lora_A.default.weight"), ("a.default".into(), Part::A, default));
    }

    #[test]
    fn a_name_without_a_module_is_refused() {
        for name in ["", "weight", "lora_A.weight", "base_model.model.lora_A.weight", "a..lora_A.weight", "a.lora_A"] {
            assert_eq!(Key::parse(name).unwrap_err().code, Code::UnknownTensor, "{name}");
        }
    }
}
