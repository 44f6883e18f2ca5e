//! Tile registers in plain Rust, so that the kernels are tested on machines that have none.
//!
//! What is emulated is the text of the Intel SDM, volume 2, for `ldtilecfg`, `tilezero`, `tileloadd`, `tilestored`,
//! `tdpbf16ps` and `tdpbsud`, with its faults for shapes that do not fit as panics. For `tdpbf16ps` that is, for each
//! element of the result: the even inputs of the pairs make one chain of f32 multiply-adds that begins at zero, the odd
//! inputs another, over the whole instruction (32 inputs); then `C + (even + odd)`. Every operation rounds to nearest
//! even, takes denormals as zero and gives zero for them, whatever the thread's rounding mode is.
//!
//! Not emulated: `start_row` (loads that are taken up again after a fault).

use super::tiles::{ROW_BYTES, Shape, TILE_BYTES, TILE_ROWS, Tiles};

/// Eight tile registers.
pub struct Emulated {
    tiles: [[u8; TILE_BYTES]; 8],
    /// None: not configured.
    shapes: Option<[Shape; 8]>,
}

impl Emulated {
    pub const fn new() -> Emulated {
        Emulated { tiles: [[0; TILE_BYTES]; 8], shapes: None }
    }

    pub fn set_shapes(&mut self, shapes: [Shape; 8]) {
        for Shape { rows, bytes } in shapes {
            assert!((1..=TILE_ROWS as u8).contains(&rows), "a tile of {rows} rows");
            assert!((4..=ROW_BYTES as u8).contains(&bytes) && bytes.is_multiple_of(4), "a row of {bytes} bytes");
        }
        *self = Emulated { shapes: Some(shapes), ..Emulated::new() };
    }

    pub fn release(&mut self) {
        *self = Emulated::new();
    }

    pub fn clear(&mut self, tile: usize) {
        self.shape(tile);
        self.tiles[tile].fill(0);
    }

    /// # Safety
    /// As [`Tiles::load`].
    pub unsafe fn read(&mut self, tile: usize, from: *const u8, stride: usize) {
        let (rows, bytes) = self.shape(tile);
        self.clear(tile);
        for (row, to) in (0..rows).zip(self.tiles[tile].chunks_exact_mut(ROW_BYTES)) {
            // SAFETY: readable by the caller's promise.
            unsafe { from.add(row * stride).copy_to_nonoverlapping(to.as_mut_ptr(), bytes) };
        }
    }

    /// # Safety
    /// As [`Tiles::store`].
    pub unsafe fn write(&mut self, tile: usize, to: *mut u8, stride: usize) {
        let (rows, bytes) = self.shape(tile);
        for (row, from) in (0..rows).zip(self.tiles[tile].chunks_exact(ROW_BYTES)) {
            // SAFETY: writable by the caller's promise.
            unsafe { to.add(row * stride).copy_from_nonoverlapping(from.as_ptr(), bytes) };
        }
    }

    pub fn multiply_bf16(&mut self, c: usize, a: usize, b: usize) {
        let (rows, columns, depth) = self.product_shape(c, a, b);
        for (m, n) in (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n))) {
            let mut sums = [0.0f32; 2];
            for k in 0..depth {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let (x, w) = (self.bf16(a, m, 2 * k + i), self.bf16(b, k, 2 * n + i));
                    *sum = flush(flush(x).mul_add(flush(w), *sum));
                }
            }
            let result = self.word_mut(c, m, n);
            let sum = flush(flush(f32::from_le_bytes(*result)) + flush(sums[0] + sums[1]));
            *result = sum.to_le_bytes();
        }
    }

    pub fn multiply_int8(&mut self, c: usize, a: usize, b: usize) {
        let (rows, columns, depth) = self.product_shape(c, a, b);
        for (m, n) in (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n))) {
            let mut sum = 0i32;
            for (k, i) in (0..depth).flat_map(|k| (0..4).map(move |i| (k, i))) {
                let (x, w) = (self.tiles[a][m * ROW_BYTES + 4 * k + i], self.tiles[b][k * ROW_BYTES + 4 * n + i]);
                sum = sum.wrapping_add(i32::from(x as i8) * i32::from(w));
            }
            let result = self.word_mut(c, m, n);
            *result = i32::from_le_bytes(*result).wrapping_add(sum).to_le_bytes();
        }
    }

    /// Rows, columns and steps of a product, after the checks that the processor makes.
    fn product_shape(&self, c: usize, a: usize, b: usize) -> (usize, usize, usize) {
        assert!(c != a && c != b && a != b, "three tiles: {c}, {a}, {b}");
        let [(rows, bytes), (a_rows, a_bytes), (b_rows, b_bytes)] = [c, a, b].map(|tile| self.shape(tile));
        assert_eq!(rows, a_rows, "rows of tiles {c} and {a}");
        assert_eq!(bytes, b_bytes, "columns of tiles {c} and {b}");
        assert_eq!(a_bytes / 4, b_rows, "columns of tile {a} and rows of tile {b}");
        (rows, bytes / 4, b_rows)
    }

    /// Rows, and bytes of each.
    fn shape(&self, tile: usize) -> (usize, usize) {
        let shape = self.shapes.expect("tiles are configured before they are used")[tile];
        (shape.rows.into(), shape.bytes.into())
    }

    fn bf16(&self, tile: usize, row: usize, column: usize) -> f32 {
        let at = row * ROW_BYTES + 2 * column;
        half::bf16::from_le_bytes([self.tiles[tile][at], self.tiles[tile][at + 1]]).to_f32()
    }

    fn word_mut(&mut self, tile: usize, row: usize, column: usize) -> &mut [u8; 4] {
        let at = row * ROW_BYTES + 4 * column;
        self.tiles[tile][at..].first_chunk_mut().expect("a word of the tile")
    }
}

/// A denormal as zero of the same sign.
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

impl Tiles for Emulated {
    fn configure(&mut self, shapes: [Shape; 8]) {
        self.set_shapes(shapes);
    }

    fn zero<const T: usize>(&mut self) {
        self.clear(T);
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.read(T, from, stride) }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.write(T, to, stride) }
    }

    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.multiply_bf16(C, A, B);
    }

    fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.multiply_int8(C, A, B);
    }
}
