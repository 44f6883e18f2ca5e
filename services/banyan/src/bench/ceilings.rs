//! The machine's own ceilings, measured in the same run as what is compared with them, and `banyan bench machine`.

use kernels::{Cpu, Storage, ceilings};
use serde::Serialize;
use serde_json::{Value, json};

use super::{percentile::Sorted, report, roofline::Ceiling, subject::cpu_config};
use crate::{
    cli::{CeilingArgs, DtypeArg, MachineBenchArgs},
    failure::Outcome,
    output::Table,
    process::dtype_name,
};

/// Measurements of each, every one a median of several passes; the best and the median of them are shown.
const WINDOWS: usize = 5;

/// What the machine does in the best window, and in the median one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    pub best: f64,
    pub median: f64,
}

/// None where they were not asked for.
#[derive(Clone, Debug, Default)]
pub struct Ceilings {
    /// Bytes per second that all threads together read.
    read: Option<Rate>,
    /// Operations per second by dtype; a multiply-add is two.
    products: Vec<(DtypeArg, Rate)>,
}

/// One line of `banyan bench machine`.
#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    #[serde(flatten)]
    rate: Rate,
}

/// # Errors
/// No threads to be had.
pub fn machine(args: &MachineBenchArgs, as_json: bool) -> Outcome {
    let cpu = Cpu::new(&cpu_config(&args.cpu)?)?;
    let ceilings = Ceilings::measure(args.ceilings, &cpu, &[DtypeArg::F32, DtypeArg::Bf16, DtypeArg::Int8]);
    let read = ceilings.read.map(|rate| Row { what: "read".to_owned(), unit: "bytes/s", rate });
    let product = |(dtype, rate): &(DtypeArg, Rate)| {
        let what = format!("{} products", dtype_name(*dtype));
        Row { what, unit: "operations/s", rate: *rate }
    };
    let rows: Vec<_> = read.into_iter().chain(ceilings.products.iter().map(product)).collect();
    let mut table = Table::new(&["WHAT", "BEST", "MEDIAN", "UNIT"]);
    for Row { what, unit, rate } in &rows {
        let giga = |value: f64| format!("{:.1}e9", value / 1e9);
        table.row([what.clone(), giga(rate.best), giga(rate.median), (*unit).to_owned()]);
    }
    let facts = json!({
        "threads": cpu.threads(),
        "isa": cpu.isa().name(),
        "buffer_mib": args.ceilings.ceiling_mib,
        "windows": WINDOWS,
    });
    report::print("machine", facts, &rows, &table, as_json)
}

impl Ceilings {
    /// With the threads and instructions of `cpu`.
    pub fn measure(args: CeilingArgs, cpu: &Cpu, dtypes: &[DtypeArg]) -> Self {
        if args.ceiling_mib == 0 {
            return Self::default();
        }
        let bytes = (args.ceiling_mib << 20) as usize;
        let rate = |window: &dyn Fn() -> f64| {
            let values = Sorted::new((0..WINDOWS).map(|_| window()));
            values.best().zip(values.median()).map(|(best, median)| Rate { best, median })
        };
        let product = |dtype: &DtypeArg| {
            let storage = storage(*dtype);
            Some((*dtype, rate(&|| ceilings::product_rate(cpu, storage))?))
        };
        let read = rate(&|| ceilings::read_bandwidth(cpu, bytes));
        Self { read, products: dtypes.iter().filter_map(product).collect() }
    }

    /// The best that was seen: what a perfect program would get.
    pub fn of(&self, dtype: DtypeArg) -> Option<Ceiling> {
        let (_, product) = self.products.iter().find(|(of, _)| *of == dtype)?;
        Some(Ceiling { bytes_per_second: self.read?.best, operations_per_second: product.best })
    }

    /// For the report; null where nothing was measured.
    pub fn facts(&self) -> Value {
        let Some(read) = self.read else { return Value::Null };
        let products: serde_json::Map<_, _> =
            self.products.iter().map(|(dtype, rate)| (dtype_name(*dtype).to_owned(), json!(rate.best))).collect();
        json!({ "read_bytes_per_second": read.best, "operations_per_second": products })
    }
}

const fn storage(dtype: DtypeArg) -> Storage {
    match dtype {
        DtypeArg::F32 => Storage::F32,
        DtypeArg::Bf16 => Storage::Bf16,
        DtypeArg::Int8 => Storage::Int8,
    }
}
