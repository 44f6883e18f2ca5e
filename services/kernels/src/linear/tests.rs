use super::*;
use crate::input::Forms;
use crate::reference::{assert_same_bits, cpus, product, to_bf16, to_int8, values};

const STORAGES: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::Int8];
/// Rows, inputs, outputs.
const SHAPES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 64, 37),
    (2, 15, 16),
    (3, 33, 70),
    (4, 16, 15),
    (5, 17, 17),
    (6, 63, 33),
    (7, 65, 63),
    (8, 130, 64),
    (9, 896, 100),
    (12, 128, 65),
    (16, 256, 48),
    (17, 48, 5),
    (33, 130, 130),
    (130, 70, 40),
    (3, 1000, 304),
];

fn multiply(cpu: &Cpu, x: &[f32], w: &Matrix) -> Vec<f32> {
    let input = Input::new(cpu, x, w.inputs(), w.storage().into());
    let mut y = vec![f32::NAN; input.rows() * w.outputs()];
    linear(cpu, &input, w, &mut y);
    y
}

fn rows_of(w: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; w.outputs() * w.inputs()];
    for (i, row) in values.chunks_mut(w.inputs()).enumerate() {
        w.read_row(i, row);
    }
    values
}

/// Each sum against f64 of the rounded operands: within `steps` roundings of f32 of the sum of magnitudes.
fn assert_sums(y: &[f32], x: &[f32], w: &[f32], inputs: usize, steps: f64) {
    let magnitudes: [Vec<f32>; 2] = [x, w].map(|values| values.iter().map(|value| value.abs()).collect());
    let bounds = product(&magnitudes[0], &magnitudes[1], inputs);
    for (i, ((got, want), bound)) in y.iter().zip(product(x, w, inputs)).zip(bounds).enumerate() {
        let (off, tolerance) = ((f64::from(*got) - want).abs(), steps * f64::from(f32::EPSILON) / 2.0 * bound);
        assert!(off <= tolerance, "element {i}: {got} is {off:e} from {want}, tolerance {tolerance:e}");
    }
}

#[test]
fn every_storage_and_instruction_set_agrees_with_a_product_of_the_rounded_operands_in_f64() {
    for cpu in cpus(2) {
        for (rows, inputs, outputs) in SHAPES {
            let (x, source) = (values(rows * inputs, 1), values(outputs * inputs, 2));
            for storage in STORAGES {
                let w = Matrix::from_values(&cpu, outputs, inputs, storage, &source);
                let y = multiply(&cpu, &x, &w);
                // One chain of additions has at most one rounding for each input, and one of each product.
                match storage {
                    Storage::F32 => assert_sums(&y, &x, &source, inputs, inputs as f64 + 1.0),
                    Storage::Bf16 => assert_sums(&y, &to_bf16(&x), &to_bf16(&source), inputs, inputs as f64 + 1.0),
                    // Exact in a group; then two scales, their product, and the sum of the groups.
                    Storage::Int8 => {
                        let groups = inputs.div_ceil(64) as f64;
                        assert_sums(&y, &to_int8(&x, inputs), &rows_of(&w), inputs, groups + 6.0);
                    }
                }
            }
        }
    }
}

/// Each operand is off by at most half a step, 1/254 of the largest magnitude of its group, and the weights' scale by 2⁻¹¹.
#[test]
fn int8_stays_within_its_quantisation_of_the_exact_product() {
    let cpu = Cpu::serial();
    for (rows, inputs, outputs) in SHAPES {
        let (x, source) = (values(rows * inputs, 11), values(outputs * inputs, 12));
        let y = multiply(&cpu, &x, &Matrix::from_values(&cpu, outputs, inputs, Storage::Int8, &source));
        let largest = |group: &[f32]| group.iter().fold(0.0, |a: f64, b| a.max(f64::from(b.abs())));
        let want = product(&x, &source, inputs);
        for (row, x) in x.chunks(inputs).enumerate() {
            for (o, w) in source.chunks(inputs).enumerate() {
                let mut bound = 0.0;
                for (x, w) in x.chunks(64).zip(w.chunks(64)) {
                    let (of_x, of_w) = (largest(x), largest(w));
                    let (off_x, off_w) = (of_x / 254.0 * 1.001, of_w * (1.0 / 254.0 + 1.0 / 2048.0));
                    let sums = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
                    bound += sums(x) * off_w + sums(w) * off_x + x.len() as f64 * off_x * off_w;
                }
                let off = (f64::from(y[row * outputs + o]) - want[row * outputs + o]).abs();
                assert!(off <= bound * 1.001, "{off} of {bound}");
            }
        }
    }
}

#[test]
fn int8_gives_the_same_bits_on_every_instruction_set() {
    for (rows, inputs, outputs) in SHAPES {
        let (x, source) = (values(rows * inputs, 5), values(outputs * inputs, 6));
        let w = Matrix::from_values(&Cpu::serial(), outputs, inputs, Storage::Int8, &source);
        let all: Vec<_> = cpus(1).iter().map(|cpu| multiply(cpu, &x, &w)).collect();
        for other in &all[1..] {
            assert_same_bits(&all[0], other);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch_and_with_any_threads() {
    let (inputs, outputs) = (200, 301);
    let x = values(70 * inputs, 5);
    let source = values(outputs * inputs, 6);
    for (one, three) in cpus(1).into_iter().zip(cpus(3)) {
        for storage in STORAGES {
            let w = Matrix::from_values(&one, outputs, inputs, storage, &source);
            let alone: Vec<f32> = x.chunks(inputs).flat_map(|x| multiply(&one, x, &w)).collect();
            for rows in (1..=40).chain([64, 70]) {
                for cpu in [&one, &three] {
                    assert_same_bits(&multiply(cpu, &x[..rows * inputs], &w), &alone[..rows * outputs]);
                }
            }
            let last = multiply(&three, &x[9 * inputs..], &w);
            assert_same_bits(&last, &alone[9 * outputs..]);
        }
    }
}

/// As adapters name theirs: rows that follow one another go through other tiles than rows that do not.
#[test]
fn rows_that_a_list_names_have_the_bits_of_these_rows() {
    let (inputs, outputs) = (300, 70);
    let x = values(40 * inputs, 7);
    let lists: [Vec<usize>; 5] =
        [vec![5], (20..28).collect(), (3..39).collect(), (0..40).rev().collect(), (0..40).step_by(3).collect()];
    for cpu in cpus(1) {
        for storage in STORAGES {
            let w = Matrix::from_values(&cpu, outputs, inputs, storage, &values(outputs * inputs, 8));
            let all = multiply(&cpu, &x, &w);
            let input = Input::new(&cpu, &x, inputs, storage.into());
            for list in &lists {
                let want: Vec<f32> = list.iter().flat_map(|row| &all[row * outputs..][..outputs]).copied().collect();
                let mut y = vec![f32::NAN; list.len() * outputs];
                let split = Split::new(&mut y);
                let target = Target { y: &split, first: 0, stride: outputs, width: outputs, rows: None, add: None };
                let (form, panels) = (input.form(cpu.isa(), storage), 0..w.layout().panels);
                // SAFETY: the input was prepared for this isa and has these rows; `y` is this job's alone.
                unsafe { run(cpu.isa(), &Job::new(form, Some(list), &w, 0..list.len(), panels, target)) };
                assert_same_bits(&y, &want);
            }
        }
    }
}

#[test]
fn several_matrices_of_one_input_give_the_bits_of_each() {
    let (rows, inputs) = (5, 96);
    let x = values(rows * inputs, 1);
    for cpu in cpus(2) {
        let input = Input::new(&cpu, &x, inputs, Forms::BF16 | Forms::INT8);
        let matrices: Vec<Matrix> = [(7, Storage::F32), (300, Storage::Bf16), (33, Storage::Int8)]
            .map(|(outputs, storage)| {
                Matrix::from_values(&cpu, outputs, inputs, storage, &values(outputs * inputs, outputs as u64))
            })
            .into();
        let mut together: Vec<_> = matrices.iter().map(|w| vec![f32::NAN; rows * w.outputs()]).collect();
        let mut products: Vec<_> = matrices.iter().zip(&mut together).map(|(w, y)| (w, &mut y[..])).collect();
        linears(&cpu, &input, &mut products);
        for (w, together) in matrices.iter().zip(&together) {
            assert_same_bits(together, &multiply(&cpu, &x, w));
        }
    }
}

#[test]
fn what_is_no_number_comes_out_as_none_and_only_in_its_row() {
    let (rows, inputs, outputs) = (4, 130, 37);
    for cpu in cpus(1) {
        for storage in STORAGES {
            let source = values(outputs * inputs, 2);
            let w = Matrix::from_values(&cpu, outputs, inputs, storage, &source);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 63, 64, 129] {
                    let mut x = values(rows * inputs, 1);
                    x[2 * inputs + at] = bad;
                    let y = multiply(&cpu, &x, &w);
                    for (row, y) in y.chunks(outputs).enumerate() {
                        assert!(y.iter().all(|value| value.is_finite() != (row == 2)), "{storage:?} {bad} {at}");
                    }
                }
            }
            let mut source = source;
            source[20 * inputs + 64] = f32::INFINITY;
            let w = Matrix::from_values(&cpu, outputs, inputs, storage, &source);
            for y in multiply(&cpu, &values(rows * inputs, 1), &w).chunks(outputs) {
                assert!(y.iter().enumerate().all(|(o, value)| value.is_finite() != (o == 20)));
            }
        }
    }
}

#[test]
fn no_rows_are_no_work() {
    let cpu = Cpu::serial();
    let w = Matrix::from_values(&cpu, 2, 3, Storage::Bf16, &[1.0; 6]);
    linear(&cpu, &Input::new(&cpu, &[], 3, Forms::BF16), &w, &mut []);
}

#[test]
#[should_panic(expected = "inputs of the matrix")]
fn an_input_of_another_width_is_refused() {
    let cpu = Cpu::serial();
    let w = Matrix::from_values(&cpu, 2, 3, Storage::F32, &[1.0; 6]);
    linear(&cpu, &Input::new(&cpu, &[0.0; 4], 4, Forms::F32), &w, &mut [0.0; 2]);
}

/// One rounding more than the product: that of the addition.
#[test]
fn a_product_is_added_to_what_is_there() {
    for cpu in cpus(3) {
        for (rows, inputs, outputs) in SHAPES {
            let (x, before) = (values(rows * inputs, 1), values(rows * outputs, 3));
            let w = Matrix::from_values(&cpu, outputs, inputs, Storage::F32, &values(outputs * inputs, 2));
            let mut y = before.clone();
            linear_add(&cpu, &Input::new(&cpu, &x, inputs, Forms::F32), &w, &mut y);
            let want: Vec<f32> = before.iter().zip(multiply(&cpu, &x, &w)).map(|(before, sum)| before + sum).collect();
            assert_same_bits(&y, &want);
        }
    }
}
