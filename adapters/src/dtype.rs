//! Element types of the safetensors format: their sizes, and exact conversion of the three float types that
//! adapters use. It does not quantise and does no arithmetic.

use serde::{Deserialize, Serialize};

/// An element type of the safetensors format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(non_camel_case_types)] // the names are those of the format
pub enum Dtype {
    BOOL,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
    C64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::BOOL | Dtype::U8 | Dtype::I8 => 1,
            Dtype::F8_E5M2 | Dtype::F8_E4M3 | Dtype::F8_E8M0 => 1,
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 | Dtype::C64 => 8,
        }
    }

    /// Whether adapters and bases may use it: F32, F16 or BF16.
    pub fn is_served(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// The name in the format, such as `BF16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::BOOL => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::F8_E5M2 => "F8_E5M2",
            Dtype::F8_E4M3 => "F8_E4M3",
            Dtype::F8_E8M0 => "F8_E8M0",
            Dtype::I16 => "I16",
            Dtype::U16 => "U16",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::I32 => "I32",
            Dtype::U32 => "U32",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
            Dtype::I64 => "I64",
            Dtype::U64 => "U64",
            Dtype::C64 => "C64",
        }
    }

    /// Little-endian elements of a served type as `f32`, exactly. `None` for the other types.
    pub fn decode(self, data: &[u8]) -> Option<Vec<f32>> {
        let (pairs, words) = (data.as_chunks::<2>().0, data.as_chunks::<4>().0);
        match self {
            Dtype::F32 => Some(words.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Dtype::F16 => Some(pairs.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()),
            Dtype::BF16 => Some(pairs.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()),
            _ => None,
        }
    }

    /// As [`Dtype::decode`], into `out` of as many.
    ///
    /// # Panics
    /// If the type is not served, or there are not as many.
    pub fn decode_into(self, data: &[u8], out: &mut [f32]) {
        assert_eq!(data.len(), out.len() * self.size(), "as many elements");
        let (pairs, words) = (data.as_chunks::<2>().0.iter(), data.as_chunks::<4>().0.iter());
        match self {
            Dtype::F32 => words.zip(out).for_each(|(b, out)| *out = f32::from_le_bytes(*b)),
            Dtype::F16 => pairs.zip(out).for_each(|(b, out)| *out = half::f16::from_le_bytes(*b).to_f32()),
            Dtype::BF16 => pairs.zip(out).for_each(|(b, out)| *out = half::bf16::from_le_bytes(*b).to_f32()),
            _ => panic!("{} is not served", self.name()),
        }
    }

    /// Element `index` of little-endian elements, as [`Dtype::decode`] has it. `None` beyond the end too.
    pub(crate) fn element(self, data: &[u8], index: usize) -> Option<f32> {
        let (pairs, words) = (data.as_chunks::<2>().0, data.as_chunks::<4>().0);
        match self {
            Dtype::F32 => words.get(index).map(|b| f32::from_le_bytes(*b)),
            Dtype::F16 => pairs.get(index).map(|b| half::f16::from_le_bytes(*b).to_f32()),
            Dtype::BF16 => pairs.get(index).map(|b| half::bf16::from_le_bytes(*b).to_f32()),
            _ => None,
        }
    }

    /// The largest magnitude of all elements, 0 if there are none; not finite exactly if an element is NaN or infinite.
    /// `None` for types that are not served.
    pub fn largest(self, data: &[u8]) -> Option<f32> {
        // Without their sign, bit patterns are ordered as magnitudes are, with infinity and NaN above all numbers.
        let half =
            || data.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b) & i16::MAX).fold(0, i16::max) as u16;
        match self {
            Dtype::F32 => {
                let magnitudes = data.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b) & i32::MAX);
                Some(f32::from_bits(magnitudes.fold(0, i32::max) as u32))
            }
            Dtype::F16 => Some(half::f16::from_bits(half()).to_f32()),
            Dtype::BF16 => Some(half::bf16::from_bits(half()).to_f32()),
            _ => None,
        }
    }

    /// Appends `value` as an element of this type, rounded to nearest even. Served types only; others append
    /// nothing.
    pub(crate) fn encode(self, value: f32, out: &mut Vec<u8>) {
        match self {
            Dtype::F32 => out.extend_from_slice(&value.to_le_bytes()),
            Dtype::F16 => out.extend_from_slice(&half::f16::from_f32(value).to_le_bytes()),
            Dtype::BF16 => out.extend_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            _ => {}
        }
    }
}
