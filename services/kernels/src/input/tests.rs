use super::*;
use crate::reference::{cpus, to_bf16, values};

/// The activations of a prepared form as f32, and the starts of int8.
fn prepared(input: &Input<'_>, isa: Isa, storage: Storage) -> (Vec<f32>, Vec<i32>) {
    let form = input.form(isa, storage);
    let mut out = Vec::new();
    for row in 0..input.rows() {
        for i in 0..depth(storage, input.width()) {
            // SAFETY: inside of the row.
            let at = |bytes: usize| unsafe { form.data.add(row * form.stride + i * bytes) };
            out.push(match storage {
                // SAFETY: as above; the form has numbers of that size.
                Storage::Bf16 if isa >= Isa::Avx512Bf16 => unsafe { at(2).cast::<half::bf16>().read() }.to_f32(),
                // SAFETY: as above.
                Storage::F32 | Storage::Bf16 => unsafe { at(4).cast::<f32>().read_unaligned() },
                Storage::Int8 => {
                    let group = form.groups[row * form.stride.div_ceil(GROUP) + i / GROUP];
                    // SAFETY: as above.
                    f32::from(unsafe { at(1).cast::<i8>().read() }) * group.scale
                }
            });
        }
    }
    (out, form.groups.iter().map(|group| group.start).collect())
}

#[test]
fn every_form_holds_the_rows_and_zeros_behind_them_even_in_used_memory() {
    for cpu in cpus(2) {
        let mut input = Input::default();
        for (rows, width) in [(3, 200), (1, 1), (2, 16), (5, 17), (17, 63), (1, 64), (2, 65), (40, 1000), (0, 8)] {
            let x = values(rows * width, 3);
            let mut filled = input.refill(&cpu, &x, width, Forms::BF16 | Forms::INT8);
            for (storage, tolerance) in [(Storage::F32, 0.0), (Storage::Bf16, 0.0), (Storage::Int8, 0.51 / 127.0)] {
                let (got, starts) = prepared(&filled, cpu.isa(), storage);
                let depth = depth(storage, width);
                let want = if storage == Storage::Bf16 { to_bf16(&x) } else { x.clone() };
                for (got, want) in got.chunks(depth).zip(want.chunks(width)) {
                    for (got, want) in got.iter().zip(want.iter().chain(std::iter::repeat(&0.0))) {
                        assert!((got - want).abs() <= tolerance, "{got} for {want}");
                    }
                }
                if storage == Storage::Int8 {
                    let groups = got.chunks(depth).flat_map(|row| row.chunks(GROUP));
                    for (values, start) in groups.zip(starts) {
                        let largest = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                        let sum: f32 = values.iter().map(|value| (value / largest * 127.0).round()).sum();
                        assert_eq!(start, -128 * sum as i32);
                    }
                }
            }
            filled = filled.release();
            input = filled.release();
        }
    }
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_what_is_no_number() {
    for bits in (0..=u32::MAX).step_by(9973).chain([0x7f7f_ffff, 0x7f80_0000, 0x7f80_0001, 0xffff_ffff, 0x3f80_8000]) {
        let value = f32::from_bits(bits);
        let (got, want) = (half::bf16::from_bits(round_bf16(value)), half::bf16::from_f32(value));
        assert!(got == want || got.is_nan() && want.is_nan(), "{value}: {got}, not {want}");
    }
}

#[test]
fn int8_of_what_is_no_number_has_a_scale_that_is_none() {
    for cpu in cpus(1) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(3 * 130, 1);
            x[130 + 70] = bad;
            let input = Input::new(&cpu, &x, 130, Forms::INT8);
            let form = input.form(cpu.isa(), Storage::Int8);
            let nan: Vec<usize> = (0..9).filter(|i| form.groups[*i].scale.is_nan()).collect();
            assert_eq!(nan, [4]);
        }
        let tiny = [1e-38, -1e-40, 0.0];
        let input = Input::new(&cpu, &tiny, 3, Forms::INT8);
        assert_eq!(prepared(&input, cpu.isa(), Storage::Int8).0, [0.0; 4]);
        let huge = [3e38, -3e38, 0.0];
        let input = Input::new(&cpu, &huge, 3, Forms::INT8);
        assert!((prepared(&input, cpu.isa(), Storage::Int8).0[0] / 3e38 - 1.0).abs() < 1e-6);
    }
}

#[test]
#[should_panic(expected = "not prepared for Int8")]
fn a_form_that_was_not_prepared_is_not_read() {
    let cpu = Cpu::serial();
    Input::new(&cpu, &[1.0], 1, Forms::BF16).form(cpu.isa(), Storage::Int8);
}
