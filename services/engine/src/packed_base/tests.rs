use std::path::PathBuf;

use super::*;
use crate::model::{Batch, BlockId, Dtype, LogitsRows, Model, SequenceSlice};

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base")
}

fn options(dtype: Dtype, folder: Option<&Path>) -> ModelOptions {
    ModelOptions { packed_dir: folder.map(Path::to_owned), ..ModelOptions::new(dtype) }
}

fn logits(model: &Model) -> Vec<u32> {
    let sequence = SequenceSlice {
        rows: 0..5,
        past: 0,
        blocks: &[BlockId(0)],
        adapter: None,
        logits: LogitsRows::All,
        rope_length: 5,
    };
    let mut bits = Vec::new();
    let batch = Batch { tokens: &[5, 6, 7, 8, 9], sequences: &[sequence] };
    model.forward(&batch, &mut model.new_kv_cache(1), &mut |_, values| bits.extend(values.iter().map(|v| v.to_bits())));
    bits
}

fn packed_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "packed")).collect()
}

#[test]
fn mapped_weights_give_the_bits_of_those_packed_in_memory() {
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        let folder = tempfile::tempdir().unwrap();
        let plain = Model::load(&base(), &options(dtype, None)).unwrap();
        for _ in 0..2 {
            let mapped = Model::load(&base(), &options(dtype, Some(folder.path()))).unwrap();
            assert_eq!(mapped.base().digest(), plain.base().digest());
            assert_eq!(logits(&mapped), logits(&plain), "{dtype:?}");
        }
        assert_eq!(packed_files(folder.path()).len(), 1);
    }
}

#[test]
fn damaged_packed_weights_are_packed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(Dtype::Int8, Some(folder.path()));
    let want = logits(&Model::load(&base(), &options).unwrap());
    let file = packed_files(folder.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    for damaged in [Vec::new(), whole[..40].to_vec(), whole[..whole.len() - 64].to_vec(), vec![b'x'; 4096]] {
        // A new file in its place, as every writer here does it: what is mapped elsewhere stays as it is.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(logits(&Model::load(&base(), &options).unwrap()), want);
        assert_eq!(std::fs::read(&file).unwrap().len(), whole.len());
    }
}

#[test]
fn a_checkpoint_whose_files_changed_is_read_again() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for entry in std::fs::read_dir(base()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let options = options(Dtype::Bf16, Some(folder.path()));
    let before = Model::load(copy.path(), &options).unwrap();
    let weights = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let after = Model::load(copy.path(), &options).unwrap();
    assert_ne!(before.base().digest(), after.base().digest());
    assert_eq!(packed_files(folder.path()).len(), 2);
}
