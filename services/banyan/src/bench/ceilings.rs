//! The machine's own ceilings, measured in the same run as what is compared with them, and `banyan bench machine`.

use kernels::{Cpu, CpuConfig, Storage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{percentile::Sorted, report, roofline::Ceiling};
use crate::{
    cli::{DtypeArg, MachineBenchArgs},
    failure::{Failure, Outcome},
    output::Table,
    process::dtype_name,
};

/// Measurements of each; the best and the median are shown.
const WINDOWS: usize = 5;

/// What the machine does at best, and on the median.
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
    let ceilings = Ceilings::measure(args, &[DtypeArg::F32, DtypeArg::Bf16, DtypeArg::Int8])?;
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
    let facts = json!({ "buffer_mib": args.ceiling_mib, "windows": WINDOWS });
    report::print("machine", facts, &rows, &table, as_json)
}

impl Ceilings {
    /// # Errors
    /// No threads to be had.
    pub fn measure(args: &MachineBenchArgs, dtypes: &[DtypeArg]) -> Result<Self, Failure> {
        if args.ceiling_mib == 0 {
            return Ok(Self::default());
        }
        let bytes = (args.ceiling_mib << 20) as usize;
        let rate = |window: &dyn Fn() -> Option<f64>| {
            let values = Sorted::new((0..WINDOWS).filter_map(|_| window()));
            values.best().zip(values.median()).map(|(best, median)| Rate { best, median })
        };
        let cpu = Cpu::new(&CpuConfig::default())?;
        let read = rate(&|| Some(kernels::ceilings::read_bandwidth(&cpu, bytes)));
        let product = |dtype: &DtypeArg| Some((*dtype, rate(&|| Some(kernels::ceilings::product_rate(&cpu, storage(*dtype))))?));
        Ok(Self { read, products: dtypes.iter().filter_map(product).collect() })
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
