//! Reading a checkpoint folder: the files, their digests, and the inventory that comes of them. Weights stream
//! through a buffer; memory does not grow with the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use domain::Digest;
use serde_json::Value;

use super::family::{self, Config, ModelType, Tensors};
use super::{Base, BaseError, ContentDigests, EMBED_TOKENS, LM_HEAD};
use crate::container::Header;
use crate::digest::Hasher;
use crate::dtype::Dtype;
use crate::limits::Limits;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Files of the tokenizer that the digest covers, and whether the base must have them.
const TOKENIZER: [(&str, bool); 3] =
    [("tokenizer.json", true), ("tokenizer_config.json", false), ("chat_template.jinja", false)];
/// Keys of `config.json` that say where a checkpoint came from, not what it is.
const INFORMATIONAL: [&str; 2] = ["_name_or_path", "transformers_version"];

const CONFIG_BYTES_MAX: u64 = 1 << 20;
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
const INDEX_BYTES_MAX: u64 = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;

pub(super) fn read(dir: &Path) -> Result<Base, BaseError> {
    let (config_json, config, model_type) = read_config(&dir.join(CONFIG))?;
    let mut hasher = Hasher::new("banyan.base.v1");
    hasher.part(config_json.as_bytes());
    for (name, required) in TOKENIZER {
        let path = dir.join(name);
        if required || path.is_file() {
            hasher.part(name.as_bytes()).part(&read_bounded(&path, TOKENIZER_BYTES_MAX)?);
        }
    }

    let checkpoint = read_shards(&shards(dir)?)?;
    let shapes: Tensors =
        checkpoint.iter().map(|(name, tensor)| (name.clone(), (tensor.dtype, tensor.shape.clone()))).collect();
    let modules = family::inventory(model_type, &config, &shapes)?;
    hasher.number(checkpoint.len() as u64);
    for (name, tensor) in &checkpoint {
        hasher.part(name.as_bytes()).part(tensor.dtype.name().as_bytes()).number(tensor.shape.len() as u64);
        for extent in &tensor.shape {
            hasher.number(*extent as u64);
        }
        hasher.part(tensor.digest.as_bytes());
    }

    let mut content = BTreeMap::new();
    for path in [EMBED_TOKENS, LM_HEAD] {
        let tied = path == LM_HEAD && config.tie_word_embeddings;
        let source = if tied { EMBED_TOKENS } else { path };
        let tensor = checkpoint.get(&format!("{source}.weight"));
        if let Some(digests) = tensor.and_then(|tensor| tensor.content.clone()) {
            content.insert(path.to_owned(), digests);
        }
    }
    Ok(Base {
        digest: hasher.finish(),
        names: Vec::new(),
        model_type,
        layers: config.num_hidden_layers,
        hidden_size: config.hidden_size,
        vocab_size: config.vocab_size,
        tied_embeddings: config.tie_word_embeddings,
        modules,
        content,
    })
}

/// Canonical text (sorted keys, nothing informational), the typed part, and the family.
fn read_config(path: &Path) -> Result<(String, Config, ModelType), BaseError> {
    let json = |source| BaseError::Json { path: path.into(), source };
    let mut value: Value = serde_json::from_slice(&read_bounded(path, CONFIG_BYTES_MAX)?).map_err(json)?;
    let Some(object) = value.as_object_mut() else {
        return Err(BaseError::Config("it is not an object".into()));
    };
    for key in INFORMATIONAL {
        object.remove(key);
    }
    let name = object.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let model_type = ModelType::from_config(&name).ok_or(BaseError::ModelType(name))?;
    if object.get("quantization_config").is_some_and(|config| !config.is_null()) {
        return Err(BaseError::Config("quantised checkpoints are not supported".into()));
    }
    value.sort_all_objects();
    let text = value.to_string();
    let config: Config = serde_json::from_value(value).map_err(json)?;
    if config.num_hidden_layers == 0 || config.num_hidden_layers > 4096 {
        return Err(BaseError::Config(format!("{} layers", config.num_hidden_layers)));
    }
    Ok((text, config, model_type))
}

/// A weight file, and the tensors that the index promises in it.
type Shard = (PathBuf, Option<BTreeSet<String>>);

/// The weight files, each with the tensors that the index promises in it (`None` without an index).
fn shards(dir: &Path) -> Result<Vec<Shard>, BaseError> {
    let single = dir.join(SINGLE);
    let index = dir.join(INDEX);
    if single.is_file() || !index.is_file() {
        return Ok(vec![(single, None)]);
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let read: Index = serde_json::from_slice(&read_bounded(&index, INDEX_BYTES_MAX)?)
        .map_err(|source| BaseError::Json { path: index.clone(), source })?;
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in read.weight_map {
        let flat = file.ends_with(".safetensors") && !file.contains(['/', '\\']) && !file.starts_with('.');
        if !flat {
            return Err(BaseError::Checkpoint(format!("{INDEX} names the file {file:?}")));
        }
        files.entry(file).or_default().insert(tensor);
    }
    Ok(files.into_iter().map(|(file, tensors)| (dir.join(file), Some(tensors))).collect())
}

struct TensorDigest {
    dtype: Dtype,
    shape: Vec<usize>,
    digest: Digest,
    content: Option<ContentDigests>,
}

type Checkpoint = BTreeMap<String, TensorDigest>;

/// Reads all shards, as many at a time as there are processors.
fn read_shards(shards: &[Shard]) -> Result<Checkpoint, BaseError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(shards.len().max(1));
    let parts: Vec<Result<Vec<Checkpoint>, BaseError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    let own = shards.iter().skip(first).step_by(threads);
                    own.map(|(path, promised)| read_shard(path, promised.as_ref())).collect()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    let mut all = Checkpoint::new();
    for part in parts {
        for (name, tensor) in part?.into_iter().flatten() {
            if all.insert(name.clone(), tensor).is_some() {
                return Err(BaseError::Checkpoint(format!("the tensor {name} stands in two files")));
            }
        }
    }
    Ok(all)
}

fn read_shard(path: &Path, promised: Option<&BTreeSet<String>>) -> Result<Checkpoint, BaseError> {
    let io = |source| BaseError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let too_large = |found| BaseError::TooLarge { path: path.into(), found, limit: usize::MAX as u64 };
    let bytes = file.metadata().map_err(io)?.len();
    let bytes = usize::try_from(bytes).map_err(|_| too_large(bytes))?;
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, file);
    let header = Header::read(&mut stream, bytes, &Limits::checkpoint())
        .map_err(io)?
        .map_err(|source| BaseError::Container { path: path.into(), source })?;
    if let Some(promised) = promised
        && !header.tensors().keys().eq(promised)
    {
        return Err(BaseError::Checkpoint(format!("{INDEX} and {} list different tensors", path.display())));
    }
    let mut ordered: Vec<_> = header.tensors().iter().collect();
    ordered.sort_by_key(|(_, entry)| entry.range.start);
    let mut tensors = Checkpoint::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    for (name, entry) in ordered {
        let is_vocab = [EMBED_TOKENS, LM_HEAD].iter().any(|path| name.strip_suffix(".weight") == Some(path));
        let mut content = (is_vocab && entry.dtype.is_served()).then(ContentHasher::new);
        let mut hasher = Hasher::new("banyan.tensor.v1");
        let mut left = entry.range.len();
        while left > 0 {
            let chunk = buffer.get_mut(..left.min(BUFFER_BYTES)).unwrap_or_default();
            stream.read_exact(chunk).map_err(io)?;
            hasher.raw(chunk);
            if let Some(content) = &mut content {
                content.update(entry.dtype, chunk);
            }
            left -= chunk.len();
        }
        let digest = hasher.finish();
        let content = content.map(ContentHasher::finish);
        tensors.insert(name.clone(), TensorDigest { dtype: entry.dtype, shape: entry.shape.clone(), digest, content });
    }
    Ok(tensors)
}

/// Digests of one weight's values in the three element types of adapters.
struct ContentHasher {
    hashers: [(Dtype, Hasher); 3],
    encoded: Vec<u8>,
}

impl ContentHasher {
    fn new() -> Self {
        let hasher = |dtype| (dtype, crate::digest::content_hasher(dtype));
        ContentHasher { hashers: [Dtype::F32, Dtype::F16, Dtype::BF16].map(hasher), encoded: Vec::new() }
    }

    fn update(&mut self, dtype: Dtype, chunk: &[u8]) {
        for (target, hasher) in &mut self.hashers {
            if *target == dtype {
                hasher.raw(chunk);
                continue;
            }
            self.encoded.clear();
            for value in dtype.decode(chunk).into_iter().flatten() {
                target.encode(value, &mut self.encoded);
            }
            hasher.raw(&self.encoded);
        }
    }

    fn finish(self) -> ContentDigests {
        let [f32, f16, bf16] = self.hashers.map(|(_, hasher)| hasher.finish());
        ContentDigests { f32, f16, bf16 }
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, BaseError> {
    let io = |source: io::Error| BaseError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    let found = bytes.len() as u64;
    if found > limit {
        return Err(BaseError::TooLarge { path: path.into(), found, limit });
    }
    Ok(bytes)
}
