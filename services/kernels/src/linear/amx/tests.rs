//! Products on tiles against one-output-at-a-time references that share no code with them. `leaves.rs` has the tests of
//! the emulation and of the real instructions.

mod leaves;

use std::ops::Range;

use half::{bf16, f16};

use super::emulated::Emulated;
use super::*;
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::input::{FormRows, Group};
use crate::isa::Isa;
use crate::linear::job::Target;
use crate::matrix::{Matrix, depth};
use crate::reference::{assert_close, assert_same_bits, values};
use crate::split::Split;

/// Rows below, at and beyond one tile, a pair of tiles and a block of rows.
const ROWS: [usize; 13] = [1, 2, 5, 15, 16, 17, 31, 32, 33, 48, 61, 257, 300];
/// Outputs below, at and beyond a panel, with every remainder of four panels; inputs of one part of a tile, of odd counts,
/// of whole blocks and beyond.
const SIZES: [(usize, usize); 8] =
    [(1, 16), (16, 7), (23, 32), (48, 33), (70, 100), (129, 512), (100, 513), (40, 1088)];

/// One layer: operands as the kernels read them, and what must come out.
struct Case {
    rows: usize,
    outputs: usize,
    matrix: Matrix,
    x: Vec<u8>,
    groups: Vec<Group>,
    /// `[rows, outputs]`
    want: Vec<f32>,
    /// The same in f64 without any rounding of sums, and how far f32 may be away.
    exact: Vec<f64>,
    tolerance: f64,
}

impl Case {
    /// Values in `[-1, 1)`.
    fn bf16(rows: usize, outputs: usize, inputs: usize) -> Case {
        let round = |v: &f32| bf16::from_f32(*v).to_f32();
        let x: Vec<f32> = values(rows * inputs, 31).iter().map(round).collect();
        let w: Vec<f32> = values(outputs * inputs, 32).iter().map(round).collect();
        Case::of_bf16(rows, outputs, inputs, x, w)
    }

    /// Whole numbers, whose sums are exact in any order.
    fn whole_bf16(rows: usize, outputs: usize, inputs: usize) -> Case {
        let whole = |v: &f32| (v * 16.0).floor();
        let x: Vec<f32> = values(rows * inputs, 35).iter().map(whole).collect();
        let w: Vec<f32> = values(outputs * inputs, 36).iter().map(whole).collect();
        let mut case = Case::of_bf16(rows, outputs, inputs, x, w);
        case.tolerance = 0.0;
        case
    }

    fn of_bf16(rows: usize, outputs: usize, inputs: usize, x: Vec<f32>, w: Vec<f32>) -> Case {
        // For each 32 inputs, the even ones make a chain, the odd ones another.
        let chain = |x: &[f32], w: &[f32]| {
            x.chunks(32).zip(w.chunks(32)).fold(0.0f32, |sum, (x, w)| {
                let half = |odd| (odd..x.len()).step_by(2).fold(0.0f32, |sum, i| x[i].mul_add(w[i], sum));
                sum + (half(0) + half(1))
            })
        };
        let exact = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
        let pairs = || x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| (x, w)));
        let mut bytes = Vec::new();
        for row in x.chunks(inputs) {
            let padded = row.iter().chain(std::iter::repeat(&0.0)).take(depth(Storage::Bf16, inputs));
            bytes.extend(padded.flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
        }
        Case {
            rows,
            outputs,
            matrix: Matrix::from_values(&Cpu::serial(), outputs, inputs, Storage::Bf16, &w),
            want: pairs().map(|(x, w)| chain(x, w)).collect(),
            exact: pairs().map(|(x, w)| exact(x, w)).collect(),
            // Each product is exact; each of the sums rounds once, and none is larger than the count of inputs.
            tolerance: (inputs * inputs) as f64 * f64::from(f32::EPSILON) / 2.0,
            x: bytes,
            groups: Vec::new(),
        }
    }

    /// Values over the whole range of int8, so that wrong signs show, with any scales.
    fn int8(rows: usize, outputs: usize, inputs: usize) -> Case {
        let (k, panels) = (depth(Storage::Int8, inputs), outputs.div_ceil(16));
        let of_row = k.div_ceil(64);
        let whole = |v: &f32| (v * 128.0).floor() as i32;
        let x: Vec<i32> = values(rows * k, 31).iter().map(whole).collect();
        let w: Vec<i32> = values(panels * 16 * k, 32).iter().map(whole).collect();
        let scales: Vec<f16> = values(panels * of_row * 16, 33).iter().map(|v| f16::from_f32(v * 0.01)).collect();
        let mut packed = vec![0u8; w.len()];
        for (at, value) in w.iter().enumerate() {
            let (o, i) = (at / k, at % k);
            packed[((o / 16 * (k / 4) + i / 4) * 16 + o % 16) * 4 + i % 4] = (value + 128) as u8;
        }
        packed.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
        let group = |(x, scale): (&[i32], f32)| Group { scale, start: -128 * x.iter().sum::<i32>() };
        let groups: Vec<Group> =
            x.chunks(k).flat_map(|row| row.chunks(64)).zip(values(rows * of_row, 34)).map(group).collect();
        let (mut want, mut exact) = (Vec::new(), Vec::new());
        for (r, o) in (0..rows).flat_map(|r| (0..outputs).map(move |o| (r, o))) {
            let (mut sum, mut wide) = (0.0f32, 0.0f64);
            for g in 0..of_row {
                let product = |i: usize| x[r * k + i] * w[o * k + i];
                let whole: i32 = (g * 64..((g + 1) * 64).min(k)).map(product).sum();
                let w_scale = scales[(o / 16 * of_row + g) * 16 + o % 16].to_f32();
                let x_scale = groups[r * of_row + g].scale;
                sum = (whole as f32).mul_add(w_scale * x_scale, sum);
                wide += f64::from(whole) * f64::from(w_scale) * f64::from(x_scale);
            }
            want.push(sum);
            exact.push(wide);
        }
        let data = Buffer::read(&mut &packed[..], packed.len()).unwrap();
        Case {
            rows,
            outputs,
            matrix: Matrix::from_packed(outputs, inputs, Storage::Int8, data).unwrap(),
            x: x.iter().map(|v| *v as i8 as u8).collect(),
            groups,
            want,
            exact,
            // A group is at most 64 · 128 · 128 · 0.01; each of the sums rounds twice.
            tolerance: (2 * of_row * of_row) as f64 * 64.0 * 16384.0 * 0.01 * f64::from(f32::EPSILON),
        }
    }

    fn form(&self) -> FormRows<'_> {
        FormRows { data: self.x.as_ptr(), stride: self.x.len() / self.rows, groups: &self.groups }
    }

    fn panels(&self) -> Range<usize> {
        0..self.outputs.div_ceil(16)
    }

    /// `[rows, outputs]`, with what no panel of `panels` has written left as it was: no numbers.
    fn run(&self, tiles: &mut impl Tiles, panels: Range<usize>) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.rows * self.outputs];
        let split = Split::new(&mut y);
        let target = Target { y: &split, first: 0, stride: self.outputs, width: self.outputs, rows: None, add: None };
        // SAFETY: the rows are of the matrix' depth, and `y` is [rows, outputs].
        let job = unsafe { Job::new(self.form(), None, &self.matrix, 0..self.rows, panels, target) };
        run(tiles, &job);
        y
    }

    fn check(&self, y: &[f32]) {
        assert_same_bits(y, &self.want);
        assert_close(y, &self.exact, self.tolerance);
    }
}

fn run(tiles: &mut impl Tiles, job: &Job<'_>) {
    // SAFETY: the tests of int8 run where there is AVX-512, and tiles that are not emulated come from `leaves`.
    unsafe { run_on(tiles, job) }
}

/// The kinds of layers that this machine can test.
fn kinds() -> Vec<fn(usize, usize, usize) -> Case> {
    if Isa::best() >= Isa::Avx512 { vec![Case::bf16, Case::int8] } else { vec![Case::bf16] }
}

#[test]
fn every_output_is_the_chain_of_its_row_and_its_weights() {
    for kind in kinds() {
        for (i, rows) in (1..=16).chain(ROWS).enumerate() {
            // All sizes for the counts of one tile, then some for each.
            for (outputs, inputs) in SIZES.into_iter().filter(|(outputs, _)| rows <= 64 || outputs % 4 == i % 4) {
                let case = kind(rows, outputs, inputs);
                case.check(&case.run(&mut Emulated::new(), case.panels()));
            }
        }
    }
}

#[test]
fn many_panels_are_cut_into_blocks_without_a_trace() {
    for kind in kinds() {
        let case = kind(37, (BLOCK_PANELS + 3) * 16 - 5, 2200);
        case.check(&case.run(&mut Emulated::new(), case.panels()));
    }
}

#[test]
fn a_task_writes_the_columns_of_its_panels_alone() {
    for kind in kinds() {
        for rows in [3, 40] {
            let case = kind(rows, 150, 576);
            for (from, to) in [(0, 1), (1, 4), (2, 9), (9, 10), (3, 10), (5, 5)] {
                let y = case.run(&mut Emulated::new(), from..to);
                for (at, (y, want)) in y.iter().zip(&case.want).enumerate() {
                    let want = if (from * 16..to * 16).contains(&(at % 150)) { *want } else { f32::NAN };
                    assert_eq!(y.to_bits(), want.to_bits(), "row {}, column {}", at / 150, at % 150);
                }
            }
        }
    }
}

/// As a group of rows of one adapter is: gathered, scattered, added.
#[test]
fn rows_that_are_listed_and_added_are_the_same_chains() {
    for kind in kinds() {
        for (listed, outputs, inputs) in [(3, 64, 16), (16, 40, 100), (17, 70, 1100), (45, 129, 600)] {
            let case = kind(50, outputs, inputs);
            let from: Vec<usize> = (0..listed).map(|i| (i * 7 + 3) % 50).collect();
            let to: Vec<usize> = (0..listed).map(|i| (i * 11 + 1) % 50).collect();
            for (x_rows, y_rows, add) in [
                (Some(&from[..]), Some(&to[..]), Some(0.3f32)),
                (Some(&from[..]), None, None),
                (None, Some(&to[..]), None),
                (None, None, Some(-1.5)),
            ] {
                let start = values(50 * outputs, 40);
                let mut want = start.clone();
                for i in 0..listed {
                    let (x, y) = (x_rows.map_or(i, |rows| rows[i]), y_rows.map_or(i, |rows| rows[i]));
                    for o in 0..outputs {
                        let (sum, y) = (case.want[x * outputs + o], &mut want[y * outputs + o]);
                        *y = add.map_or(sum, |scale| *y + scale * sum);
                    }
                }
                let mut y = start;
                let split = Split::new(&mut y);
                let target = Target { y: &split, first: 0, stride: outputs, width: outputs, rows: y_rows, add };
                // SAFETY: the rows are of the matrix' depth; `y` is [rows, outputs], and the lists name rows of both.
                let job = unsafe { Job::new(case.form(), x_rows, &case.matrix, 0..listed, case.panels(), target) };
                run(&mut Emulated::new(), &job);
                assert_same_bits(&y, &want);
            }
        }
    }
}

/// Rows and lines that do not begin at zero.
#[test]
fn a_part_of_the_rows_and_of_the_inputs_is_that_part() {
    for kind in kinds() {
        for rows in [9, 60] {
            let (whole, mut y) = (kind(rows, 40, 640), vec![f32::NAN; rows * 40]);
            let lines = whole.matrix.layout().lines();
            let split = Split::new(&mut y);
            let target = Target { y: &split, first: 0, stride: 40, width: 40, rows: None, add: None };
            // SAFETY: the rows are of the matrix' depth, and `y` is [rows, outputs].
            let mut job = unsafe { Job::new(whole.form(), None, &whole.matrix, 4..rows, 1..3, target) };
            run(&mut Emulated::new(), &job);
            let halves: Vec<Vec<f32>> = [0..lines / 2, lines / 2..lines]
                .into_iter()
                .map(|part| {
                    job.lines = part;
                    run(&mut Emulated::new(), &job);
                    // SAFETY: the job is over.
                    unsafe { split.part(0..rows * 40) }.to_vec()
                })
                .collect();
            for (at, (a, b)) in halves[0].iter().zip(&halves[1]).enumerate() {
                let (row, column) = (at / 40, at % 40);
                if row < 4 || column < 16 {
                    assert!(a.is_nan() && b.is_nan(), "row {row}, column {column}");
                } else {
                    let off = (f64::from(*a) + f64::from(*b) - whole.exact[at]).abs();
                    assert!(off <= 2.0 * whole.tolerance, "row {row}, column {column}: off by {off:e}");
                    assert_ne!(a.to_bits(), b.to_bits());
                }
            }
        }
    }
}
