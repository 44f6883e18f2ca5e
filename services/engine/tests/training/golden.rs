//! Against torch, transformers and peft: tolerance 1e-4, relative, f32 here and f64 there.

use std::collections::BTreeMap;
use std::path::Path;

use adapters::{Container, Limits};
use engine::train::{OptimiserConfig, Part, Sequence};

use crate::support::{golden, golden_run, model, trainer};

/// Of the norm of a tensor, and of its largest element for any one.
const TOLERANCE: f64 = 1e-4;

#[derive(serde::Deserialize)]
struct Data {
    tokens: Vec<u32>,
    weights: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Expected {
    sequences: Vec<Data>,
    losses: BTreeMap<String, f64>,
}

#[derive(serde::Deserialize)]
struct Curve {
    sequences: Vec<Data>,
    optimiser: OptimiserConfig,
    steps: Vec<Step>,
}

#[derive(serde::Deserialize)]
struct Step {
    loss: f64,
    norm: f64,
    rate: f64,
}

fn sequences(data: &[Data]) -> Vec<Sequence> {
    data.iter().map(|data| Sequence { tokens: data.tokens.clone(), weights: data.weights.clone() }).collect()
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn container(path: &Path) -> Container {
    Container::parse(std::fs::read(path).unwrap().into(), &Limits::default()).unwrap()
}

/// The greatest relative difference of a factor's tensors from those in `want`, all of which are compared.
fn difference(got: &[(&str, [Vec<f32>; 2])], want: &Container) -> f64 {
    let mut worst = 0.0f64;
    let mut compared = 0;
    for (module, factors) in got {
        for (part, got) in ["A", "B"].into_iter().zip(factors) {
            let names = [format!("lora_{part}.weight"), format!("lora_embedding_{part}")];
            let tensor = names.iter().find_map(|name| want.get(&format!("base_model.model.{module}.{name}"))).unwrap();
            let want = tensor.to_f32().unwrap();
            assert_eq!(want.len(), got.len(), "{module}");
            let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let apart: Vec<f32> = got.iter().zip(&want).map(|(got, want)| got - want).collect();
            let largest = |values: &[f32]| values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            let off = (wide(&apart) / wide(&want)).max(f64::from(largest(&apart) / largest(&want)));
            assert!(off <= TOLERANCE, "{module}, {part}: {off:e}");
            worst = worst.max(off);
            compared += 1;
        }
    }
    assert_eq!(compared, want.names().count(), "a factor was not compared");
    worst
}

#[test]
fn losses_and_gradients_of_every_variant_are_those_of_peft() {
    let mut cases = 0;
    let mut bases: Vec<_> = std::fs::read_dir(golden().join("train")).unwrap().map(|entry| entry.unwrap()).collect();
    bases.sort_by_key(std::fs::DirEntry::file_name);
    for base in bases {
        let name = base.file_name().into_string().unwrap();
        let expected: Expected = json(&base.path().join("expected.json"));
        let (model, data) = (model(&name), sequences(&expected.sequences));
        let mut trainer = trainer(&model, 2, u64::MAX);
        for (variant, want) in &expected.losses {
            let folder = base.path().join(variant);
            let (_, mut run) = golden_run(&model, &folder, OptimiserConfig::default());
            let loss = trainer.accumulate(&mut [Part { run: &mut run, sequences: &data }]).unwrap()[0];
            let off = (loss.mean / want - 1.0).abs();
            let worst = difference(&run.gradients(), &container(&folder.join("gradients.safetensors")));
            println!("{name}, {variant}: loss {off:.1e}, gradients {worst:.1e}");
            assert!(off <= TOLERANCE, "{name}, {variant}: {} and {want}", loss.mean);
            cases += 1;
        }
    }
    assert!(cases >= 15, "golden files are missing");
}

#[test]
fn a_run_of_steps_is_that_of_torch_with_the_schedule_of_transformers() {
    let folder = golden().join("train/qwen3/plain");
    let curve: Curve = json(&folder.join("curve.json"));
    let (model, data) = (model("qwen3"), sequences(&curve.sequences));
    let mut trainer = trainer(&model, 2, u64::MAX);
    let (_, mut run) = golden_run(&model, &folder, curve.optimiser);
    let mut worst = [0.0f64; 2];
    for (step, want) in curve.steps.iter().enumerate() {
        let batch: Vec<Sequence> = (0..4).map(|i| data[(4 * step + i) % data.len()].clone()).collect();
        for sequences in batch.chunks(2) {
            trainer.accumulate(&mut [Part { run: &mut run, sequences }]).unwrap();
        }
        let report = trainer.step(&mut run).unwrap();
        assert_eq!(report.step, step as u64 + 1);
        assert!((report.learning_rate - want.rate).abs() <= 1e-12);
        let off = [(report.loss.mean / want.loss - 1.0).abs(), (report.gradient_norm / want.norm - 1.0).abs()];
        assert!(off[0] <= TOLERANCE && off[1] <= 10.0 * TOLERANCE, "step {step}: {off:?}");
        worst = [worst[0].max(off[0]), worst[1].max(off[1])];
    }
    assert!(run.is_finished());
    let exported = Container::parse(run.export().weights, &Limits::default()).unwrap();
    let trained = container(&folder.join("trained.safetensors"));
    let mut apart = 0.0f64;
    for name in trained.names() {
        let (got, want) = (exported.get(name).unwrap().to_f32().unwrap(), trained.get(name).unwrap().to_f32().unwrap());
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let off = squares(&mut got.iter().zip(&want).map(|(a, b)| f64::from(a - b)));
        apart = apart.max(off / squares(&mut want.iter().map(|v| f64::from(*v))));
    }
    println!("24 steps: losses {:.1e}, norms {:.1e}, factors {apart:.1e}", worst[0], worst[1]);
    assert!(apart <= 1e-3, "factors after the last step: {apart:e}");
}
