//! Rows of activations, prepared once for all products that read them: rounded to bf16, or quantised to int8.

mod prepare;

use std::ops::BitOr;

use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::matrix::{GROUP, LINE, Storage, depth};
use crate::split::Split;
pub(crate) use prepare::{bf16 as prepare_bf16_row, int8 as prepare_int8_row, round_bf16};

/// Which forms of the activations the products need; f32 is always at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    bf16: bool,
    int8: bool,
}

impl Forms {
    pub const F32: Forms = Forms { bf16: false, int8: false };
    pub const BF16: Forms = Forms { bf16: true, int8: false };
    pub const INT8: Forms = Forms { bf16: false, int8: true };

    fn contain(self, other: Forms) -> bool {
        self | other == self
    }
}

impl BitOr for Forms {
    type Output = Forms;

    fn bitor(self, other: Forms) -> Forms {
        Forms { bf16: self.bf16 || other.bf16, int8: self.int8 || other.int8 }
    }
}

/// What products with weights of that storage read.
impl From<Storage> for Forms {
    fn from(storage: Storage) -> Forms {
        match storage {
            Storage::F32 => Forms::F32,
            Storage::Bf16 => Forms::BF16,
            Storage::Int8 => Forms::INT8,
        }
    }
}

/// Rows `[rows, width]` and the forms of them that products read. They hold for the instruction set of the [`Cpu`] that
/// they were made with.
///
/// bf16 is rounded to nearest even. Int8 is symmetric in groups of 64: the largest magnitude is 127. A group with a value
/// that is not finite gets a scale that is not a number, and so does every result in which it takes part. A group whose
/// magnitudes are all below 2⁻¹⁰⁰ counts as zeros.
#[derive(Default)]
pub struct Input<'a> {
    x: &'a [f32],
    width: usize,
    rows: usize,
    forms: Forms,
    isa: Option<Isa>,
    /// `[rows, depth]`: bf16 where there are instructions for it, else the rounded values as f32.
    bf16: Vec<Line>,
    /// `[rows, depth]` i8
    int8: Vec<Line>,
    /// `[rows, groups]`
    groups: Vec<Group>,
}

/// Aligned memory that rows lie in.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [u8; LINE]);

/// What belongs to a group of 64 activations, or fewer, of one row in int8.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Group {
    /// Activation = value · scale.
    pub scale: f32,
    /// −128 · Σ values: where a sum of products begins, since the weights in memory are 128 too large.
    pub start: i32,
}

/// Where the rows of one form lie.
#[derive(Clone, Copy)]
pub(crate) struct FormRows<'a> {
    pub data: *const u8,
    /// Bytes from a row to the next one.
    pub stride: usize,
    /// `[rows, groups]`, of int8.
    pub groups: &'a [Group],
}

/// Rows are allocated by so many: kernels with tiles may read, not use, whole tiles.
const ROWS: usize = 16;
/// Activations of one task.
const TASK_VALUES: usize = 1 << 14;

impl<'a> Input<'a> {
    /// Prepares rows `x` `[rows, width]`.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn new(cpu: &Cpu, x: &'a [f32], width: usize, forms: Forms) -> Input<'a> {
        Input::default().refill(cpu, x, width, forms)
    }

    /// As [`Input::new`], in the memory of this one.
    pub fn refill<'b>(self, cpu: &Cpu, x: &'b [f32], width: usize, forms: Forms) -> Input<'b> {
        assert!(width > 0 && x.len().is_multiple_of(width), "x is [rows, width]");
        let Input { bf16, int8, groups, .. } = self;
        let rows = x.len() / width;
        let mut input = Input { x, width, rows, forms, isa: Some(cpu.isa()), bf16, int8, groups };
        if forms.bf16 {
            input.prepare_bf16(cpu);
        }
        if forms.int8 {
            input.prepare_int8(cpu);
        }
        input
    }

    /// Lets go of the rows and keeps the memory, for [`Input::refill`].
    pub fn release(self) -> Input<'static> {
        let Input { bf16, int8, groups, .. } = self;
        Input { bf16, int8, groups, ..Input::default() }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows as they were given.
    pub fn values(&self) -> &'a [f32] {
        self.x
    }

    /// The rows for products with weights of `storage`.
    pub(crate) fn form(&self, isa: Isa, storage: Storage) -> FormRows<'_> {
        assert!(self.forms.contain(storage.into()), "the input was not prepared for {storage:?}");
        assert_eq!(self.isa, Some(isa), "the input was prepared for other instructions");
        let depth = depth(storage, self.width);
        match storage {
            Storage::F32 => FormRows { data: self.x.as_ptr().cast(), stride: 4 * depth, groups: &[] },
            Storage::Bf16 => FormRows { data: self.bf16.as_ptr().cast(), stride: bf16_bytes(isa) * depth, groups: &[] },
            Storage::Int8 => FormRows { data: self.int8.as_ptr().cast(), stride: depth, groups: &self.groups },
        }
    }

    fn prepare_bf16(&mut self, cpu: &Cpu) {
        let (isa, width) = (cpu.isa(), self.width);
        let stride = bf16_bytes(isa) * depth(Storage::Bf16, width);
        let bytes = reserve(&mut self.bf16, self.rows, stride);
        let x = self.x;
        each_rows(cpu, self.rows, width, bytes, stride, |row, out| {
            prepare::bf16(isa, &x[row * width..][..width], out);
        });
    }

    fn prepare_int8(&mut self, cpu: &Cpu) {
        let (isa, width) = (cpu.isa(), self.width);
        let depth = depth(Storage::Int8, width);
        let of_row = depth.div_ceil(GROUP);
        let bytes = reserve(&mut self.int8, self.rows, depth);
        self.groups.resize(self.rows.next_multiple_of(ROWS) * of_row, Group::default());
        let (x, groups) = (self.x, Split::new(&mut self.groups));
        each_rows(cpu, self.rows, width, bytes, depth, |row, out| {
            // SAFETY: rows do not overlap, and each is prepared once.
            let groups = unsafe { groups.part(row * of_row..(row + 1) * of_row) };
            prepare::int8(isa, &x[row * width..][..width], out, groups);
        });
    }
}

/// Bytes of an activation in the form that products with bf16 weights read.
pub(crate) fn bf16_bytes(isa: Isa) -> usize {
    if isa >= Isa::Avx512Bf16 { 2 } else { 4 }
}

/// Room for `rows` rows of `stride` bytes. What it holds before is of no account.
pub(crate) fn reserve(lines: &mut Vec<Line>, rows: usize, stride: usize) -> &mut [u8] {
    let bytes = rows.next_multiple_of(ROWS) * stride;
    lines.resize(bytes.div_ceil(LINE), Line([0; LINE]));
    // SAFETY: a `Line` is 64 plain bytes without padding.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LINE) }
}

/// Lines as bytes.
pub(crate) fn as_bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: a `Line` is 64 plain bytes without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LINE) }
}

fn each_rows(
    cpu: &Cpu,
    rows: usize,
    width: usize,
    bytes: &mut [u8],
    stride: usize,
    task: impl Fn(usize, &mut [u8]) + Sync,
) {
    let of_task = (TASK_VALUES / width).max(1);
    cpu.each_chunk(&mut bytes[..rows * stride], of_task * stride, |i, bytes| {
        for (row, out) in bytes.chunks_exact_mut(stride).enumerate() {
            task(i * of_task + row, out);
        }
    });
}

#[cfg(test)]
mod tests;
