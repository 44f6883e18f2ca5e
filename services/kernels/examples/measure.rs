//! Products of a decoder's shapes beside what the machine can do: `cargo run --release -p kernels --example measure`.
//! Arguments, all optional: `storage=bf16,int8`, `rows=1,8,16,64,512`, `isa=avx512bf16`, `threads=2`, `passes=5`,
//! `lora=16` (rank of the adapters that each row of up to 16 has one of; 0: none).
//!
//! Every layer has weights of its own, as a model has, so that no cache holds them from one pass to the next. All lie in
//! one buffer, as those of a packed base do: in small pages they take a fifth more time.

use std::time::Instant;

use kernels::{
    ALIGNMENT, Buffer, Cpu, CpuConfig, Forms, Input, Isa, Lora, LoraGroup, LoraSite, Matrix, Storage, ceilings,
    grouped_loras, linears,
};

/// Qwen2.5-0.5B: inputs, then the outputs of the matrices that read them.
const LAYER: [(usize, &[usize]); 4] = [(896, &[896, 128, 128]), (896, &[896]), (896, &[4864, 4864]), (4864, &[896])];
const LAYERS: usize = 24;
const HEAD: (usize, &[usize]) = (896, &[151_936]);

struct Options {
    storages: Vec<Storage>,
    rows: Vec<usize>,
    passes: usize,
    rank: usize,
}

fn main() {
    let mut options =
        Options { storages: vec![Storage::Bf16, Storage::Int8], rows: vec![1, 8, 16, 64, 512], passes: 5, rank: 16 };
    let mut config = CpuConfig { pin: true, ..CpuConfig::default() };
    for argument in std::env::args().skip(1) {
        let Some((name, value)) = argument.split_once('=') else { panic!("{argument} is no name=value") };
        let number = |value: &str| value.parse::<usize>().expect("a number");
        match name {
            "storage" => options.storages = value.split(',').map(storage).collect(),
            "rows" => options.rows = value.split(',').map(number).collect(),
            "isa" => config.isa = Isa::available().into_iter().find(|isa| isa.name() == value),
            "threads" => config.threads = number(value),
            "passes" => options.passes = number(value),
            "lora" => options.rank = number(value),
            _ => panic!("no option {name}"),
        }
    }
    let cpu = Cpu::new(&config).expect("threads");
    println!("{} threads, {}", cpu.threads(), cpu.isa());
    for storage in &options.storages {
        measure(&cpu, *storage, &options);
    }
}

fn storage(name: &str) -> Storage {
    match name {
        "f32" => Storage::F32,
        "bf16" => Storage::Bf16,
        "int8" => Storage::Int8,
        _ => panic!("no storage {name}"),
    }
}

/// Matrices of one input, and of the adapters on them.
struct Site {
    width: usize,
    matrices: Vec<Matrix>,
    /// For each row, for each matrix.
    loras: Vec<Vec<Lora>>,
}

fn site(cpu: &Cpu, storage: Storage, (width, outputs): (usize, &[usize]), adapters: usize, rank: usize) -> Site {
    let fill = |i: usize, row: &mut [f32]| {
        for (k, value) in row.iter_mut().enumerate() {
            *value = ((i * 31 + k * 17) % 255) as f32 / 127.0 - 1.0;
        }
    };
    let matrix = |outputs: usize| Matrix::from_rows(cpu, outputs, width, storage, fill);
    let lora = |outputs: usize| {
        let a = Matrix::from_rows(cpu, rank, width, Storage::Bf16, fill);
        Lora::from_parts(a, Matrix::from_rows(cpu, outputs, rank, Storage::Bf16, fill), 1.0)
    };
    Site {
        width,
        matrices: outputs.iter().map(|outputs| matrix(*outputs)).collect(),
        loras: (0..adapters).map(|_| outputs.iter().map(|outputs| lora(*outputs)).collect()).collect(),
    }
}

/// Moves matrices into one buffer.
fn gather(matrices: Vec<&mut Matrix>) {
    let mut all = Buffer::zeroed(matrices.iter().map(|w| w.bytes().next_multiple_of(ALIGNMENT)).sum());
    let mut rest = all.get_mut().expect("new memory has one owner");
    for w in &matrices {
        let (part, behind) = rest.split_at_mut(w.bytes().next_multiple_of(ALIGNMENT));
        part[..w.bytes()].copy_from_slice(w.packed());
        rest = behind;
    }
    let mut first = 0;
    for w in matrices {
        let data = all.slice(first..first + w.bytes());
        first += w.bytes().next_multiple_of(ALIGNMENT);
        *w = Matrix::from_packed(w.outputs(), w.inputs(), w.storage(), data).expect("these are its bytes");
    }
}

fn measure(cpu: &Cpu, storage: Storage, options: &Options) {
    let adapters =
        if options.rank == 0 { 0 } else { options.rows.iter().copied().filter(|rows| *rows <= 16).max().unwrap_or(0) };
    let mut layers: Vec<Vec<Site>> =
        (0..LAYERS).map(|_| LAYER.map(|shape| site(cpu, storage, shape, adapters, options.rank)).into()).collect();
    let mut head = vec![vec![site(cpu, storage, HEAD, 0, 0)]];
    gather(layers.iter_mut().chain(&mut head).flatten().flat_map(|site| &mut site.matrices).collect());
    let bandwidth = ceilings::read_bandwidth(cpu, 512 << 20);
    let peak = ceilings::product_rate(cpu, storage);
    println!("\n{storage:?}: reads {:.1} GB/s, products {:.0} G/s", bandwidth / 1e9, peak / 1e9);
    println!("| part | rows | ms | GB/s | of bandwidth | GFLOP/s | of peak |");
    for (name, sites) in [("layers", &layers), ("head", &head)] {
        let sites: Vec<&Site> = sites.iter().flatten().collect();
        let bytes: usize = sites.iter().flat_map(|site| &site.matrices).map(Matrix::bytes).sum();
        let products: usize = sites.iter().flat_map(|site| &site.matrices).map(|w| w.outputs() * w.inputs()).sum();
        for rows in &options.rows {
            let seconds = pass(cpu, storage, &sites, *rows, options.passes, 0);
            let (read, rate) = (bytes as f64 / seconds, 2.0 * (products * rows) as f64 / seconds);
            println!(
                "| {name} | {rows} | {:.2} | {:.1} | {:.0} % | {:.0} | {:.0} % |",
                seconds * 1e3,
                read / 1e9,
                100.0 * read / bandwidth,
                rate / 1e9,
                100.0 * rate / peak
            );
        }
    }
    let sites: Vec<&Site> = layers.iter().flatten().collect();
    for rows in options.rows.iter().filter(|rows| **rows <= adapters) {
        for different in [*rows, 1] {
            let alone = pass(cpu, storage, &sites, *rows, options.passes, 0);
            let with = pass(cpu, storage, &sites, *rows, options.passes, different);
            let loras = sites.iter().flat_map(|site| &site.loras[..different]).flatten();
            let bytes: usize = loras.map(Lora::bytes).sum();
            println!(
                "adapters of rank {}: {different} on {rows} rows: {:.2} ms more, {:.1} MB, {:.1} GB/s",
                options.rank,
                (with - alone) * 1e3,
                bytes as f64 / 1e6,
                bytes as f64 / 1e9 / (with - alone)
            );
        }
    }
}

/// The median seconds of a pass through all sites, with so many different adapters.
fn pass(cpu: &Cpu, storage: Storage, sites: &[&Site], rows: usize, passes: usize, adapters: usize) -> f64 {
    let widest = sites.iter().map(|site| site.width).max().unwrap_or(0);
    let x: Vec<f32> = (0..rows * widest).map(|i| (i * 7 % 23) as f32 / 11.0 - 1.0).collect();
    let outputs = |site: &Site| site.matrices.iter().map(Matrix::outputs).max().unwrap_or(0);
    let most = sites.iter().map(|site| outputs(site)).max().unwrap_or(0);
    let mut ys = vec![vec![0.0; rows * most]; 3];
    let forms = if adapters > 0 { Forms::from(storage) | Forms::BF16 } else { storage.into() };
    let all: Vec<Vec<usize>> =
        if adapters == rows { (0..rows).map(|row| vec![row]).collect() } else { vec![(0..rows).collect()] };
    let mut input = Input::default();
    let mut seconds: Vec<f64> = Vec::new();
    for _ in 0..=passes {
        let begin = Instant::now();
        for site in sites {
            let filled = std::mem::take(&mut input).refill(cpu, &x[..rows * site.width], site.width, forms);
            let with_y = site.matrices.iter().zip(&mut ys);
            let mut products: Vec<_> = with_y.map(|(w, y)| (w, &mut y[..rows * w.outputs()])).collect();
            linears(cpu, &filled, &mut products);
            if adapters > 0 {
                let groups: Vec<Vec<LoraGroup<'_>>> = (0..products.len())
                    .map(|i| all.iter().zip(&site.loras).map(|(rows, of)| LoraGroup { rows, lora: &of[i] }).collect())
                    .collect();
                let mut sites: Vec<LoraSite<'_>> = products
                    .into_iter()
                    .zip(&groups)
                    .map(|((w, y), groups)| LoraSite { groups, outputs: w.outputs(), y })
                    .collect();
                grouped_loras(cpu, &filled, &mut sites);
            }
            input = filled.release();
        }
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    seconds[passes / 2]
}
