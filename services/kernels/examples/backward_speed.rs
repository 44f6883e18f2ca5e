//! Speed of the products of training on the layers of Qwen2.5-0.5B, as fractions of the machine's f32 peak.
//!
//! `cargo run --release -p kernels --example backward_speed`

use std::time::Instant;

use kernels::{Cpu, CpuConfig, Matrix, Storage, linear_backward, outer_sum};

const ROWS: usize = 512;
const RUNS: usize = 5;

fn main() -> std::io::Result<()> {
    let cpu = Cpu::new(&CpuConfig::default())?;
    let peak = kernels::ceilings::product_rate(&cpu, Storage::F32);
    println!("{} threads, {}, {:.0} GFLOP/s in f32, {ROWS} rows", cpu.threads(), cpu.isa(), peak / 1e9);
    let report = |what: &str, flops: usize, seconds: f64| {
        println!("{what}: {:.1} ms, {:.0} % of peak", seconds * 1e3, flops as f64 / seconds / peak * 100.0);
    };
    for (outputs, inputs) in [(896, 896), (4864, 896), (896, 4864)] {
        let (dy, x) = (vec![0.5; ROWS * outputs], vec![0.25; ROWS * inputs]);
        for storage in [Storage::F32, Storage::Bf16, Storage::Int8] {
            let w = Matrix::from_rows(&cpu, outputs, inputs, storage, |row, out| out.fill(row as f32 / 1e4));
            let mut dx = vec![0.0; ROWS * inputs];
            let seconds = median(|| linear_backward(&cpu, &dy, &w, &mut dx));
            report(&format!("dx of {outputs} × {inputs}, {storage:?}"), 2 * ROWS * outputs * inputs, seconds);
        }
        let (h, mut b, mut a) = (vec![0.5; ROWS * 16], vec![0.0; outputs * 16], vec![0.0; 16 * inputs]);
        let seconds = median(|| outer_sum(&cpu, &dy, &h, ROWS, 1.0, &mut b));
        report(&format!("dB of {outputs} × 16"), 2 * ROWS * outputs * 16, seconds);
        let seconds = median(|| outer_sum(&cpu, &h, &x, ROWS, 1.0, &mut a));
        report(&format!("dA of 16 × {inputs}"), 2 * ROWS * inputs * 16, seconds);
    }
    Ok(())
}

fn median(mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
