//! The emulation against scalars, and the real leaves against the emulation: on a machine with AMX that compares the
//! processor with the manual, elsewhere (Linux) what the leaves are compiled to with the manual.

use super::*;
use crate::linear::amx::emulated::flush;
use crate::linear::amx::tiles::Shape;

/// The real leaves: on the processor's tiles where it has them, else trapped. `None` where neither can be.
fn hardware() -> Option<Hardware> {
    if Isa::best() < Isa::Amx {
        #[cfg(not(target_os = "linux"))]
        return None;
        #[cfg(target_os = "linux")]
        crate::linear::amx::trap::install();
    }
    // SAFETY: either there is permission or the instructions are trapped; a test uses one at a time.
    Some(unsafe { Hardware::claim() })
}

#[test]
fn the_instructions_give_what_the_emulation_gives() {
    for (rows, outputs, inputs) in [(1, 16, 16), (7, 70, 576), (16, 129, 96), (33, 70, 576), (61, 48, 1088)] {
        let Some(mut tiles) = hardware() else { return };
        let case = Case::whole_bf16(rows, outputs, inputs);
        case.check(&case.run(&mut tiles, case.panels()));
        // The order of additions within an instruction is the manual's; that alone is not held against a processor.
        let case = Case::bf16(rows, outputs, inputs);
        assert_close(&case.run(&mut tiles, case.panels()), &case.exact, case.tolerance);
        if Isa::best() >= Isa::Avx512 {
            let case = Case::int8(rows, outputs, inputs);
            case.check(&case.run(&mut tiles, case.panels()));
        }
    }
}

/// With other registers, shapes and distances than the kernels use.
#[test]
fn leaves_name_the_registers_that_they_are_asked_for() {
    const SHORT: Shape = Shape { rows: 5, bytes: 48 };
    const NARROW: Shape = Shape { rows: 5, bytes: 28 };
    const LOW: Shape = Shape { rows: 7, bytes: 48 };
    fn run<T: Tiles>(tiles: &mut T, bytes: &[u8], numbers: &[bf16]) -> Vec<u8> {
        let mut out = vec![0xee; 4096];
        tiles.configure([SHORT, LOW, SHORT, LOW, NARROW, Shape::WHOLE, NARROW, LOW]);
        // SAFETY: more than a whole tile to read at each place, and to write.
        unsafe {
            tiles.load::<6>(bytes.as_ptr(), 96);
            tiles.load::<3>(bytes.as_ptr().add(7), 64);
            tiles.zero::<2>();
            tiles.dot_int8::<2, 6, 3>();
            tiles.store::<2>(out.as_mut_ptr(), 80);
            tiles.load::<0>(out.as_ptr(), 80);
            tiles.load::<7>(bytes.as_ptr().add(3), 64);
            tiles.load::<4>(bytes.as_ptr().add(200), 31);
            tiles.dot_int8::<0, 4, 7>();
            tiles.dot_int8::<0, 6, 7>();
            tiles.store::<0>(out.as_mut_ptr().add(640), 64);
            tiles.load::<5>(bytes.as_ptr().add(11), 40);
            tiles.store::<5>(out.as_mut_ptr().add(1000), 100);
            tiles.zero::<2>();
            tiles.load::<4>(numbers.as_ptr().cast(), 64);
            tiles.load::<1>(numbers.as_ptr().add(100).cast(), 48);
            tiles.dot_bf16::<2, 4, 1>();
            tiles.load::<6>(numbers.as_ptr().add(9).cast(), 28);
            tiles.dot_bf16::<2, 6, 1>();
            tiles.store::<2>(out.as_mut_ptr().add(2700), 64);
        }
        out
    }
    let bytes: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let numbers: Vec<bf16> = values(1024, 8).iter().map(|v| bf16::from_f32((v * 16.0).floor())).collect();
    let Some(mut tiles) = hardware() else { return };
    let (got, want) = (run(&mut tiles, &bytes, &numbers), run(&mut Emulated::new(), &bytes, &numbers));
    assert_eq!(got, want);
    assert_ne!(want[2700..2748], [0; 48], "something came out");
}

#[test]
fn emulated_products_are_those_of_scalars() {
    let (x, w, start) = (values(16 * 32, 5), values(16 * 32, 6), values(256, 7));
    let round = |v: &f32| bf16::from_f32(*v);
    let (a, b): (Vec<bf16>, Vec<bf16>) = (x.iter().map(round).collect(), w.iter().map(round).collect());
    for Shape { rows, bytes } in [Shape::WHOLE, Shape { rows: 9, bytes: 64 }, Shape { rows: 16, bytes: 20 }] {
        let mut c = start.clone();
        let mut tiles = Emulated::new();
        let (sums, weights) = (Shape { rows, bytes: 64 }, Shape { rows: bytes / 4, bytes: 64 });
        tiles.configure([sums, sums, sums, sums, Shape { rows, bytes }, weights, weights, weights]);
        // SAFETY: whole tiles.
        unsafe {
            tiles.load::<0>(c.as_ptr().cast(), 64);
            tiles.load::<4>(a.as_ptr().cast(), 64);
            tiles.load::<5>(b.as_ptr().cast(), 64);
            tiles.dot_bf16::<0, 4, 5>();
            tiles.store::<0>(c.as_mut_ptr().cast(), 64);
        }
        for (m, n) in (0..16).flat_map(|m| (0..16).map(move |n| (m, n))) {
            let inputs = if m < usize::from(rows) { usize::from(bytes) / 2 } else { 0 };
            let product = |k: usize| a[m * 32 + k].to_f64() * b[k / 2 * 32 + 2 * n + k % 2].to_f64();
            let want = f64::from(start[m * 16 + n]) + (0..inputs).map(product).sum::<f64>();
            assert_close(&c[m * 16 + n..][..1], &[want], 33.0 * 33.0 * f64::from(f32::EPSILON) / 2.0);
        }
    }
}

/// One tile product of equal bytes, added twice.
fn twice<T: Copy>(x: T, w: T, dot: impl Fn(&mut Emulated)) -> [u8; TILE_BYTES] {
    let (a, b) = ([x; TILE_BYTES], [w; TILE_BYTES]);
    let mut c = [1u8; TILE_BYTES];
    let mut tiles = Emulated::new();
    tiles.configure([Shape::WHOLE; 8]);
    // SAFETY: whole tiles and more.
    unsafe {
        tiles.load::<1>(a.as_ptr().cast(), 64);
        tiles.load::<2>(b.as_ptr().cast(), 64);
        dot(&mut tiles);
        dot(&mut tiles);
        tiles.store::<0>(c.as_mut_ptr(), 64);
    }
    c
}

#[test]
fn emulated_int8_is_exact_for_the_ends_of_both_ranges() {
    for (x, w) in [(-128i8, 255u8), (127, 255), (-128, 0), (-1, 128), (3, 7)] {
        let sums = twice(x as u8, w, |tiles| tiles.dot_int8::<0, 1, 2>());
        let want = (2 * 64 * i32::from(x) * i32::from(w)).to_le_bytes();
        assert!(sums.chunks(4).all(|sum| sum == want), "{x} · {w}");
    }
}

#[test]
fn emulated_denormals_are_zero() {
    assert_eq!(flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    assert_eq!(flush(-f32::MIN_POSITIVE / 2.0).to_bits(), (-0.0f32).to_bits());
    // A product that f32 holds as a denormal, one whose factor is one, and one that is held.
    for (x, w, want) in [(-70, -70, 0.0), (-130, 100, 0.0), (-60, -60, 64.0 * (-120f32).exp2())] {
        let [x, w] = [x, w].map(|power| bf16::from_f32((power as f32).exp2()));
        assert!(x.to_f32() > 0.0 && w.to_f32() > 0.0);
        let sums = twice(x, w, |tiles| tiles.dot_bf16::<0, 1, 2>());
        assert!(sums.chunks(4).all(|sum| sum == want.to_le_bytes()), "{x} · {w}");
    }
}

#[test]
#[should_panic(expected = "configured before")]
fn emulated_tiles_that_were_not_configured_fault() {
    Emulated::new().zero::<0>();
}

#[test]
#[should_panic(expected = "rows of tiles 0 and 4")]
fn emulated_products_of_shapes_that_do_not_fit_fault() {
    let mut tiles = Emulated::new();
    let mut shapes = [Shape::WHOLE; 8];
    shapes[0].rows = 3;
    tiles.configure(shapes);
    tiles.dot_bf16::<0, 4, 5>();
}
