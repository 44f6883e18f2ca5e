//! Weights of one linear layer or one embedding table, packed for the kernels. It computes nothing.

use half::bf16;
use rayon::prelude::*;

use crate::LANES;
use crate::dot::STEP_ELEMENTS;

/// How the elements of a [`Matrix`] are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    F32,
    /// Rounded to nearest even if the source is wider.
    Bf16,
}

/// An `[outputs, inputs]` matrix. Rows are padded with zeros to whole vectors.
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    /// Elements of a padded row.
    stride: usize,
    pub(crate) data: Data,
}

pub(crate) enum Data {
    F32(Vec<f32>),
    /// Each group of 32 elements is 16 words: word `i` holds element `i` in its low half and element `16 + i` in its
    /// high half, so that one shift or mask widens 16 neighbours and the order of sums equals that of f32.
    Bf16(Vec<u32>),
}

impl Matrix {
    /// Packs a matrix whose row `i` is written by `fill(i, row)` into `[inputs]` values. Rows are filled in parallel.
    pub fn from_rows(
        outputs: usize,
        inputs: usize,
        storage: Storage,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Matrix {
        assert!(outputs > 0 && inputs > 0, "a matrix has rows and columns");
        match storage {
            Storage::F32 => {
                let stride = inputs.next_multiple_of(STEP_ELEMENTS);
                let mut data = vec![0.0; outputs * stride];
                data.par_chunks_mut(stride).enumerate().for_each(|(i, row)| fill(i, &mut row[..inputs]));
                Matrix { outputs, inputs, stride, data: Data::F32(data) }
            }
            Storage::Bf16 => {
                let stride = inputs.next_multiple_of(STEP_ELEMENTS);
                let mut data = vec![0; outputs * stride / 2];
                data.par_chunks_mut(stride / 2).enumerate().for_each_init(
                    || vec![0.0; stride],
                    |row, (i, words)| {
                        fill(i, &mut row[..inputs]);
                        pack(row, words);
                    },
                );
                Matrix { outputs, inputs, stride, data: Data::Bf16(data) }
            }
        }
    }

    /// From row-major `[outputs, inputs]` values.
    pub fn from_values(outputs: usize, inputs: usize, storage: Storage, values: &[f32]) -> Matrix {
        assert_eq!(values.len(), outputs * inputs, "values of a matrix");
        Matrix::from_rows(outputs, inputs, storage, |i, row| {
            row.copy_from_slice(&values[i * inputs..(i + 1) * inputs]);
        })
    }

    /// Rows: outputs of a linear layer, vocabulary of an embedding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns: inputs of a linear layer, width of an embedding.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Elements of a padded row: a multiple of the vector width.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Memory that the matrix holds.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(data) => size_of_val(data.as_slice()),
            Data::Bf16(data) => size_of_val(data.as_slice()),
        }
    }

    /// Copies row `row`, widened, into `out` of `[inputs]`. This is an embedding look-up.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.inputs, "a row of a matrix");
        match &self.data {
            Data::F32(data) => out.copy_from_slice(&data[row * self.stride..][..self.inputs]),
            Data::Bf16(data) => unpack(&data[row * self.stride / 2..][..self.stride / 2], out),
        }
    }
}

fn pack(row: &[f32], words: &mut [u32]) {
    for (group, words) in row.chunks_exact(2 * LANES).zip(words.chunks_exact_mut(LANES)) {
        let (low, high) = group.split_at(LANES);
        for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
            let bits = |value: &f32| u32::from(bf16::from_f32(*value).to_bits());
            *word = bits(low) | bits(high) << 16;
        }
    }
}

fn unpack(words: &[u32], out: &mut [f32]) {
    for (words, group) in words.chunks(LANES).zip(out.chunks_mut(2 * LANES)) {
        for (i, value) in group.iter_mut().enumerate() {
            let word = words[i % LANES];
            *value = f32::from_bits(if i < LANES { word << 16 } else { word & 0xffff_0000 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::values;

    #[test]
    fn a_row_comes_back_as_it_was_packed() {
        for inputs in [1, 15, 16, 31, 32, 33, 64, 100] {
            let source = values(3 * inputs, 7);
            for storage in [Storage::F32, Storage::Bf16] {
                let matrix = Matrix::from_values(3, inputs, storage, &source);
                let mut row = vec![0.0; inputs];
                matrix.read_row(2, &mut row);
                for (got, want) in row.iter().zip(&source[2 * inputs..]) {
                    let want = if storage == Storage::Bf16 { bf16::from_f32(*want).to_f32() } else { *want };
                    assert_eq!(got.to_bits(), want.to_bits());
                }
            }
        }
    }
}
