//! The weights of a base model, named as the mathematics uses them, and where they come from: a checkpoint, or a seed.

use std::ops::Range;

use kernels::{ALIGNMENT, Buffer, Cpu, Matrix, Storage};

use super::{LoadError, ModelConfig};

/// All weights of a base model.
pub(crate) struct Weights {
    /// `[vocab, hidden]`
    pub embed: Matrix,
    pub layers: Vec<Layer>,
    pub norm: Vec<f32>,
    /// `[vocab, hidden]`; `None` where it is the embedding.
    pub head: Option<Matrix>,
}

/// One decoder layer.
pub(crate) struct Layer {
    pub input_norm: Vec<f32>,
    pub post_attention_norm: Vec<f32>,
    /// Norms of each query and key head, `[head_dim]`.
    pub head_norms: Option<[Vec<f32>; 2]>,
    /// Indexed by [`Slot`].
    pub linears: [Linear; 7],
}

/// A dense layer: `y = x Wᵀ + b`.
pub(crate) struct Linear {
    pub weight: Matrix,
    pub bias: Option<Vec<f32>>,
}

/// The linear layers of a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Slot {
    pub const ALL: [Slot; 7] = [Slot::Q, Slot::K, Slot::V, Slot::O, Slot::Gate, Slot::Up, Slot::Down];

    /// Path inside the layer, as checkpoints name it.
    pub fn path(self) -> &'static str {
        match self {
            Slot::Q => "self_attn.q_proj",
            Slot::K => "self_attn.k_proj",
            Slot::V => "self_attn.v_proj",
            Slot::O => "self_attn.o_proj",
            Slot::Gate => "mlp.gate_proj",
            Slot::Up => "mlp.up_proj",
            Slot::Down => "mlp.down_proj",
        }
    }

    /// `[outputs, inputs]` and whether there is a bias.
    pub fn shape(self, config: &ModelConfig) -> ([usize; 2], bool) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let biases = config.biases;
        match self {
            Slot::Q => ([q, hidden], biases.qkv),
            Slot::K | Slot::V => ([kv, hidden], biases.qkv),
            Slot::O => ([hidden, q], biases.o),
            Slot::Gate | Slot::Up => ([inner, hidden], biases.mlp),
            Slot::Down => ([hidden, inner], biases.mlp),
        }
    }
}

impl Layer {
    pub fn linear(&self, slot: Slot) -> &Linear {
        &self.linears[slot as usize]
    }
}

/// Where the tensors of a base come from, each by its name in the checkpoint and taken once.
pub(crate) trait TensorSource {
    /// The matrix `name` of `[outputs, inputs]`.
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, LoadError>;

    /// The vector `name` of `[size]`.
    fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, LoadError>;

    /// Whether `name` is there and not yet taken.
    fn has(&self, name: &str) -> bool;

    /// Fails if a tensor is left that nobody took, rotary tables of old checkpoints apart.
    fn finish(self) -> Result<(), LoadError>;
}

impl Weights {
    /// The output layer.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// Takes every tensor that `config` asks for; none may be left over.
    pub fn take(config: &ModelConfig, mut source: impl TensorSource) -> Result<Weights, LoadError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embed = source.matrix("model.embed_tokens.weight", vocab, hidden)?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            layers.push(take_layer(config, &mut source, &format!("model.layers.{index}"))?);
        }
        let norm = source.vector("model.norm.weight", hidden)?;
        let head = if !config.tied_embeddings || source.has("lm_head.weight") {
            Some(source.matrix("lm_head.weight", vocab, hidden)?)
        } else {
            None
        };
        if config.tied_embeddings && head.as_ref().is_some_and(|head| !same_values(head, &embed)) {
            return Err(LoadError::Checkpoint {
                file: "lm_head.weight".into(),
                message: "config.json ties it to the embedding, but the checkpoint holds other values".into(),
            });
        }
        source.finish()?;
        let head = head.filter(|_| !config.tied_embeddings);
        Ok(Weights { embed, layers, norm, head })
    }

    /// Seeded values of the size that initialisation gives them: for benchmarks and tests of shapes.
    pub fn random(config: &ModelConfig, cpu: &Cpu, storage: Storage, seed: u64) -> Weights {
        let mut stream = 0;
        let mut matrix = |outputs, inputs| {
            stream += 1;
            let seed = seed ^ (stream << 40);
            Matrix::from_rows(cpu, outputs, inputs, storage, |row, out| fill_random(seed + row as u64, 0.02, out))
        };
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embed = matrix(vocab, hidden);
        let mut layer = |_| {
            let linears = Slot::ALL.map(|slot| {
                let ([outputs, inputs], bias) = slot.shape(config);
                Linear { weight: matrix(outputs, inputs), bias: bias.then(|| vec![0.01; outputs]) }
            });
            let head_norms = config.head_norms.then(|| [vec![1.0; config.head_dim], vec![1.0; config.head_dim]]);
            Layer { input_norm: vec![1.0; hidden], post_attention_norm: vec![1.0; hidden], head_norms, linears }
        };
        let layers = (0..config.layers).map(&mut layer).collect();
        let head = (!config.tied_embeddings).then(|| matrix(vocab, hidden));
        let mut weights = Weights { embed, layers, norm: vec![1.0; hidden], head };
        weights.gather();
        weights
    }

    /// Moves all matrices into one buffer, as a mapped base has them in one file: small ones of their own would lie on
    /// small pages, which costs a tenth and more of a product.
    fn gather(&mut self) {
        let linears = self.layers.iter_mut().flat_map(|layer| &mut layer.linears).map(|linear| &mut linear.weight);
        let mut matrices: Vec<&mut Matrix> = linears.chain([&mut self.embed]).chain(&mut self.head).collect();
        let mut places: Vec<Range<usize>> = Vec::with_capacity(matrices.len());
        for matrix in &matrices {
            let begin = places.last().map_or(0, |last| last.end.next_multiple_of(ALIGNMENT));
            places.push(begin..begin + matrix.packed().len());
        }
        let mut whole = Buffer::zeroed(places.last().map_or(0, |last| last.end));
        let bytes = whole.get_mut().expect("nobody shares it yet");
        for (matrix, place) in matrices.iter().zip(&places) {
            bytes[place.clone()].copy_from_slice(matrix.packed());
        }
        for (matrix, place) in matrices.iter_mut().zip(places) {
            let (outputs, inputs, storage) = (matrix.outputs(), matrix.inputs(), matrix.storage());
            let moved = Matrix::from_packed(outputs, inputs, storage, whole.slice(place));
            **matrix = moved.expect("the same bytes");
        }
    }
}

fn take_layer(config: &ModelConfig, source: &mut impl TensorSource, path: &str) -> Result<Layer, LoadError> {
    let mut linears = Vec::with_capacity(Slot::ALL.len());
    for slot in Slot::ALL {
        let ([outputs, inputs], bias) = slot.shape(config);
        let name = format!("{path}.{}", slot.path());
        let weight = source.matrix(&format!("{name}.weight"), outputs, inputs)?;
        let bias = bias.then(|| source.vector(&format!("{name}.bias"), outputs)).transpose()?;
        linears.push(Linear { weight, bias });
    }
    let Ok(linears) = linears.try_into() else { unreachable!("one linear for each of seven slots") };
    let mut norm = |name: &str, size| source.vector(&format!("{path}.{name}.weight"), size);
    let head_norms = if config.head_norms {
        Some([norm("self_attn.q_norm", config.head_dim)?, norm("self_attn.k_norm", config.head_dim)?])
    } else {
        None
    };
    Ok(Layer {
        input_norm: norm("input_layernorm", config.hidden_size)?,
        post_attention_norm: norm("post_attention_layernorm", config.hidden_size)?,
        head_norms,
        linears,
    })
}

fn same_values(a: &Matrix, b: &Matrix) -> bool {
    let (mut left, mut right) = (vec![0.0; a.inputs()], vec![0.0; b.inputs()]);
    (0..a.outputs()).all(|row| {
        a.read_row(row, &mut left);
        b.read_row(row, &mut right);
        left == right
    })
}

/// Uniform values of standard deviation `deviation`, from splitmix64.
fn fill_random(seed: u64, deviation: f32, out: &mut [f32]) {
    let mut state = seed;
    for value in out {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32;
        *value = (uniform * 2.0 - 1.0) * deviation * 3f32.sqrt();
    }
}
