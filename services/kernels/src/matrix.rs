//! Weights of one linear layer or one embedding table, packed for the kernels. It computes nothing.
//!
//! All layouts are panels of 16 outputs, and a panel is a run of 64-byte lines that is read from end to end. Outputs
//! that fill the last panel up, and inputs that fill the depth up, are zeros (`matrix/layout.rs`).

mod layout;
mod pack;

use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::split::Split;
pub(crate) use layout::{GROUP, LINE, Layout, PANEL, depth, inputs_of_line};

/// How the elements of a [`Matrix`] are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    F32,
    /// Rounded to nearest even if the source is wider.
    Bf16,
    /// In groups of 64 inputs (fewer are one group), symmetric: the largest magnitude of a group is 127, and an f16 holds
    /// 1/127 of it.
    Int8,
}

/// An `[outputs, inputs]` matrix. A clone shares the memory.
#[derive(Clone)]
pub struct Matrix {
    layout: Layout,
    data: Buffer,
}

/// Why bytes are no packed matrix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackedError {
    #[error("a matrix of {outputs} × {inputs} has no elements")]
    Empty { outputs: usize, inputs: usize },
    #[error("a packed matrix of {outputs} × {inputs} has {expected} bytes; these are {found}")]
    Length { outputs: usize, inputs: usize, expected: usize, found: usize },
}

/// Panels of one task of packing: they share the memory for the rows that are filled in.
const TASK_PANELS: usize = 4;

impl Matrix {
    /// Packs a matrix whose row `i` is written by `fill(i, row)` into `[inputs]` values, which are zeros before. Rows are
    /// filled in parallel.
    ///
    /// # Panics
    /// If there are no outputs or no inputs.
    pub fn from_rows(
        cpu: &Cpu,
        outputs: usize,
        inputs: usize,
        storage: Storage,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Matrix {
        let layout = Layout::new(outputs, inputs, storage);
        let mut data = Buffer::zeroed(layout.bytes());
        let bytes = data.get_mut().expect("new memory has one owner");
        Matrix::pack_rows(cpu, outputs, inputs, storage, bytes, fill);
        Matrix { layout, data }
    }

    /// As [`Matrix::from_rows`], into memory for [`Matrix::packed_len`] bytes, of which every one is written.
    ///
    /// # Panics
    /// If there are no outputs or no inputs, or the memory is of another size.
    pub fn pack_rows(
        cpu: &Cpu,
        outputs: usize,
        inputs: usize,
        storage: Storage,
        bytes: &mut [u8],
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        assert!(outputs > 0 && inputs > 0, "a matrix has rows and columns");
        let layout = Layout::new(outputs, inputs, storage);
        assert_eq!(bytes.len(), layout.bytes(), "memory of a packed matrix");
        let (values, scales) = bytes.split_at_mut(layout.values_bytes());
        let (values, scales) = (Split::new(values), Split::new(scales));
        cpu.each(layout.panels.div_ceil(TASK_PANELS), |task| {
            let mut rows = vec![0.0; PANEL * layout.depth];
            for panel in task * TASK_PANELS..((task + 1) * TASK_PANELS).min(layout.panels) {
                rows.fill(0.0);
                let filled = PANEL.min(outputs - panel * PANEL);
                for (lane, row) in rows.chunks_exact_mut(layout.depth).take(filled).enumerate() {
                    fill(panel * PANEL + lane, &mut row[..inputs]);
                }
                let (value_bytes, scale_bytes) = (layout.panel_bytes(), layout.panel_scale_bytes());
                // SAFETY: panels do not overlap, and each is packed by one task.
                let values = unsafe { values.part(panel * value_bytes..(panel + 1) * value_bytes) };
                // SAFETY: as above.
                let scales = unsafe { scales.part(panel * scale_bytes..(panel + 1) * scale_bytes) };
                pack::panel(cpu.isa(), storage, &rows, layout.depth, values, scales);
            }
        });
    }

    /// Packs row-major little-endian bf16 elements in [`Storage::Bf16`], which changes their order alone, on the calling
    /// thread. Every one of the [`Matrix::packed_len`] bytes is written.
    ///
    /// # Panics
    /// If there are no outputs or no inputs, or one of the two is of another size.
    pub fn pack_bf16(outputs: usize, inputs: usize, elements: &[u8], bytes: &mut [u8]) {
        assert!(outputs > 0 && inputs > 0, "a matrix has rows and columns");
        let layout = Layout::new(outputs, inputs, Storage::Bf16);
        assert_eq!(bytes.len(), layout.bytes(), "memory of a packed matrix");
        assert_eq!(elements.len(), 2 * outputs * inputs, "elements of a matrix");
        let panels = bytes.chunks_exact_mut(layout.panel_bytes());
        for (rows, panel) in elements.chunks(2 * inputs * PANEL).zip(panels) {
            pack::panel_of_bf16(rows, inputs, panel);
        }
    }

    /// From row-major `[outputs, inputs]` values.
    pub fn from_values(cpu: &Cpu, outputs: usize, inputs: usize, storage: Storage, values: &[f32]) -> Matrix {
        assert_eq!(values.len(), outputs * inputs, "values of a matrix");
        Matrix::from_rows(cpu, outputs, inputs, storage, |i, row| {
            row.copy_from_slice(&values[i * inputs..(i + 1) * inputs]);
        })
    }

    /// Bytes of a packed matrix.
    pub fn packed_len(outputs: usize, inputs: usize, storage: Storage) -> usize {
        Layout::new(outputs, inputs, storage).bytes()
    }

    /// The matrix as it lies in memory; little-endian.
    pub fn packed(&self) -> &[u8] {
        &self.data
    }

    /// The matrix whose [`Matrix::packed`] bytes these are. The memory is shared, nothing is copied.
    ///
    /// # Errors
    /// If there are no elements, or the bytes are not [`Matrix::packed_len`].
    pub fn from_packed(outputs: usize, inputs: usize, storage: Storage, data: Buffer) -> Result<Matrix, PackedError> {
        if outputs == 0 || inputs == 0 {
            return Err(PackedError::Empty { outputs, inputs });
        }
        let layout = Layout::new(outputs, inputs, storage);
        let (expected, found) = (layout.bytes(), data.len());
        if expected != found {
            return Err(PackedError::Length { outputs, inputs, expected, found });
        }
        Ok(Matrix { layout, data })
    }

    /// Rows: outputs of a linear layer, vocabulary of an embedding.
    pub fn outputs(&self) -> usize {
        self.layout.outputs
    }

    /// Columns: inputs of a linear layer, width of an embedding.
    pub fn inputs(&self) -> usize {
        self.layout.inputs
    }

    pub fn storage(&self) -> Storage {
        self.layout.storage
    }

    /// Memory that the matrix takes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Copies row `row` as f32 into `out` of `[inputs]`; int8 with its scales applied. This is an embedding look-up.
    ///
    /// # Panics
    /// If there is no such row, or `out` is of another size.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.outputs(), "row {row} of a matrix of {}", self.outputs());
        assert_eq!(out.len(), self.inputs(), "a row of a matrix");
        let (panel, lane) = (row / PANEL, row % PANEL);
        let (values, scales) = self.data.split_at(self.layout.values_bytes());
        let (value_bytes, scale_bytes) = (self.layout.panel_bytes(), self.layout.panel_scale_bytes());
        let values = &values[panel * value_bytes..][..value_bytes];
        let scales = &scales[panel * scale_bytes..][..scale_bytes];
        pack::read_row(self.storage(), values, scales, lane, out);
    }

    /// The transposed matrix `[inputs, outputs]` in f32, of the values that [`Matrix::read_row`] gives: with it, the
    /// gradient of a layer's input is a product like any other.
    pub fn transposed(&self, cpu: &Cpu) -> Matrix {
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let mut rows = vec![0.0; outputs * inputs];
        cpu.each_chunk(&mut rows, inputs, |i, row| self.read_row(i, row));
        Matrix::from_rows(cpu, inputs, outputs, Storage::F32, |i, row| {
            for (value, column) in row.iter_mut().zip(rows[i..].iter().step_by(inputs)) {
                *value = *column;
            }
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }
}

#[cfg(test)]
mod tests;
