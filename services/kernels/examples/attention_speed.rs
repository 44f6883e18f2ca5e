//! Measures attention of the shape of Qwen2.5-0.5B (14 query heads on 2 key-value heads of 64 dimensions): decode of 16
//! sequences, and prefill of one prompt, beside what the same threads read from a large buffer in the same run.
//!
//! Prints the median, and the best in parentheses: on a machine that is busy otherwise, only the best says something.
//!
//! `cargo run --release -p kernels --example attention_speed -- [threads] [isa]`

use std::hint::black_box;
use std::time::Instant;

use kernels::{
    AttentionShape, AttentionSlice, BLOCK_TOKENS, BlockId, Cpu, CpuConfig, Isa, KvBlocks, KvStorage, paged_attention,
};

const SHAPE: AttentionShape = AttentionShape { heads: 14, kv_heads: 2, head_dim: 64, scale: 0.125, window: None };
const BATCH: usize = 16;
/// Decode goes around in so many layers that keys and values come from memory, as in a model.
const LAYERS: usize = 24;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(0, |threads| threads.parse().expect("a number of threads"));
    let isa = arguments.next().map(|name| {
        Isa::available()
            .into_iter()
            .find(|isa| isa.name() == name)
            .unwrap_or_else(|| panic!("no {name} on this machine"))
    });
    let cpu = match Cpu::new(&CpuConfig { threads, isa, ..CpuConfig::default() }) {
        Ok(cpu) => cpu,
        Err(error) => return eprintln!("{error}"),
    };
    println!("{} threads, {}", cpu.threads(), cpu.isa());
    let read = read_rate(&cpu);
    println!("reading 512 MiB: {read:.1} GB/s");
    for storage in [KvStorage::Bf16, KvStorage::F32] {
        for context in [256, 1024] {
            decode(&cpu, storage, context, read);
        }
        for rows in [512, 2048] {
            prefill(&cpu, storage, rows);
        }
    }
}

fn decode(cpu: &Cpu, storage: KvStorage, context: usize, read: f64) {
    let blocks_each = context / BLOCK_TOKENS;
    let tables = tables(BATCH, blocks_each);
    let layers: Vec<_> = (0..LAYERS).map(|_| filled(cpu, storage, &tables)).collect();
    let q = values(BATCH * SHAPE.heads * SHAPE.head_dim);
    let mut out = vec![0.0; q.len()];
    let slice = |(i, blocks)| AttentionSlice { rows: i..i + 1, past: context - 1, blocks };
    let slices: Vec<_> = tables.iter().map(Vec::as_slice).enumerate().map(slice).collect();
    let mut next = layers.iter().cycle();
    let times = times(15 * LAYERS, || {
        let layer = next.next().expect("there are layers");
        paged_attention(cpu, &SHAPE, &q, layer, &slices, black_box(&mut out));
    });
    let bytes = BATCH * blocks_each * KvBlocks::bytes_per_block(SHAPE.kv_heads, SHAPE.head_dim, storage);
    let figures = |seconds: f64| {
        let rate = bytes as f64 / seconds / 1e9;
        let share = rate / read * 100.0;
        let products = operations(BATCH * context) / seconds / 1e9;
        format!("{:.0} us a layer, {rate:.1} GB/s, {share:.0} % of reading, {products:.0} GFLOP/s", seconds * 1e6)
    };
    let Times { median, best } = times;
    println!("{storage:?} decode, batch {BATCH}, context {context}: {} (best {})", figures(median), figures(best));
}

fn prefill(cpu: &Cpu, storage: KvStorage, rows: usize) {
    let tables = tables(1, rows / BLOCK_TOKENS);
    let layer = filled(cpu, storage, &tables);
    let q = values(rows * SHAPE.heads * SHAPE.head_dim);
    let mut out = vec![0.0; q.len()];
    let slices = [AttentionSlice { rows: 0..rows, past: 0, blocks: &tables[0] }];
    let Times { median, best } = times(25, || paged_attention(cpu, &SHAPE, &q, &layer, &slices, black_box(&mut out)));
    let rate = |seconds: f64| operations(rows * (rows + 1) / 2) / seconds / 1e9;
    println!(
        "{storage:?} prefill of {rows}: {:.2} ms a layer, {:.0} GFLOP/s (best {:.2} ms, {:.0} GFLOP/s)",
        median * 1e3,
        rate(median),
        best * 1e3,
        rate(best),
    );
}

/// Multiplications and additions of so many pairs of a query's row and a key's token.
fn operations(pairs: usize) -> f64 {
    (pairs * SHAPE.heads * SHAPE.head_dim * 4) as f64
}

/// Blocks of each sequence, in no order that memory has.
fn tables(sequences: usize, blocks_each: usize) -> Vec<Vec<BlockId>> {
    let total = sequences * blocks_each;
    // 40,503 has no divisor in common with a power of two: each block once.
    let id = |i: usize| BlockId((i * 40_503 % total) as u32);
    (0..sequences).map(|s| (s * blocks_each..(s + 1) * blocks_each).map(id).collect()).collect()
}

fn filled(cpu: &Cpu, storage: KvStorage, tables: &[Vec<BlockId>]) -> KvBlocks {
    let blocks: Vec<BlockId> = tables.concat();
    let mut cache = KvBlocks::new(blocks.len(), SHAPE.kv_heads, SHAPE.head_dim, storage);
    let places: Vec<_> = blocks.iter().flat_map(|block| (0..BLOCK_TOKENS).map(|slot| (*block, slot))).collect();
    let rows = values(places.len() * SHAPE.kv_heads * SHAPE.head_dim);
    cache.write_rows(cpu, &rows, &rows, &places);
    cache
}

/// GB/s that all threads together read from 512 MiB, at best.
fn read_rate(cpu: &Cpu) -> f64 {
    let buffer = vec![1.0f32; 128 << 20];
    let seconds = times(15, || {
        cpu.each(buffer.len() >> 16, |i| {
            let mut lanes = [0.0f32; 64];
            for values in buffer[i << 16..(i + 1) << 16].as_chunks::<64>().0 {
                lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += value);
            }
            black_box(lanes);
        });
    })
    .best;
    size_of_val(buffer.as_slice()) as f64 / seconds / 1e9
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// Seconds of one repetition.
struct Times {
    median: f64,
    best: f64,
}

fn times(repetitions: usize, mut work: impl FnMut()) -> Times {
    work();
    let mut seconds: Vec<f64> = (0..repetitions)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    Times { median: seconds[repetitions / 2], best: seconds[0] }
}
