//! The tensors of a checkpoint directory, brought into the kernels' layout one file at a time.
//! Which tensors there must be is decided by the model; judging the files is `adapters::Base`'s work.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use adapters::{Container, Limits, TensorView};
use bytes::Bytes;
use kernels::{Cpu, Matrix, Storage};

use crate::model::{LoadError, TensorSource};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a checkpoint by name; each is taken once.
pub(crate) struct Checkpoint {
    pub matrices: HashMap<String, Matrix>,
    pub vectors: HashMap<String, Vec<f32>>,
}

impl Checkpoint {
    /// Reads all files, matrices into `storage`, vectors into f32. At most one file is in memory besides the result.
    pub fn read(dir: &Path, storage: Storage, cpu: &Cpu) -> Result<Checkpoint, LoadError> {
        let mut checkpoint = Checkpoint { matrices: HashMap::new(), vectors: HashMap::new() };
        for file in files(dir)? {
            let bytes = std::fs::read(&file).map_err(|source| LoadError::Io { path: file.clone(), source })?;
            let container = Container::parse(Bytes::from(bytes), &Limits::checkpoint())
                .map_err(|refusal| fault(&file, refusal.message))?;
            for name in container.names() {
                let Some(view) = container.get(name) else { continue };
                checkpoint
                    .add(name, &view, storage, cpu)
                    .map_err(|message| fault(&file, format!("{name}: {message}")))?;
            }
        }
        Ok(checkpoint)
    }

    fn add(&mut self, name: &str, view: &TensorView<'_>, storage: Storage, cpu: &Cpu) -> Result<(), String> {
        let not_served = || format!("element type {} is not supported", view.dtype.name());
        let known = match *view.shape {
            [size] => {
                let vector = view.to_f32().ok_or_else(not_served)?;
                debug_assert_eq!(vector.len(), size);
                self.vectors.insert(name.to_owned(), vector).is_some()
            }
            [outputs, inputs] if outputs > 0 && inputs > 0 => {
                let read = row_reader(view).ok_or_else(not_served)?;
                let matrix = Matrix::from_rows(cpu, outputs, inputs, storage, read);
                self.matrices.insert(name.to_owned(), matrix).is_some()
            }
            _ => return Err(format!("shape {:?} is neither a vector nor a matrix", view.shape)),
        };
        if known { Err("it stands in two files".into()) } else { Ok(()) }
    }
}

impl TensorSource for Checkpoint {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, LoadError> {
        let matrix = self.matrices.remove(name).ok_or_else(|| missing(name))?;
        let found = [matrix.outputs(), matrix.inputs()];
        if found == [outputs, inputs] { Ok(matrix) } else { Err(misshapen(name, &found, &[outputs, inputs])) }
    }

    fn vector(&mut self, name: &str, size: usize) -> Result<Vec<f32>, LoadError> {
        let vector = self.vectors.remove(name).ok_or_else(|| missing(name))?;
        if vector.len() == size { Ok(vector) } else { Err(misshapen(name, &[vector.len()], &[size])) }
    }

    fn finish(self) -> Result<(), LoadError> {
        finish(self.matrices.into_keys().chain(self.vectors.into_keys()))
    }

    fn has(&self, name: &str) -> bool {
        self.matrices.contains_key(name) || self.vectors.contains_key(name)
    }
}

/// Writes row `i` of a matrix as f32.
type RowReader<'a> = Box<dyn Fn(usize, &mut [f32]) + Sync + 'a>;

/// The rows of a two-dimensional tensor. `None` for element types that are not served.
fn row_reader<'a>(view: &TensorView<'a>) -> Option<RowReader<'a>> {
    let data = view.data;
    fn fill<const N: usize>(row: &mut [f32], index: usize, data: &[u8], widen: impl Fn([u8; N]) -> f32) {
        let bytes = &data[index * row.len() * N..][..row.len() * N];
        for (value, bytes) in row.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = widen(*bytes);
        }
    }
    match view.dtype {
        adapters::Dtype::F32 => Some(Box::new(move |i, row| fill(row, i, data, f32::from_le_bytes))),
        adapters::Dtype::F16 => {
            Some(Box::new(move |i, row| fill(row, i, data, |b| half::f16::from_le_bytes(b).to_f32())))
        }
        adapters::Dtype::BF16 => {
            Some(Box::new(move |i, row| fill(row, i, data, |b| half::bf16::from_le_bytes(b).to_f32())))
        }
        _ => None,
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.is_file() || !index.is_file() {
        return Ok(vec![single]);
    }
    let text = std::fs::read(&index).map_err(|source| LoadError::Io { path: index.clone(), source })?;
    let index: Index = serde_json::from_slice(&text).map_err(|source| fault(&index, source.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn fault(file: &Path, message: String) -> LoadError {
    LoadError::Checkpoint { file: file.display().to_string(), message }
}

/// Fails if a tensor is left over, rotary tables of old checkpoints apart.
pub(crate) fn finish(left: impl Iterator<Item = String>) -> Result<(), LoadError> {
    match left.filter(|name| !name.ends_with(".rotary_emb.inv_freq")).min() {
        None => Ok(()),
        Some(name) => Err(LoadError::Checkpoint { file: name, message: "nothing takes this tensor".into() }),
    }
}

pub(crate) fn missing(name: &str) -> LoadError {
    LoadError::Checkpoint { file: name.to_owned(), message: "the checkpoint lacks this tensor".into() }
}

pub(crate) fn misshapen(name: &str, found: &[usize], want: &[usize]) -> LoadError {
    LoadError::Checkpoint { file: name.to_owned(), message: format!("shape {found:?}, config.json asks for {want:?}") }
}
