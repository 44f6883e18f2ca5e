//! The eight tile registers of AMX: what the kernels ask of them, and the machine's own. It knows no matrix.
//!
//! A tile is up to 16 rows of 64 bytes. The kernels are written against [`Tiles`], so that all that a machine without
//! AMX cannot run are the leaves of [`Hardware`]: one instruction each.

use std::arch::asm;
use std::marker::PhantomData;

/// Rows of a whole tile: rows of activations, or steps along the inputs, or outputs of one panel.
pub const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile.
pub const ROW_BYTES: usize = 64;
/// Bytes of a whole tile.
pub const TILE_BYTES: usize = TILE_ROWS * ROW_BYTES;

/// The part of a tile that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 1 to 16.
    pub rows: u8,
    /// Of each row: 4 to 64, a multiple of 4.
    pub bytes: u8,
}

impl Shape {
    pub const WHOLE: Shape = Shape { rows: TILE_ROWS as u8, bytes: ROW_BYTES as u8 };
}

/// Tile registers 0 to 7, named by const parameters since instructions name them.
pub trait Tiles {
    /// Sets the shape of each register. All tiles become zero.
    fn configure(&mut self, shapes: [Shape; 8]);

    /// Fills tile `T` with zeros.
    fn zero<const T: usize>(&mut self);

    /// Reads the rows of tile `T`, which lie `stride` bytes apart.
    ///
    /// # Safety
    /// There are as many bytes to read at each row as the tile's shape says.
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);

    /// Writes the rows of tile `T`, `stride` bytes apart.
    ///
    /// # Safety
    /// There are as many bytes to write at each row as the tile's shape says.
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize);

    /// `C[m][n] += Σ A[m][2k + i] · B[k][2n + i]` over pairs of bf16, in f32 (`tdpbf16ps`).
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);

    /// `C[m][n] += Σ A[m][4k + i] · B[k][4n + i]` over quadruples of int8, signed in `A`, unsigned in `B`, in i32 (`tdpbsud`).
    fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// The tiles of the processor that runs the thread, from [`Hardware::claim`] until it is dropped.
///
/// The state lives in registers between the instructions below. That is sound because the compiler never uses tile
/// registers of its own accord, and `asm!` blocks with side effects stay in their order.
pub struct Hardware {
    /// Registers belong to a thread.
    thread: PhantomData<*mut ()>,
}

impl Hardware {
    /// # Safety
    /// The process has permission for tiles ([`crate::system::amx_permitted`]), and nobody else on this thread uses
    /// tiles until the value is dropped.
    pub unsafe fn claim() -> Hardware {
        Hardware { thread: PhantomData }
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: permission by `claim`. Without it the processor would keep the tiles' power and save them at every switch.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) }
    }
}

impl Tiles for Hardware {
    #[inline(always)]
    fn configure(&mut self, shapes: [Shape; 8]) {
        let config = configuration(shapes);
        // SAFETY: permission by `claim`; the operand is a configuration of palette 1 within its limits.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: permission by `claim`; no memory is involved.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags, nomem)) }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: permission by `claim`; the memory is readable by the caller's promise.
        unsafe {
            asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T, from = in(reg) from, stride = in(reg) stride,
                options(nostack, preserves_flags, readonly));
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: permission by `claim`; the memory is writable by the caller's promise.
        unsafe {
            asm!("tilestored [{to} + {stride}*1], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: permission by `claim`; no memory is involved.
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, preserves_flags, nomem));
        }
    }

    #[inline(always)]
    fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: permission by `claim`; no memory is involved.
        unsafe {
            asm!("tdpbsud tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
                options(nostack, preserves_flags, nomem));
        }
    }
}

/// The operand of `ldtilecfg` (Intel SDM, volume 1, "Tile configuration"): palette 1 in byte 0, bytes of a row in the
/// 16-bit words from 16 on, rows in the bytes from 48 on; the rest is zero.
fn configuration(shapes: [Shape; 8]) -> [u8; 64] {
    const BYTES_AT: usize = 16;
    const ROWS_AT: usize = 48;
    let mut config = [0; 64];
    config[0] = 1;
    for (tile, shape) in shapes.into_iter().enumerate() {
        config[BYTES_AT + 2 * tile] = shape.bytes;
        config[ROWS_AT + tile] = shape.rows;
    }
    config
}
