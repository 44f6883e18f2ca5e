//! Speed of training small jobs one after the other and together, on one base: the same jobs, the same bits.
//!
//! `cargo run --release -p engine --example training_speed -- [--base DIR] [--jobs N] [--sequences N] [--length N]
//! [--rank N] [--steps N] [--threads N]`
//!
//! Each job has its own adapter (all linear layers), optimiser, seed and data, and makes a step from `sequences` sequences
//! of `length` tokens, the last third of which is learnt. One line of JSON; `bench/training.py` reads it. With one thread the
//! time is that on the processor (Linux), which other programs do not disturb, else that of the clock.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use adapters::config::TargetModules;
use adapters::{Limits, LoraConfig};
use engine::model::{CpuConfig, Dtype, Model, ModelOptions};
use engine::train::{OptimiserConfig, Part, Recipe, Run, Sequence, Trainer, TrainerConfig};
use serde_json::json;

struct Arguments {
    base: PathBuf,
    jobs: usize,
    sequences: usize,
    length: usize,
    rank: usize,
    steps: u64,
    threads: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = arguments()?;
    let Arguments { jobs, sequences, length, rank, steps, threads, .. } = arguments;
    let model = Arc::new(Model::load(&arguments.base, &ModelOptions::new(Dtype::F32))?);
    let cpu = CpuConfig { threads, ..CpuConfig::default() };
    let mut trainer = Trainer::new(Arc::clone(&model), TrainerConfig { cpu, ..TrainerConfig::default() })?;
    let data: Vec<Vec<Sequence>> =
        (0..jobs).map(|job| (0..sequences).map(|i| sequence(length, job, i)).collect()).collect();
    let new = |job| {
        let lora = LoraConfig { rank, target_modules: TargetModules::AllLinear, ..LoraConfig::default() };
        let optimiser = OptimiserConfig { steps: steps + 1, ..OptimiserConfig::default() };
        Run::new(model.base(), Recipe { lora, optimiser, seed: job as u64 }, &Limits::default())
    };
    let runs = || (0..jobs).map(new).collect::<Result<Vec<Run>, _>>();
    let loaded = peak_mib();

    // The first step of each brings memory and threads up, and is not counted.
    let mut alone = runs()?;
    for (run, sequences) in alone.iter_mut().zip(&data) {
        one(&mut trainer, run, sequences)?;
    }
    let begin = clock(threads);
    for (run, sequences) in alone.iter_mut().zip(&data) {
        for _ in 0..steps {
            one(&mut trainer, run, sequences)?;
        }
    }
    let in_sequence = clock(threads) - begin;
    let peak_alone = peak_mib();

    let mut shared = runs()?;
    all(&mut trainer, &mut shared, &data)?;
    let begin = clock(threads);
    for _ in 0..steps {
        all(&mut trainer, &mut shared, &data)?;
    }
    let together = clock(threads) - begin;
    let same = alone.iter().zip(&shared).all(|(alone, shared)| alone.save() == shared.save());

    let tokens = (jobs * sequences * length) as f64 * steps as f64;
    let result = json!({
        "jobs": jobs, "sequences": sequences, "length": length, "rank": rank, "steps": steps,
        "threads": threads, "isa": model.cpu().isa().name(), "parameters": alone[0].parameters(),
        "tokens_per_second_in_sequence": tokens / in_sequence, "tokens_per_second_together": tokens / together,
        "ratio": in_sequence / together, "same_bits": same,
        "peak_mib_loaded": loaded, "peak_mib_in_sequence": peak_alone, "peak_mib_together": peak_mib(),
    });
    println!("{result}");
    Ok(())
}

fn one(trainer: &mut Trainer, run: &mut Run, sequences: &[Sequence]) -> Result<(), Box<dyn std::error::Error>> {
    trainer.accumulate(&mut [Part { run, sequences }])?;
    trainer.step(run)?;
    Ok(())
}

fn all(trainer: &mut Trainer, runs: &mut [Run], data: &[Vec<Sequence>]) -> Result<(), Box<dyn std::error::Error>> {
    let mut parts: Vec<Part<'_>> = runs.iter_mut().zip(data).map(|(run, sequences)| Part { run, sequences }).collect();
    trainer.accumulate(&mut parts)?;
    for run in runs {
        trainer.step(run)?;
    }
    Ok(())
}

fn sequence(length: usize, job: usize, index: usize) -> Sequence {
    let token = |i: usize| (100 + (i * (31 + job) + 977 * index) % 3900) as u32;
    let learnt = length - length / 3;
    Sequence {
        tokens: (0..length).map(token).collect(),
        weights: (0..length).map(|i| f32::from(i >= learnt)).collect(),
    }
}

/// Seconds since some moment.
fn clock(threads: usize) -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let schedule = (threads == 1).then(|| std::fs::read_to_string("/proc/thread-self/schedstat").ok()).flatten();
    let on_processor = schedule.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    on_processor.map_or_else(|| START.elapsed().as_secs_f64(), |nanoseconds| nanoseconds as f64 / 1e9)
}

/// The most memory that this process ever had, in MiB; 0 where the system does not say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn arguments() -> Result<Arguments, Box<dyn std::error::Error>> {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../adapters/seed/base");
    let mut parsed = Arguments { base, jobs: 4, sequences: 1, length: 32, rank: 8, steps: 20, threads: 0 };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--base" => parsed.base = value.into(),
            "--jobs" => parsed.jobs = value.parse()?,
            "--sequences" => parsed.sequences = value.parse()?,
            "--length" => parsed.length = value.parse()?,
            "--rank" => parsed.rank = value.parse()?,
            "--steps" => parsed.steps = value.parse()?,
            "--threads" => parsed.threads = value.parse()?,
            _ => return Err(format!("{name} is unknown").into()),
        }
    }
    Ok(parsed)
}
