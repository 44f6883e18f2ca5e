//! Speed of the products of training on layers of the shipped base and of Qwen2.5-0.5B, as fractions of the machine's f32
//! peak.
//!
//! `cargo run --release -p kernels --example backward_speed`

use std::time::Instant;

use kernels::{
    AttentionRows, AttentionShape, Cpu, CpuConfig, Forms, Input, Matrix, OuterSum, Storage, attention_backward, linear,
    outer_sums,
};

const ROWS: [usize; 3] = [32, 128, 512];
/// Outputs and inputs.
const LAYERS: [(usize, usize); 4] = [(256, 256), (704, 256), (256, 704), (4864, 896)];
const RANK: usize = 8;
const RUNS: usize = 15;

fn main() -> std::io::Result<()> {
    let cpu = Cpu::new(&CpuConfig::default())?;
    let peak = kernels::ceilings::product_rate(&cpu, Storage::F32);
    println!("{} threads, {}, {:.0} GFLOP/s in f32", cpu.threads(), cpu.isa(), peak / 1e9);
    let report = |what: String, flops: usize, seconds: f64| {
        println!("{what}: {:.0} µs, {:.0} % of peak", seconds * 1e6, flops as f64 / seconds / peak * 100.0);
    };
    for rows in ROWS {
        for (outputs, inputs) in LAYERS {
            let (x, dy) = (vec![0.25; rows * inputs], vec![0.5; rows * outputs]);
            let w = Matrix::from_rows(&cpu, outputs, inputs, Storage::F32, |row, out| out.fill(row as f32 / 1e4));
            let back = w.transposed(&cpu);
            let layer = format!("{rows} rows, {outputs} × {inputs}");
            let (mut y, mut dx) = (vec![0.0; rows * outputs], vec![0.0; rows * inputs]);
            let seconds = median(|| linear(&cpu, &Input::new(&cpu, &x, inputs, Forms::F32), &w, &mut y));
            report(format!("{layer}: y"), 2 * rows * outputs * inputs, seconds);
            let seconds = median(|| linear(&cpu, &Input::new(&cpu, &dy, outputs, Forms::F32), &back, &mut dx));
            report(format!("{layer}: dx"), 2 * rows * outputs * inputs, seconds);
            let (h, mut a, mut b) = (vec![0.5; rows * RANK], vec![0.0; RANK * inputs], vec![0.0; RANK * outputs]);
            let seconds = median(|| {
                let of_a = OuterSum { left: &h, right: &x, rows, scale: 1.0, out: &mut a };
                outer_sums(&cpu, &mut [of_a, OuterSum { left: &h, right: &dy, rows, scale: 1.0, out: &mut b }]);
            });
            report(format!("{layer}: dA and dB of rank {RANK}"), 2 * rows * RANK * (inputs + outputs), seconds);
        }
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 64, scale: 0.125, window: None };
        let (q, k) = (vec![0.1; rows * 256], vec![0.1; rows * 128]);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), k.clone());
        let all = AttentionRows { q: &q, k: &k, v: &k, out: &q, d_out: &q };
        let whole = 0..rows;
        let sequences = std::slice::from_ref(&whole);
        let seconds = median(|| attention_backward(&cpu, &shape, sequences, all, &mut dq, &mut dk, &mut dv));
        report(format!("attention of {rows}, 4 heads of 64"), 5 * rows * rows * 256, seconds);
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
