//! How long a cold load takes and what a first one costs, for BENCHMARKS.md:
//! `cargo test --release -p engine --lib cold_load -- --ignored --nocapture --test-threads 1`

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::model::{Dtype, ModelOptions};

const RANK: usize = 16;
const ROUNDS: usize = 15;

/// The shape of Qwen2.5-0.5B but for the vocabulary, which these adapters do not touch.
fn qwen() -> Model {
    let config = json!({
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 1024, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "max_position_embeddings": 32768, "tie_word_embeddings": true,
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::read(dir.path()).unwrap();
    Model::random(config, &ModelOptions::new(Dtype::Bf16), 1).unwrap()
}

/// What `save_pretrained` would have written for all seven projections, in bf16.
fn peft_files(model: &Model) -> (Vec<u8>, Bytes) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for layer in 0..model.config().layers {
        for slot in Slot::ALL {
            let ([outputs, inputs], _) = slot.shape(model.config());
            for (part, shape) in [("lora_A", [RANK, inputs]), ("lora_B", [outputs, RANK])] {
                let begin = data.len();
                data.extend((0..shape[0] * shape[1]).flat_map(|n| (0x3c00 + (n % 500) as u16).to_le_bytes()));
                let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()]});
                header.insert(format!("base_model.model.model.layers.{layer}.{}.{part}.weight", slot.path()), entry);
            }
        }
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let config = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
        "target_modules": "all-linear", "bias": "none"});
    (config.to_string().into_bytes(), Bytes::from(file))
}

fn median(mut round: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Has the system forget what it keeps of this file in memory; true if it says so.
fn forget(path: &Path) -> bool {
    let target = format!("of={}", path.display());
    let asked = Command::new("dd").args([&target, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"]).output();
    asked.is_ok_and(|asked| asked.status.success())
}

#[test]
#[ignore = "a measurement"]
fn a_cold_load_takes_little_more_than_reading_its_bytes() {
    let model = qwen();
    let (config, weights) = peft_files(&model);
    let limits = Limits::default();
    let plan = |weights: &Container| adapters::judge(&config, weights, model.base(), &limits).unwrap();
    let identity = {
        let digest = plan(&Container::parse(weights.clone(), &limits).unwrap()).digest;
        let key = AdapterKey { tenant: identity().key.tenant, digest };
        Identity { key, base: model.base().digest(), rules: 0, storage: Adapter::storage_number(&model) }
    };
    let judged = || {
        let weights = Container::parse(weights.clone(), &limits).unwrap();
        Adapter::pack(&model, &plan(&weights), &weights).unwrap().seal(&identity).unwrap()
    };
    let image = judged();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, &image[..]).unwrap();
    let mut room = vec![0; image.len()];
    let mut read = || File::open(&path).unwrap().read_exact(&mut room).unwrap();
    let load = || {
        let buffer = Buffer::read(&mut File::open(&path).unwrap(), image.len()).unwrap();
        Adapter::unpack(&model, &identity, buffer).unwrap().bytes()
    };
    println!("an adapter of rank {RANK} for {} layers: {} bytes", model.config().layers, image.len());
    println!("from PEFT files in memory, judged and packed: {:?}", median(|| timed(judged).0));
    println!("checksums alone: {:?}", median(|| timed(|| read_entries(&image, &identity)).0));
    let unpacked = median(|| timed(|| Adapter::unpack(&model, &identity, image.clone()).map(drop)).0);
    println!("unpacked from memory: {unpacked:?}");
    let into_new = median(|| timed(|| Buffer::read(&mut File::open(&path).unwrap(), image.len()).map(drop)).0);
    println!("page cache: read into old memory {:?}, into new {into_new:?}", median(|| timed(&mut read).0));
    println!("page cache: a whole load {:?}", median(|| timed(load).0));
    if forget(&path) {
        let cold = |work: &mut dyn FnMut()| {
            median(|| {
                forget(&path);
                timed(&mut *work).0
            })
        };
        println!("disk: read {:?}", cold(&mut || read()));
        println!("disk: a whole load {:?}", cold(&mut || assert!(load() >= image.len())));
    }
}

fn read_entries(image: &[u8], identity: &Identity) -> usize {
    packed_adapter::read(image, identity, |section| size(section, Storage::Bf16)).unwrap().len()
}

/// Time that this thread has had a processor; none where the system does not say.
fn processor_time() -> Option<Duration> {
    std::thread::yield_now(); // brings the count up to date
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

#[test]
#[ignore = "a measurement"]
fn a_first_load_costs_little_more_than_hashing_its_bytes() {
    let model = qwen();
    let limits = Limits::default();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let (config, weights) = peft_files(&model);
    std::fs::write(dir.path().join(adapters::files::CONFIG), config).unwrap();
    std::fs::write(dir.path().join(adapters::files::WEIGHTS), weights).unwrap();
    let mut phases: Vec<(&str, Vec<Duration>)> = Vec::new();
    for _ in 0..ROUNDS {
        let mut at = processor_time().expect("Linux");
        let mut n = 0;
        let mut phase = |name| {
            let now = processor_time().expect("as before");
            if phases.len() == n {
                phases.push((name, Vec::new()));
            }
            phases[n].1.push(now - at);
            (at, n) = (now, n + 1);
        };
        let files = Files::read(dir.path(), &limits).unwrap();
        phase("read");
        let weights = Container::parse(files.weights, &limits).unwrap();
        phase("parse");
        let plan = adapters::judge(&files.config, &weights, model.base(), &limits).unwrap();
        phase("judge");
        let mut image = Adapter::pack(&model, &plan, &weights).unwrap();
        phase("pack");
        let key = AdapterKey { tenant: identity().key.tenant, digest: plan.digest };
        let storage = Adapter::storage_number(&model);
        let sealed = image.seal(&Identity { key, base: model.base().digest(), rules: 0, storage }).unwrap();
        phase("seal");
        let adapter = Adapter::of_image(&model, plan.digest, &image).unwrap();
        phase("view");
        drop((sealed, image, adapter, weights, plan));
        phase("drop");
    }
    let mut sum = Duration::ZERO;
    for (name, times) in &mut phases {
        times.sort_unstable();
        println!("{name:>6}: {:?} of a processor, at best {:?}", times[ROUNDS / 2], times[0]);
        sum += times[ROUNDS / 2];
    }
    println!("   all: {sum:?}");
}
