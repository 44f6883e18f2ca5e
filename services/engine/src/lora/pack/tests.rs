use std::path::Path;
use std::sync::LazyLock;

use adapters::{Container, Files, Limits};
use domain::{Digest, TenantId};

use kernels::{Buffer, Lora, Matrix, Storage};

use super::*;
use crate::lora::unpack::size;
use crate::lora::{EmbeddingLora, HeadChange};
use crate::model::{Model, ModelConfig, Slot};
use crate::packed_adapter::{self, Damage};
use crate::residents::AdapterKey;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
    Model::load(&dir, &crate::model::ModelOptions::new(crate::model::Dtype::F32)).expect("the shipped base loads")
});

fn identity() -> Identity {
    let tenant = TenantId::new(uuid::Uuid::from_u128(1));
    let key = AdapterKey { tenant, digest: Digest::new([3; 32]) };
    Identity { key, base: MODEL.base().digest(), rules: 0, storage: Adapter::storage_number(&MODEL) }
}

fn shipped(name: &str) -> Adapter {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/industries").join(name);
    let limits = Limits::default();
    let files = Files::read(&dir, &limits).unwrap();
    let weights = Container::parse(files.weights, &limits).unwrap();
    let plan = adapters::resolve(&files.config, &weights, MODEL.base(), &limits).unwrap();
    Adapter::load(&MODEL, &plan, &weights).unwrap()
}

/// An adapter that has everything an adapter can have, in sizes that fit the model.
fn everything() -> Adapter {
    let mut adapter = shipped("finance");
    let config = MODEL.config();
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let values = |count: usize| (0..count).map(|n| (n % 97) as f32 / 97.0 - 0.4).collect::<Vec<f32>>();
    let storage = MODEL.adapter_storage();
    let matrix = |outputs, inputs| {
        Matrix::from_values(&kernels::Cpu::serial(), outputs, inputs, storage, &values(outputs * inputs))
    };
    let change = |outputs: usize, inputs: usize, rank: usize| LinearChange {
        lora: Some(Lora::from_parts(matrix(rank, inputs), matrix(outputs, rank), 0.5)),
        gain: Some(values(outputs)),
        lora_bias: Some(values(outputs)),
        bias: Some(values(outputs)),
    };
    for (n, slot) in Slot::ALL.into_iter().enumerate() {
        let ([outputs, inputs], _) = slot.shape(config);
        // Mixed ranks, one layer without A and B, another left out.
        adapter.layers[0][slot as usize] = change(outputs, inputs, [1, 2, 8, 16, 17, 32, 64][n]);
        adapter.layers[1][slot as usize] = LinearChange { bias: Some(values(outputs)), ..LinearChange::default() };
        adapter.layers[2][slot as usize] = LinearChange::default();
    }
    adapter.head = HeadChange { private: Some(matrix(vocab, hidden)), change: change(vocab, hidden, 4) };
    adapter.embed = EmbeddingChange {
        private: Some(matrix(vocab, hidden)),
        lora: Some(EmbeddingLora { a: values(vocab * 3), b: values(3 * hidden), rank: 3, scale: 0.25 }),
        gain: Some(values(hidden)),
    };
    adapter
}

mod cold_load;
mod int8;

#[test]
fn what_is_unpacked_packs_to_the_same_bytes_and_lies_in_the_image() {
    for adapter in [shipped("finance"), shipped("legal"), everything()] {
        let image = adapter.pack(&identity()).unwrap();
        let unpacked = Adapter::unpack(&MODEL, &identity(), image.clone()).unwrap();
        assert_eq!(unpacked.pack(&identity()).unwrap()[..], image[..]);
        assert_eq!((unpacked.digest(), unpacked.base_digest), (identity().key.digest, MODEL.base().digest()));
        let inside = |part: &[u8]| image.as_ptr_range().contains(&part.as_ptr());
        let loras = unpacked.layers.iter().flatten().filter_map(|change| change.lora.as_ref());
        assert!(loras.flat_map(|lora| [lora.a(), lora.b()]).all(|matrix| inside(matrix.packed())));
        assert!(unpacked.bytes() >= image.len());
        assert!(unpacked.embed.lora.is_some() || unpacked.bytes() < image.len() + image.len() / 4);
    }
}

/// Images whose checksums fit, but that no honest packer made.
#[test]
fn a_directory_that_does_not_fit_the_model_is_refused() {
    type Change = fn(&mut Vec<(Section, usize)>);
    let storage = MODEL.adapter_storage();
    let lies: [(&str, Change); 10] = [
        ("a layer that there is not", |sections| sections[0].0.layer = 999),
        ("a slot that there is not", |sections| sections[0].0.slot = 7),
        ("A without B", |sections| drop(sections.drain(1..2))),
        ("A and B without a scale", |sections| drop(sections.drain(2..3))),
        ("a scale alone", |sections| drop(sections.drain(..2))),
        ("the same twice", |sections| sections.insert(0, sections[0])),
        ("a place twice", |sections| sections.push(sections[3])),
        ("more inputs", |sections| sections[0].0.shape.columns += 1),
        ("another rank", |sections| sections[0].0.shape.rows += 16),
        ("no rows", |sections| sections[0].0.shape.rows = 0),
    ];
    let honest: Vec<_> = {
        let image = shipped("finance").pack(&identity()).unwrap();
        let entries = packed_adapter::read(&image, &identity(), |section| size(section, storage)).unwrap();
        entries.iter().map(|entry| (entry.section, entry.bytes)).collect()
    };
    let unpack = |sections: Vec<(Section, usize)>| {
        let sized = sections.into_iter().map(|(section, bytes)| (section, size(&section, storage).unwrap_or(bytes)));
        let layout = Layout::new(sized).unwrap();
        let mut image = Buffer::zeroed(layout.bytes());
        layout.seal(&identity(), image.get_mut().unwrap());
        Adapter::unpack(&MODEL, &identity(), image).map(drop)
    };
    assert_eq!(unpack(honest.clone()), Ok(()));
    for (lie, change) in lies {
        let mut sections = honest.clone();
        change(&mut sections);
        assert!(matches!(unpack(sections), Err(Damage::Section(_))), "{lie}");
    }
}
