//! Images of a model whose adapters are in int8.

use super::*;
use crate::model::{Dtype, ModelOptions};

fn model(adapter_dtype: Option<Dtype>) -> Model {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
    Model::load(&dir, &ModelOptions { adapter_dtype, ..ModelOptions::new(Dtype::Int8) })
        .expect("the shipped base loads")
}

fn load(model: &Model) -> Adapter {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/industries/finance");
    let limits = Limits::default();
    let files = Files::read(&dir, &limits).unwrap();
    let weights = Container::parse(files.weights, &limits).unwrap();
    let plan = adapters::resolve(&files.config, &weights, model.base(), &limits).unwrap();
    Adapter::load(model, &plan, &weights).unwrap()
}

#[test]
fn adapters_are_held_in_the_type_that_is_named_and_beside_an_int8_base_in_bf16_by_default() {
    for (model, storage) in [(model(Some(Dtype::Int8)), Storage::Int8), (model(None), Storage::Bf16)] {
        let adapter = load(&model);
        let loras: Vec<_> = adapter.layers.iter().flatten().filter_map(|change| change.lora.as_ref()).collect();
        assert!(!loras.is_empty());
        assert!(loras.iter().all(|lora| [lora.a(), lora.b()].iter().all(|matrix| matrix.storage() == storage)));
    }
}

#[test]
fn an_image_in_int8_comes_back_and_one_of_another_storage_is_refused() {
    let (int8, bf16) = (model(Some(Dtype::Int8)), model(None));
    let identity_of = |model: &Model| Identity { storage: Adapter::storage_number(model), ..identity() };
    let image = load(&int8).pack(&identity_of(&int8)).unwrap();
    let unpacked = Adapter::unpack(&int8, &identity_of(&int8), image.clone()).unwrap();
    assert_eq!(unpacked.pack(&identity_of(&int8)).unwrap()[..], image[..]);
    let of_bf16 = load(&bf16).pack(&identity_of(&bf16)).unwrap();
    assert_eq!(Adapter::unpack(&bf16, &identity_of(&bf16), image).map(drop), Err(Damage::Identity));
    assert_eq!(Adapter::unpack(&int8, &identity_of(&int8), of_bf16).map(drop), Err(Damage::Identity));
}
