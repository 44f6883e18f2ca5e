//! The linear layer on AMX: tiles of 16 × 16 outputs, products of bf16 and of int8. It prepares no input and packs no
//! weights; products with f32 weights have no tiles and run as on AVX-512.
//!
//! Each output is one chain over the inputs in their order, whatever the rows of the batch, the blocks and the tasks are:
//! for bf16 one tile product for each 32 inputs, added to the sum so far (the chain within the 32 is the instruction's, see
//! `emulated`); for int8 an exact sum for each group of 64, and one f32 multiply-add for each group, so that int8 gives
//! the bits of every other instruction set.
//!
//! **Tested without AMX**: the kernels over emulated tiles, that is all blocking, addressing, tails and scales; and the
//! real leaves ([`tiles::Hardware`]), each of whose instructions traps there, is decoded from its bytes and emulated
//! (`trap`), that is their encodings, operands and order. **Needs a machine with AMX**: that the processor does what the
//! manual says (where there is one, the same tests compare it with the emulation), the permission of the operating
//! system, and speed.

mod bf16;
#[cfg(test)]
mod emulated;
mod int8;
mod rows;
#[cfg(test)]
mod tests;
mod tiles;
#[cfg(all(test, target_os = "linux"))]
mod trap;

use std::ops::Range;

use super::avx512;
use super::job::Job;
use crate::matrix::{LINE, Storage};
use tiles::{Hardware, TILE_BYTES, Tiles};

/// Lines of weights that make a tile.
const TILE_LINES: usize = TILE_BYTES / LINE;
/// Panels whose weights, of one block of lines, stay in the second-level cache while all rows pass: 512 KiB.
const BLOCK_PANELS: usize = 32;
/// Lines of a block: 16 KiB of each panel.
const BLOCK_LINES: usize = 256;
/// Rows whose activations, of one block of lines, stay there while those panels pass: 256 KiB.
const BLOCK_ROWS: usize = 256;

/// Does `job`.
///
/// # Safety
/// The process may use AMX ([`crate::isa::Isa::Amx`]). Every processor that has it has AVX-512.
pub unsafe fn run(job: &Job<'_>) {
    #[cfg(test)]
    if crate::isa::Isa::best() < crate::isa::Isa::Amx {
        // SAFETY: `Cpu::with_tiles` sees to the other instructions.
        return unsafe { run_on(&mut emulated::Emulated::new(), job) };
    }
    // SAFETY: the caller's promise; a task runs on one thread, and nobody else uses tiles in it.
    unsafe { run_on(&mut Hardware::claim(), job) }
}

/// # Safety
/// The tiles can be used, and for f32 and int8 AVX-512.
unsafe fn run_on<T: Tiles>(tiles: &mut T, job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.storage() {
            Storage::F32 => avx512::run(job),
            Storage::Bf16 => bf16::run(tiles, job),
            // Less than a tile is deep.
            Storage::Int8 if job.is_short() => avx512::run(job),
            Storage::Int8 => int8::run(tiles, job),
        }
    }
}

/// Cuts a job of more rows than a tile has into parts whose operands stay in the cache. `part` gets rows, panels and lines,
/// the lines of one output in order; between parts its sum waits in the result. What has no place there as it is (an
/// incomplete panel, rows that are added or scattered) gets all lines at once.
fn parts(job: &Job<'_>, mut part: impl FnMut(Range<usize>, Range<usize>, Range<usize>)) {
    let in_place = job.panels_in_place();
    for (panels, lines) in [(in_place.clone(), BLOCK_LINES), (in_place.end..job.panels.end, job.lines.len())] {
        for panels in blocks(panels, BLOCK_PANELS) {
            for lines in blocks(0..job.lines.len(), lines) {
                for rows in blocks(job.rows.clone(), BLOCK_ROWS) {
                    part(rows, panels.clone(), lines.clone());
                }
            }
        }
    }
}

/// Parts of `range` of up to `size`, in order.
fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size.max(1)).map(move |start| start..(start + size).min(end))
}

/// Asks for the tile that lies `ahead` bytes behind `tile`; beyond the end of the weights it is without effect.
#[inline(always)]
fn prefetch(tile: *const u8, ahead: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in (0..TILE_BYTES).step_by(LINE) {
        // SAFETY: a hint; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(tile.wrapping_add(ahead + line).cast()) };
    }
}
