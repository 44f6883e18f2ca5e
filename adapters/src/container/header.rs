//! The header of a safetensors file: eight bytes of length, then JSON. It may be read from bytes in memory, from a
//! memory map, or from a stream whose data stays where it is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::Read;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::ContainerError;
use crate::dtype::Dtype;
use crate::limits::Limits;
use crate::refusal::clip;

/// Longest tensor name and longest metadata text, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
const LENGTH_BYTES: usize = 8;

/// The checked layout of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    tensors: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

/// Where one tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes in the file, counted from its first byte.
    pub range: Range<usize>,
}

impl Header {
    /// Reads the header of a whole file, given as bytes (owned or mapped): every range is inside `file`.
    pub fn parse(file: &[u8], limits: &Limits) -> Result<Header, ContainerError> {
        let (length, rest) = file.split_first_chunk::<LENGTH_BYTES>().ok_or(ContainerError::TooShort)?;
        let length = header_length(*length, file.len(), limits)?;
        let json = rest.get(..length).ok_or(ContainerError::HeaderPastEnd { found: length as u64 })?;
        Header::from_json(json, file.len(), limits)
    }

    /// Reads the header from the start of a stream of `file_bytes` bytes and leaves the stream at the first byte of
    /// data.
    ///
    /// The outer error is the stream's, the inner one the format's.
    pub fn read(
        stream: &mut impl Read,
        file_bytes: usize,
        limits: &Limits,
    ) -> std::io::Result<Result<Header, ContainerError>> {
        if file_bytes < LENGTH_BYTES {
            return Ok(Err(ContainerError::TooShort));
        }
        let mut length = [0; LENGTH_BYTES];
        stream.read_exact(&mut length)?;
        let length = match header_length(length, file_bytes, limits) {
            Ok(length) => length,
            Err(fault) => return Ok(Err(fault)),
        };
        let mut json = vec![0; length];
        stream.read_exact(&mut json)?;
        Ok(Header::from_json(&json, file_bytes, limits))
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// The free text of `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn from_json(json: &[u8], file_bytes: usize, limits: &Limits) -> Result<Header, ContainerError> {
        if json.first() != Some(&b'{') {
            return Err(ContainerError::HeaderStart);
        }
        let mut raw = RawHeader { tensors: BTreeMap::new(), metadata: BTreeMap::new(), overflow: false };
        let mut parser = serde_json::Deserializer::from_slice(json);
        let seed = HeaderSeed { limits, raw: &mut raw };
        let read = seed.deserialize(&mut parser).and_then(|()| parser.end());
        if raw.overflow {
            return Err(ContainerError::TooManyTensors { limit: limits.tensors_max });
        }
        read.map_err(|fault| ContainerError::Header(clip(&fault.to_string(), 256)))?;

        let data_start = LENGTH_BYTES + json.len();
        let data_bytes = file_bytes.saturating_sub(data_start);
        tile(&raw.tensors, data_bytes)?;
        let place = |info: RawTensor| {
            let [begin, end] = info.data_offsets;
            // within the file: `tile` has checked end <= data_bytes
            TensorEntry { dtype: info.dtype, shape: info.shape, range: data_start + begin..data_start + end }
        };
        let tensors = raw.tensors.into_iter().map(|(name, info)| (name, place(info))).collect();
        Ok(Header { tensors, metadata: raw.metadata })
    }
}

fn header_length(bytes: [u8; LENGTH_BYTES], file_bytes: usize, limits: &Limits) -> Result<usize, ContainerError> {
    let found = u64::from_le_bytes(bytes);
    let left = file_bytes.saturating_sub(LENGTH_BYTES);
    let length = usize::try_from(found).ok().filter(|length| *length <= left);
    let length = length.ok_or(ContainerError::HeaderPastEnd { found })?;
    let limit = limits.header_bytes_max;
    if length > limit { Err(ContainerError::HeaderTooLarge { found, limit }) } else { Ok(length) }
}

/// Checks that the ranges, in order, cover `data_bytes` bytes exactly, and that each holds its tensor.
fn tile(tensors: &BTreeMap<String, RawTensor>, data_bytes: usize) -> Result<(), ContainerError> {
    let mut ordered: Vec<(&str, &RawTensor)> = tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    ordered.sort_by_key(|(_, info)| info.data_offsets);
    let mut position = 0;
    for (name, info) in ordered {
        let tensor = |fault: String| ContainerError::Tensor { tensor: clip(name, 256), fault };
        let [begin, end] = info.data_offsets;
        if end > data_bytes {
            return Err(tensor(format!("its data ends at {end}, past the {data_bytes} bytes of data")));
        }
        let needed = byte_size(info).ok_or_else(|| tensor("its size overflows".into()))?;
        if needed == 0 {
            return Err(tensor("it has no elements".into()));
        }
        let found = end.checked_sub(begin).ok_or_else(|| tensor("its data ends before it begins".into()))?;
        if found != needed {
            return Err(tensor(format!("shape and type need {needed} bytes, the offsets span {found}")));
        }
        if begin < position {
            return Err(ContainerError::Overlap { tensor: clip(name, 256), begin });
        }
        if begin > position {
            return Err(ContainerError::Hole { offset: position, bytes: begin - position });
        }
        position = end;
    }
    match data_bytes - position {
        0 => Ok(()),
        bytes => Err(ContainerError::Hole { offset: position, bytes }),
    }
}

fn byte_size(info: &RawTensor) -> Option<usize> {
    info.shape.iter().try_fold(info.dtype.size(), |bytes, extent| bytes.checked_mul(*extent))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Dtype,
    #[serde(deserialize_with = "bounded_shape")]
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// More dimensions than any limit allows; the configured limit is checked where it is at hand.
const DIMENSIONS_CEILING: usize = 32;

fn bounded_shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct Shape;
    impl<'de> Visitor<'de> for Shape {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a list of sizes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while let Some(extent) = seq.next_element()? {
                if shape.len() == DIMENSIONS_CEILING {
                    return Err(A::Error::custom("too many dimensions"));
                }
                shape.push(extent);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(Shape)
}

struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
    overflow: bool,
}

struct HeaderSeed<'a> {
    limits: &'a Limits,
    raw: &'a mut RawHeader,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut metadata_seen = false;
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > TEXT_BYTES_MAX {
                return Err(A::Error::custom("a tensor name is too long"));
            }
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata_seen, true) {
                    return Err(A::Error::custom("`__metadata__` stands twice"));
                }
                self.raw.metadata = map.next_value::<Metadata>()?.0;
                continue;
            }
            if self.raw.tensors.len() == self.limits.tensors_max {
                self.raw.overflow = true;
                return Err(A::Error::custom("too many tensors"));
            }
            match self.raw.tensors.entry(name) {
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!("tensor `{}` stands twice", clip(entry.key(), 128))));
                }
                Entry::Vacant(entry) => {
                    let info: RawTensor = map.next_value()?;
                    if info.shape.len() > self.limits.dimensions_max {
                        return Err(A::Error::custom(format_args!(
                            "tensor `{}` has {} dimensions, {} are allowed",
                            clip(entry.key(), 128),
                            info.shape.len(),
                            self.limits.dimensions_max
                        )));
                    }
                    entry.insert(info);
                }
            }
        }
        Ok(())
    }
}

/// `__metadata__`: text to text, no key twice, `null` as nothing.
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_unit<E>(self) -> Result<Metadata, E> {
                Ok(Metadata(BTreeMap::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if texts.contains_key(&key) {
                        map.next_value::<IgnoredAny>()?;
                        return Err(A::Error::custom("a key of `__metadata__` stands twice"));
                    }
                    texts.insert(key, map.next_value()?);
                }
                Ok(Metadata(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}
