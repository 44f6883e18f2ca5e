//! The safetensors container, read strictly and within bounds: <https://github.com/huggingface/safetensors#format>.
//! It checks the whole layout before anybody sees a byte of data: unique names, known element types, sizes that do
//! not overflow, and data ranges that tile the file without overlap or hole. It does not judge names or values.

mod header;
mod write;

use std::ops::Range;

use bytes::Bytes;

pub use header::{Header, TensorEntry};
pub use write::{NewTensor, write};

use crate::dtype::Dtype;
use crate::limits::Limits;
use crate::plan::TensorRef;
use crate::refusal::{Code, Refusal};

/// Why a file is not a safetensors container that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    #[error("the file is {found} bytes long, {limit} are allowed")]
    FileTooLarge { found: u64, limit: u64 },
    #[error("the file is too short for a safetensors header")]
    TooShort,
    #[error("the header says that it is {found} bytes long, {limit} are allowed")]
    HeaderTooLarge { found: u64, limit: usize },
    #[error("the header says that it is {found} bytes long and the file ends before that")]
    HeaderPastEnd { found: u64 },
    #[error("the header does not begin with `{{`")]
    HeaderStart,
    #[error("the header is not the JSON of safetensors: {0}")]
    Header(String),
    #[error("more than {limit} tensors")]
    TooManyTensors { limit: usize },
    #[error("tensor `{tensor}`: {fault}")]
    Tensor { tensor: String, fault: String },
    #[error("{bytes} bytes of data from offset {offset} belong to no tensor")]
    Hole { offset: usize, bytes: usize },
    #[error("the data of `{tensor}` begins at {begin}, inside that of another tensor")]
    Overlap { tensor: String, begin: usize },
}

impl ContainerError {
    /// Whether a bound is exceeded, rather than the format broken.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            ContainerError::FileTooLarge { .. }
                | ContainerError::HeaderTooLarge { .. }
                | ContainerError::TooManyTensors { .. }
        )
    }
}

/// A safetensors file in memory whose layout has been checked.
#[derive(Clone, Debug)]
pub struct Container {
    bytes: Bytes,
    header: Header,
}

/// One tensor of a container: `data` is little-endian, row-major, `product(shape) * dtype.size()` bytes and in
/// general not aligned.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub data: &'a [u8],
}

impl Container {
    /// Checks the layout of `bytes`. Touches no tensor data and allocates no more than the header needs.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Container, Refusal> {
        let found = bytes.len() as u64;
        let limit = limits.weights_bytes_max;
        if found > limit {
            return Err(refusal(&ContainerError::FileTooLarge { found, limit }));
        }
        let header = Header::parse(&bytes, limits).map_err(|fault| refusal(&fault))?;
        Ok(Container { bytes, header })
    }

    /// The tensor named `name`.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.header.tensors().get(name)?;
        let data = self.bytes.get(entry.range.clone())?;
        Some(TensorView { dtype: entry.dtype, shape: &entry.shape, data })
    }

    /// Element type and elements of a tensor, or of the rows of it that are meant.
    pub fn elements(&self, tensor: &TensorRef) -> Option<(Dtype, &[u8])> {
        let entry = self.header.tensors().get(&tensor.name)?;
        let data = self.bytes.get(entry.range.clone())?;
        let Some(Range { start, end }) = tensor.rows.clone() else { return Some((entry.dtype, data)) };
        let row_bytes = data.len().checked_div(*entry.shape.first()?)?;
        Some((entry.dtype, data.get(start.checked_mul(row_bytes)?..end.checked_mul(row_bytes)?)?))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors().keys().map(String::as_str)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The whole file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl TensorView<'_> {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product() // checked when the header was read
    }

    /// All elements as `f32`, exactly. `None` for an element type that adapters do not use.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        self.dtype.decode(self.data)
    }
}

fn refusal(fault: &ContainerError) -> Refusal {
    let (code, advice) = if fault.is_limit() {
        (Code::Quota, "Make the adapter smaller or ask the operator for a higher limit.")
    } else {
        (
            Code::Container,
            "Write the file again with `save_pretrained(..., safe_serialization=True)` and upload it whole.",
        )
    };
    Refusal::new(code, crate::files::WEIGHTS, format!("{fault}. {advice}"))
}
