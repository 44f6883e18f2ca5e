use std::path::Path;
use std::sync::LazyLock;

use adapters::{Container, Dtype, Files, Limits};
use domain::{Digest, TenantId};

use kernels::{Buffer, Matrix, Storage};

use super::*;
use crate::lora::unpack::size;
use crate::lora::{EmbeddingLora, LinearChange};
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

fn shipped(model: &Model, name: &str) -> Image {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/industries").join(name);
    let limits = Limits::default();
    let files = Files::read(&dir, &limits).unwrap();
    let weights = Container::parse(files.weights, &limits).unwrap();
    let plan = adapters::judge(&files.config, &weights, model.base(), &limits).unwrap();
    Adapter::pack(model, &plan, &weights).unwrap()
}

/// Every value of an adapter differs from its neighbours, and none needs rounding.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|n| (n % 97) as f32 / 64.0 - 0.5).collect()
}

/// Rank of each slot in the first layer of [`everything`].
const RANKS: [usize; 7] = [1, 2, 8, 16, 17, 32, 64];

/// An adapter that has everything an adapter can have, in sizes that fit the model: mixed ranks in layer 0, biases alone
/// in layer 1, nothing behind it.
fn everything() -> Image {
    let config = MODEL.config();
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let elements: Vec<u8> = values(vocab * hidden.max(64)).iter().flat_map(|value| value.to_le_bytes()).collect();
    let of = |[rows, columns]: [usize; 2]| (Dtype::F32, &elements[..4 * rows * columns]);
    let mut parts = Parts::new(MODEL.adapter_storage());
    let mut change = |place: Place, [outputs, inputs]: [usize; 2], rank: usize| {
        let [a, b, scale, vectors @ ..] = place.linear_kinds();
        for (kind, shape) in [(b, [outputs, rank]), (a, [rank, inputs])] {
            parts.matrix(kind, place, shape, of(shape)).unwrap();
        }
        vectors.into_iter().for_each(|kind| parts.vector(kind, place, values(outputs)).unwrap());
        parts.vector(scale, place, vec![0.5]).unwrap();
    };
    for (n, slot) in Slot::ALL.into_iter().enumerate() {
        change(Place::Linear(0, n as u16), slot.shape(config).0, RANKS[n]);
    }
    change(Place::Head, [vocab, hidden], 4);
    for (n, slot) in Slot::ALL.into_iter().enumerate() {
        parts.vector(Kind::Bias, Place::Linear(1, n as u16), values(slot.shape(config).0[0])).unwrap();
    }
    for (kind, place) in [(Kind::EmbedPrivate, Place::Embed), (Kind::HeadPrivate, Place::Head)] {
        parts.matrix(kind, place, [vocab, hidden], of([vocab, hidden])).unwrap();
    }
    parts.push(Kind::EmbedA, Place::Embed, [vocab, 3], Content::Values(values(vocab * 3))).unwrap();
    parts.push(Kind::EmbedB, Place::Embed, [3, hidden], Content::Values(values(3 * hidden))).unwrap();
    parts.vector(Kind::EmbedScale, Place::Embed, vec![0.25]).unwrap();
    parts.vector(Kind::EmbedGain, Place::Embed, values(hidden)).unwrap();
    parts.into_image().unwrap()
}

/// What the matrix was made from, if it was made by [`everything`].
fn assert_holds(matrix: &Matrix, shape: [usize; 2]) {
    assert_eq!([matrix.outputs(), matrix.inputs()], shape);
    let mut row = vec![0.0; shape[1]];
    for (n, expected) in values(shape[0] * shape[1]).chunks(shape[1]).enumerate() {
        matrix.read_row(n, &mut row);
        assert_eq!(row, expected);
    }
}

mod cold_load;
mod int8;

#[test]
fn an_image_serves_the_same_before_it_is_kept_and_when_it_comes_back() {
    for mut image in [shipped(&MODEL, "finance"), shipped(&MODEL, "legal"), everything()] {
        let sealed = image.seal(&identity()).unwrap();
        let served = Adapter::of_image(&MODEL, identity().key.digest, &image).unwrap();
        let unpacked =
            Adapter::unpack(&MODEL, &identity(), Buffer::read(&mut &sealed[..], sealed.len()).unwrap()).unwrap();
        assert!(image.seal(&identity()).is_none(), "somebody uses it");
        let inside = |part: &[u8]| sealed.as_ptr_range().contains(&part.as_ptr());
        let mut loras = 0;
        for (served, unpacked) in served.layers.iter().flatten().zip(unpacked.layers.iter().flatten()) {
            let matrices = |change: &LinearChange| {
                change.lora.iter().flat_map(|lora| [lora.a().clone(), lora.b().clone()]).collect::<Vec<_>>()
            };
            let vectors = |change: &LinearChange| {
                let scale = change.lora.as_ref().map(|lora| vec![lora.scale()]);
                [scale, change.gain.clone(), change.lora_bias.clone(), change.bias.clone()]
            };
            for (served, unpacked) in matrices(served).iter().zip(matrices(unpacked)) {
                assert!(inside(served.packed()) && !inside(unpacked.packed()));
                assert_eq!(served.packed(), unpacked.packed());
                loras += 1;
            }
            assert_eq!(vectors(served), vectors(unpacked));
        }
        assert!(loras > 0);
        assert_eq!((unpacked.digest(), unpacked.base_digest), (identity().key.digest, MODEL.base().digest()));
        assert_eq!(served.bytes(), unpacked.bytes());
        assert!(unpacked.bytes() >= sealed.len());
        assert!(unpacked.embed.lora.is_some() || unpacked.bytes() < sealed.len() + sealed.len() / 4);
    }
}

#[test]
fn every_part_comes_to_its_place() {
    let adapter = Adapter::of_image(&MODEL, identity().key.digest, &everything()).unwrap();
    let config = MODEL.config();
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let check = |change: &LinearChange, [outputs, inputs]: [usize; 2], rank: usize| {
        let lora = change.lora.as_ref().unwrap();
        assert_holds(lora.a(), [rank, inputs]);
        assert_holds(lora.b(), [outputs, rank]);
        assert_eq!(lora.scale(), 0.5);
        for vector in [&change.gain, &change.lora_bias, &change.bias] {
            assert_eq!(vector.as_deref(), Some(&values(outputs)[..]));
        }
    };
    for (n, slot) in Slot::ALL.into_iter().enumerate() {
        let shape = slot.shape(config).0;
        check(adapter.linear(0, slot), shape, RANKS[n]);
        let bias_alone = adapter.linear(1, slot);
        assert_eq!(bias_alone.bias.as_deref(), Some(&values(shape[0])[..]));
        assert!(bias_alone.lora.is_none() && bias_alone.gain.is_none() && bias_alone.lora_bias.is_none());
        assert!(adapter.linear(2, slot).is_empty());
    }
    check(&adapter.head.change, [vocab, hidden], 4);
    assert_holds(adapter.head.private.as_ref().unwrap(), [vocab, hidden]);
    assert_holds(adapter.embed.private.as_ref().unwrap(), [vocab, hidden]);
    let EmbeddingLora { a, b, rank, scale } = adapter.embed.lora.unwrap();
    assert_eq!((a, b, rank, scale), (values(vocab * 3), values(3 * hidden), 3, 0.25));
    assert_eq!(adapter.embed.gain, Some(values(hidden)));
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
        let image = shipped(&MODEL, "finance").seal(&identity()).unwrap();
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
