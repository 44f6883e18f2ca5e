use super::*;
use crate::reference::{to_bf16, values};

const SHAPES: [(usize, usize); 10] =
    [(1, 1), (3, 15), (15, 16), (16, 17), (17, 33), (33, 63), (40, 64), (5, 65), (130, 130), (2, 896)];

fn row(matrix: &Matrix, row: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrix.inputs()];
    matrix.read_row(row, &mut out);
    out
}

#[test]
fn elements_in_bf16_are_packed_as_values_are() {
    for (outputs, inputs) in SHAPES.into_iter().chain([(33, 64), (16, 100), (48, 16)]) {
        let source = to_bf16(&values(outputs * inputs, 5));
        let elements: Vec<u8> =
            source.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
        let expected = Matrix::from_values(&Cpu::serial(), outputs, inputs, Storage::Bf16, &source);
        let mut packed = vec![0xff; expected.bytes()];
        Matrix::pack_bf16(outputs, inputs, &elements, &mut packed);
        assert_eq!(packed, expected.packed(), "{outputs} × {inputs}");
    }
}

#[test]
fn a_row_comes_back_as_it_was_packed() {
    let cpu = Cpu::serial();
    for (outputs, inputs) in SHAPES {
        let source = values(outputs * inputs, 7);
        for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
            let matrix = Matrix::from_values(&cpu, outputs, inputs, storage, &source);
            assert_eq!(matrix.bytes(), Matrix::packed_len(outputs, inputs, storage));
            for (i, source) in source.chunks(inputs).enumerate() {
                let got = row(&matrix, i);
                match storage {
                    Storage::F32 => assert_eq!(got, source),
                    Storage::Bf16 => assert_eq!(got, to_bf16(source)),
                    Storage::Int8 => {
                        for (got, source) in got.chunks(GROUP).zip(source.chunks(GROUP)) {
                            let largest = source.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                            for (got, source) in got.iter().zip(source) {
                                // Half a step, and the rounding of the scale to f16.
                                assert!((got - source).abs() <= largest / 127.0 * 0.57, "{got} for {source}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn packed_bytes_are_the_same_matrix_on_any_threads() {
    let threads = Cpu::new(&crate::CpuConfig { threads: 3, ..Default::default() }).unwrap();
    for (outputs, inputs) in SHAPES {
        let source = values(outputs * inputs, 8);
        for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
            let matrix = Matrix::from_values(&Cpu::serial(), outputs, inputs, storage, &source);
            let other = Matrix::from_values(&threads, outputs, inputs, storage, &source);
            assert!(matrix.packed() == other.packed());
            let data = Buffer::read(&mut matrix.packed(), matrix.bytes()).unwrap();
            let copy = Matrix::from_packed(outputs, inputs, storage, data).unwrap();
            assert_eq!(row(&copy, outputs - 1), row(&matrix, outputs - 1));
        }
    }
}

#[test]
fn int8_is_the_same_bytes_on_every_instruction_set() {
    for (outputs, inputs) in SHAPES.into_iter().chain([(17, 8), (17, 20), (17, 32), (40, 48), (20, 200)]) {
        let mut source = values(outputs * inputs, 9);
        // A group of zeros, one of numbers of all sizes with steps below those of f16, and one with what is no number.
        source[..inputs / 2].fill(0.0);
        if outputs > 2 {
            for (i, value) in source[inputs..3 * inputs].iter_mut().enumerate() {
                *value *= 10f32.powi(-(i as i32 % 12));
            }
            source[2 * inputs] = f32::NAN;
        }
        let all: Vec<Matrix> = crate::reference::cpus(1)
            .iter()
            .map(|cpu| Matrix::from_values(cpu, outputs, inputs, Storage::Int8, &source))
            .collect();
        for matrix in &all {
            assert!(matrix.packed() == all[0].packed(), "{outputs} × {inputs}");
        }
        // One value after the other, as the format says it.
        for o in 0..outputs {
            for (g, group) in source[o * inputs..][..inputs].chunks(GROUP).enumerate() {
                let mut got = vec![0.0; inputs];
                all[0].read_row(o, &mut got);
                let largest = group.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                let finite = group.iter().all(|value| value.is_finite());
                let exact = half::f16::from_f32(largest / 127.0);
                let step = [exact, half::f16::from_bits(exact.to_bits() + 1)]
                    .into_iter()
                    .map(half::f16::to_f32)
                    .find(|step| step * 127.5 >= largest);
                for (got, value) in got[g * GROUP..].iter().zip(group) {
                    let steps = |step: f32| (value / step).round_ties_even().clamp(-127.0, 127.0) * step;
                    let want = step.filter(|step| *step > 0.0).map_or(0.0, steps);
                    assert!(if finite { *got == want } else { got.is_nan() }, "{got} for {value}");
                }
            }
        }
    }
}

#[test]
fn bytes_of_another_length_are_refused() {
    for (outputs, inputs) in SHAPES {
        for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
            let expected = Matrix::packed_len(outputs, inputs, storage);
            for found in [0, 1, 64, expected - 1, expected + 1, expected + 64, 2 * expected] {
                let refused = Matrix::from_packed(outputs, inputs, storage, Buffer::zeroed(found)).err();
                let length = PackedError::Length { outputs, inputs, expected, found };
                assert_eq!(refused, (found != expected).then_some(length));
            }
        }
    }
    let most = usize::MAX;
    for (outputs, inputs) in [(most, most), (most, 1), (1, most), (most / 2, 2), (1 << 40, 1 << 40)] {
        for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
            assert!(Matrix::from_packed(outputs, inputs, storage, Buffer::zeroed(64)).is_err());
        }
    }
    let empty = Matrix::from_packed(0, 4, Storage::F32, Buffer::zeroed(0)).err();
    assert_eq!(empty, Some(PackedError::Empty { outputs: 0, inputs: 4 }));
}

#[test]
fn int8_cuts_nothing_off_at_the_ends_of_its_range() {
    let cpu = Cpu::serial();
    for magnitude in [1e-12, 3e-8, 1e-6, 7.5e-6, 1e-5, 1e-3, 1.0, 1e4, 8e6] {
        let source = [magnitude, -magnitude, 0.0, magnitude / 3.0];
        let got = row(&Matrix::from_values(&cpu, 1, 4, Storage::Int8, &source), 0);
        // Half a step of the scale; an f16 has no scale below 6e-8.
        let step = (magnitude / 127.0).max(1.2e-7);
        for (got, source) in got.iter().zip(source) {
            assert!((got - source).abs() <= step, "{got} for {source}");
        }
    }
    for source in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let got = row(&Matrix::from_values(&cpu, 1, 3, Storage::Int8, &[1.0, source, 2.0]), 0);
        assert!(got.iter().all(|value| !value.is_finite()), "{got:?}");
    }
}

#[test]
#[should_panic(expected = "row 3 of a matrix of 3")]
fn a_row_behind_the_last_one_is_not_read_from_the_padding() {
    Matrix::from_values(&Cpu::serial(), 3, 2, Storage::F32, &[0.0; 6]).read_row(3, &mut [0.0; 2]);
}

#[test]
fn a_transposed_matrix_has_the_values_that_rows_have() {
    let cpu = Cpu::serial();
    for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
        for (outputs, inputs) in [(1, 1), (17, 33), (40, 70)] {
            let w = Matrix::from_values(&cpu, outputs, inputs, storage, &values(outputs * inputs, 1));
            let transposed = w.transposed(&cpu);
            assert_eq!((transposed.outputs(), transposed.inputs()), (inputs, outputs));
            assert_eq!(transposed.storage(), Storage::F32);
            let (mut row, mut column) = (vec![0.0; inputs], vec![0.0; outputs]);
            for i in 0..inputs {
                transposed.read_row(i, &mut column);
                for (o, value) in column.iter().enumerate() {
                    w.read_row(o, &mut row);
                    assert_eq!(row[i].to_bits(), value.to_bits());
                }
            }
        }
    }
}
