//! Images of a model whose adapters are in int8.

use super::*;
use crate::model::{Dtype, ModelOptions};

fn model(adapter_dtype: Option<Dtype>) -> Model {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
    Model::load(&dir, &ModelOptions { adapter_dtype, ..ModelOptions::new(Dtype::Int8) })
        .expect("the shipped base loads")
}

#[test]
fn adapters_are_held_as_the_base_is_or_in_the_type_that_is_named() {
    for (model, storage) in [(model(None), Storage::Int8), (model(Some(Dtype::Bf16)), Storage::Bf16)] {
        let adapter = Adapter::of_image(&model, identity().key.digest, &shipped(&model, "finance")).unwrap();
        let loras: Vec<_> = adapter.layers.iter().flatten().filter_map(|change| change.lora.as_ref()).collect();
        assert!(!loras.is_empty());
        assert!(loras.iter().all(|lora| [lora.a(), lora.b()].iter().all(|matrix| matrix.storage() == storage)));
    }
}

#[test]
fn an_image_in_int8_comes_back_and_one_of_another_storage_is_refused() {
    let (int8, bf16) = (model(None), model(Some(Dtype::Bf16)));
    let identity_of = |model: &Model| Identity { storage: Adapter::storage_number(model), ..identity() };
    let sealed = |model: &Model| shipped(model, "finance").seal(&identity_of(model)).unwrap();
    let image = sealed(&int8);
    let served = Adapter::of_image(&int8, identity().key.digest, &shipped(&int8, "finance")).unwrap();
    let unpacked = Adapter::unpack(&int8, &identity_of(&int8), image.clone()).unwrap();
    for (served, unpacked) in served.layers.iter().flatten().zip(unpacked.layers.iter().flatten()) {
        let packed = |change: &LinearChange| change.lora.as_ref().map(|lora| lora.b().packed().to_vec());
        assert_eq!(packed(served), packed(unpacked));
    }
    assert_eq!(Adapter::unpack(&bf16, &identity_of(&bf16), image).map(drop), Err(Damage::Identity));
    assert_eq!(Adapter::unpack(&int8, &identity_of(&int8), sealed(&bf16)).map(drop), Err(Damage::Identity));
}
