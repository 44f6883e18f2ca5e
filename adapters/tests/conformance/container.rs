//! The safetensors container: every way to lie about the layout, and whatever bytes come.

use std::collections::BTreeMap;

use adapters::{Code, Container, Dtype, Limits};
use proptest::prelude::*;

use crate::synthetic::*;

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[track_caller]
fn refused(file: Vec<u8>) -> String {
    let refusal = parse(file).expect_err("accepted");
    assert_eq!(codes(std::slice::from_ref(&refusal)), [Code::Container]);
    refusal.message
}

#[track_caller]
fn refused_header(header: &str, data_bytes: usize) -> String {
    refused(raw_safetensors(header, &vec![0; data_bytes]))
}

#[test]
fn f05_a_sound_container_is_read() {
    let container = parse(raw_safetensors(&format!("{ONE}   "), &[0, 0, 128, 63, 0, 0, 0, 64])).unwrap();
    let tensor = container.get("a").unwrap();
    assert_eq!((tensor.dtype, tensor.shape, tensor.to_f32().unwrap()), (Dtype::F32, &[2][..], vec![1.0, 2.0]));
    assert!(container.get("b").is_none());
    assert_eq!(container.names().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn f05_headers_that_lie_about_their_length_are_refused() {
    refused(vec![]);
    refused(vec![1, 0, 0, 0, 0, 0, 0]);
    refused(5u64.to_le_bytes().to_vec());
    refused(0u64.to_le_bytes().to_vec());
    let mut longer = raw_safetensors(ONE, &[0; 8]);
    longer[0] += 9;
    refused(longer);
    for length in [100_000_001u64, 1 << 62, u64::MAX] {
        let mut bomb = length.to_le_bytes().to_vec();
        bomb.extend(b"{}");
        assert_eq!(parse(bomb).unwrap_err().code, Code::Container, "{length}");
    }
}

#[test]
fn f05_headers_that_are_not_the_json_of_the_format_are_refused() {
    for header in ["", " {}", "[]", "{", "null", "{}x", r#"{"a":1}"#, r#"{"a":{"dtype":"F32","shape":[2]}}"#] {
        refused_header(header, 0);
    }
    for header in [
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}"#,
        r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]}}"#,
        r#"{"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
    ] {
        refused_header(header, 8);
    }
    let mut not_utf8 = raw_safetensors(ONE, &[0; 8]);
    not_utf8[10] = 0xff;
    refused(not_utf8);
    let deep = format!("{}{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
    refused_header(&deep, 0);
}

#[test]
fn f05_duplicate_keys_are_refused() {
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    assert!(refused_header(twice, 8).contains("twice"));
    let escaped = twice.replacen(r#""a""#, r#""\u0061""#, 1);
    assert!(refused_header(&escaped, 8).contains("twice"));
    refused_header(r#"{"__metadata__":{},"__metadata__":{}}"#, 0);
    refused_header(r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0);
    refused_header(r#"{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
}

#[test]
fn f05_sizes_that_overflow_are_refused() {
    for shape in
        ["[4611686018427387904,4]", "[18446744073709551615]", "[4294967296,4294967296]", "[99999999999999999999]"]
    {
        refused_header(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#), 8);
    }
    refused_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}"#, 8);
    refused_header(
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}}"#,
        8,
    );
}

#[test]
fn f05_offsets_that_do_not_tile_the_data_are_refused() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{first}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{second}}}}}"#
        )
    };
    assert!(parse(raw_safetensors(&two("[0,4]", "[4,8]"), &[0; 8])).is_ok());
    assert!(parse(raw_safetensors(&two("[4,8]", "[0,4]"), &[0; 8])).is_ok());
    let overlap = [("[0,4]", "[0,4]"), ("[0,4]", "[2,6]"), ("[0,4]", "[3,7]")];
    for (first, second) in overlap {
        assert!(refused_header(&two(first, second), 8).contains("another tensor"), "{first} {second}");
    }
    for (first, second, bytes) in [("[0,4]", "[8,12]", 12), ("[4,8]", "[8,12]", 12), ("[0,4]", "[4,8]", 12)] {
        assert!(refused_header(&two(first, second), bytes).contains("belong to no tensor"), "{first} {second}");
    }
    assert!(refused_header(&two("[0,4]", "[4,8]"), 7).contains("past"));
    assert!(refused_header(&two("[0,4]", "[8,4]"), 8).contains("before it begins"));
    assert!(refused_header(&two("[0,4]", "[4,7]"), 7).contains("need 4 bytes"));
    assert!(refused_header("{}", 1).contains("belong to no tensor"));
}

#[test]
fn f05_tensors_without_elements_that_share_offsets_are_refused() {
    for shape in ["[0]", "[0,18446744073709551615]", "[3,0]"] {
        let empty = format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}"#);
        refused_header(&format!(r#"{{"a":{empty},"b":{empty}}}"#), 0);
        refused_header(&format!(r#"{{"a":{empty}}}"#), 0);
        refused_header(&format!(r#"{{"a":{empty},"c":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#), 8);
    }
}

#[test]
fn f06_the_three_float_types_are_accepted_and_others_refused() {
    let mut norms = Vec::new();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let mut adapter = Adapter::plain();
        adapter.tensors.values_mut().for_each(|tensor| tensor.dtype = dtype);
        let plan = adapter.accepted(&LLAMA);
        assert_eq!(plan.receipt.modules[0].dtype, dtype);
        norms.push(plan.receipt.delta_norm);
    }
    assert_eq!(norms[0], norms[1], "the values are exact in every type");
    assert_eq!(norms[0], norms[2]);
    for dtype in [Dtype::F64, Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::I8, Dtype::I32, Dtype::I64, Dtype::BOOL, Dtype::U8]
    {
        let mut adapter = Adapter::plain();
        adapter.tensors.first_entry().unwrap().get_mut().dtype = dtype;
        assert_eq!(adapter.refused(&LLAMA), [Code::Dtype], "{dtype:?}");
    }
}

#[test]
fn f07_nan_and_infinity_are_refused_in_every_type() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut adapter = Adapter::plain();
            let tensor = adapter.tensors.last_entry().unwrap().into_mut();
            tensor.dtype = dtype;
            *tensor.values.last_mut().unwrap() = value;
            assert_eq!(adapter.refused(&LLAMA), [Code::NonFinite], "{dtype:?} {value}");
        }
    }
}

#[test]
fn f07_a_change_that_no_f32_can_hold_is_refused() {
    for alpha in [1e308, -1e300, 1e39] {
        let refused = Adapter::plain().with("lora_alpha", serde_json::json!(alpha)).refused(&LLAMA);
        assert!(!refused.is_empty() && refused.iter().all(|code| *code == Code::NonFinite), "{alpha}: {refused:?}");
    }
}

/// What holds for every accepted file: each view lies in the data, has the bytes its shape needs, and all of them
/// together are the data.
fn check_accepted(container: &Container) {
    let mut total = 0;
    for name in container.names() {
        let tensor = container.get(name).expect("a listed tensor is there");
        assert_eq!(tensor.data.len(), tensor.elements() * tensor.dtype.size());
        assert!(!tensor.data.is_empty());
        if let Some(values) = tensor.to_f32() {
            assert_eq!(values.len(), tensor.elements());
        }
        total += tensor.data.len();
    }
    let header = u64::from_le_bytes(container.bytes()[..8].try_into().unwrap()) as usize;
    assert_eq!(8 + header + total, container.bytes().len());
}

fn valid() -> Vec<u8> {
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I8];
    let tensor = |(index, dtype): (usize, Dtype)| {
        (format!("t{index}"), Tensor::random(&[index + 1, 3], index as u32).stored_as(dtype))
    };
    safetensors(&dtypes.into_iter().enumerate().map(tensor).collect::<BTreeMap<_, _>>())
}

proptest! {
    #[test]
    fn f05_arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(container) = parse(bytes) {
            check_accepted(&container);
        }
    }

    #[test]
    fn f05_arbitrary_headers_never_panic(header in "[\\[\\]{}\":,a0-9 ]{0,200}", data in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(container) = parse(raw_safetensors(&header, &data)) {
            check_accepted(&container);
        }
    }

    #[test]
    fn f05_plausible_headers_never_panic(
        entries in prop::collection::vec(("[ab]", 0usize..3, prop::collection::vec(0u64..5, 0..3), 0u64..20, 0u64..20), 0..4),
        data in 0usize..40,
    ) {
        let dtype = ["F32", "BF16", "U8"];
        let entries: Vec<String> = entries.iter().map(|(name, kind, shape, begin, end)| {
            format!(r#""{name}":{{"dtype":"{}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#, dtype[*kind])
        }).collect();
        if let Ok(container) = parse(raw_safetensors(&format!("{{{}}}", entries.join(",")), &vec![0; data])) {
            check_accepted(&container);
        }
    }

    #[test]
    fn f05_mutated_files_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<Option<prop::sample::Index>>()) {
        let mut file = valid();
        for (at, byte) in edits {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(container) = parse(file) {
            check_accepted(&container);
        }
    }
}

#[test]
fn f05_every_truncation_and_every_bit_of_the_header_is_survived() {
    let file = valid();
    check_accepted(&parse(file.clone()).unwrap());
    for length in 0..file.len() {
        assert!(parse(file[..length].to_vec()).is_err(), "{length}");
    }
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    for bit in 0..(8 + header) * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(container) = parse(flipped) {
            check_accepted(&container);
        }
    }
}

#[test]
fn the_container_limits_can_be_hit() {
    let file = valid();
    let limited = |limits: Limits| Container::parse(file.clone().into(), &limits).map(drop).unwrap_err().code;
    assert_eq!(limited(Limits { weights_bytes_max: file.len() as u64 - 1, ..Limits::default() }), Code::Quota);
    assert_eq!(limited(Limits { header_bytes_max: 50, ..Limits::default() }), Code::Quota);
    assert_eq!(limited(Limits { tensors_max: 3, ..Limits::default() }), Code::Quota);
    assert_eq!(limited(Limits { dimensions_max: 1, ..Limits::default() }), Code::Container);
    let exact = Limits { weights_bytes_max: file.len() as u64, tensors_max: 4, dimensions_max: 2, ..Limits::default() };
    assert!(Container::parse(file.into(), &exact).is_ok());
}
