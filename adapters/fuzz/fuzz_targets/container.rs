//! Any bytes as a safetensors file: no panic, and what is accepted lies within the file.

#![no_main]

use adapters::{Container, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(container) = Container::parse(bytes.to_vec().into(), &Limits::default()) else { return };
    for name in container.names() {
        let tensor = container.get(name).expect("a listed tensor is there");
        assert_eq!(tensor.data.len(), tensor.elements() * tensor.dtype.size());
        if let Some(values) = tensor.to_f32() {
            assert_eq!(values.len(), tensor.elements());
        }
    }
});
