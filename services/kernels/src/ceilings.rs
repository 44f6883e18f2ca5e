//! What this machine can do at most: the figures that those of the kernels stand beside. Measured, not looked up, with the
//! threads and the best instructions of a [`Cpu`]. It is for measuring; nothing that serves calls it.

mod rates;

use std::hint::black_box;
use std::time::Instant;

use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::matrix::Storage;

/// Passes over memory, or runs of products, of which the median counts.
const PASSES: usize = 7;
/// Bytes of one task of a pass.
const PART: usize = 256 << 10;
/// Rounds of products of one task: some tens of milliseconds.
const ROUNDS: usize = 4_000_000;

/// Bytes per second of reading `bytes` of memory from end to end with all threads: the median of several passes. What fits
/// in a cache is read from it; for main memory take several times its size.
pub fn read_bandwidth(cpu: &Cpu, bytes: usize) -> f64 {
    let bytes = bytes.next_multiple_of(PART).max(PART);
    let mut memory = Buffer::zeroed(bytes);
    let filled = memory.get_mut().expect("new memory has one owner");
    // Pages that were never written are all the same one.
    cpu.each_chunk(filled, PART, |_, part| part.fill(1));
    let seconds = median(|| {
        cpu.each(bytes / PART, |i| {
            black_box(rates::read(cpu.isa(), &memory[i * PART..(i + 1) * PART]));
        });
    });
    bytes as f64 / seconds
}

/// Products per second, each a multiplication and an addition and so counted as 2, of the instructions that products with
/// weights of `storage` are made of, on all threads and out of registers: the median of several runs.
pub fn product_rate(cpu: &Cpu, storage: Storage) -> f64 {
    let of_round = rates::operations(cpu.isa(), storage);
    let rounds = ROUNDS / (of_round as usize / 128).max(1);
    let seconds = median(|| {
        cpu.each(cpu.threads(), |_| {
            black_box(rates::products(cpu.isa(), storage, rounds));
        });
    });
    cpu.threads() as f64 * rounds as f64 * of_round / seconds
}

/// The median time of `PASSES` runs, after one that is not counted.
fn median(run: impl Fn()) -> f64 {
    run();
    let time = || {
        let begin = Instant::now();
        run();
        begin.elapsed().as_secs_f64()
    };
    let mut seconds: Vec<f64> = std::iter::repeat_with(time).take(PASSES).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[PASSES / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::cpus;

    #[test]
    fn every_instruction_set_has_a_rate_for_every_storage() {
        for isa in crate::Isa::available() {
            for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
                assert!(rates::operations(isa, storage) > 0.0);
                rates::products(isa, storage, 3);
            }
        }
    }

    #[test]
    fn reading_adds_every_word_up() {
        for cpu in cpus(1) {
            let mut memory = Buffer::zeroed(4096);
            memory.get_mut().unwrap().fill(1);
            let word = u64::from_ne_bytes([1; 8]);
            assert_eq!(rates::read(cpu.isa(), &memory), word.wrapping_mul(4096 / 8), "{}", cpu.isa());
        }
    }
}
