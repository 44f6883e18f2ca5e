//! Flags of `banyan bench` and of its modes. Lists are separated by commas.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DtypeArg;
use crate::bench::Shape;

const BENCH_HELP: &str = "\
Without a mode: `speed`. Every mode prints the machine, the commit and the build; quote them with
a figure. Build with --release for figures. Prefix cache and speculative decoding are off unless
--set turns them on: they would hide what a step costs, and random weights repeat themselves.

Examples:
  banyan bench                                        speed of the bundled base model
  banyan bench speed --shape qwen2.5-0.5b --dtype bf16 --batch 1,16 --adapters 0,16
  banyan bench clients --shape qwen2.5-0.5b           16 clients: base, one adapter, 16 adapters
  banyan bench load --rate 8 --registered 100000      Poisson arrivals over many adapters
  banyan bench storm --rate 8                         loads beside steady answers
  banyan bench fairness                               one tenant's flood beside nine others
  banyan bench swap --seconds 60                      aliases move under full load
  banyan bench gateway                                the gateway against the engine alone
  banyan bench machine                                what the machine itself can do
  banyan bench --json > baseline.json";

/// Measure the engine and the platform.
#[derive(Args, Debug)]
#[command(after_help = BENCH_HELP, args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub mode: Option<BenchMode>,
    #[command(flatten)]
    pub speed: SpeedBenchArgs,
}

#[derive(Debug, Subcommand)]
pub enum BenchMode {
    /// Prefill and decode by batch, adapters, rank and dtype, as fractions of the machine's roofline.
    Speed(SpeedBenchArgs),
    /// So many clients at once, one request each: throughput and latency with none, one and many adapters.
    Clients(ClientsBenchArgs),
    /// A stream of requests over many registered adapters: latency of warm and cold ones, loads, evictions, memory.
    Load(LoadBenchArgs),
    /// What loads of adapters cost those who are being served: their inter-token latency with and without loads.
    Storm(StormBenchArgs),
    /// What one tenant's flood costs the others: their time to first token with and without it, and the throughput.
    Fairness(FairnessBenchArgs),
    /// Full load while the names of adapters move to other versions: every answer is of the version it was given.
    Swap(SwapBenchArgs),
    /// The whole platform over loopback gRPC against the engine alone.
    Gateway(GatewayBenchArgs),
    /// The machine's own ceilings: read bandwidth and product rate.
    Machine(MachineBenchArgs),
}

/// What is measured.
#[derive(Args, Clone, Debug)]
pub struct BenchBaseArgs {
    /// Folder of the base checkpoint; the bundled one by default.
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    pub base: Option<PathBuf>,
    /// Random weights of this shape instead: qwen2.5-0.5b, qwen2.5-1.5b, qwen3-0.6b, tinyllama-1.1b, or KEY=N,… with
    /// hidden, layers, heads, kv-heads, head, ff, vocab (a Qwen3-like model).
    #[arg(long, value_name = "SHAPE")]
    pub shape: Option<Shape>,
    /// Weights that adapters bring; by default as the base's.
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub adapter_dtype: Option<DtypeArg>,
    /// Any setting of the engine, by its name in the worker's configuration; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub cpu: CpuArgs,
}

/// Threads and instructions.
#[derive(Args, Clone, Debug)]
pub struct CpuArgs {
    /// Any setting of the processor's use, as in the worker's configuration: threads, isa, spin_us, pin; may be given
    /// several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub cpu: Vec<String>,
}

const SPEED_HELP: &str = "\
The cases take turns in every repeat, so that a drift of the machine hits all alike; medians are
printed. ROOF is the fraction of what the machine could do: the time that the measured read
bandwidth needs for the bytes of a step (base weights and distinct adapters once, keys and values)
or the product rate for its operations, whichever is longer, over the time that was measured.

Examples:
  banyan bench speed --shape qwen2.5-0.5b
  banyan bench speed --shape qwen2.5-0.5b --dtype bf16,int8 --batch 1,8,16 --adapters 0,1,16
  banyan bench speed --batch 16 --adapters 16 --rank 8,16,64 --phase decode
  banyan bench speed --batch 16 --adapters 0,1 --base-rows 0,15   one row with an adapter beside 15 without
  banyan bench speed --shape qwen2.5-0.5b --cpu isa=avx2 --cpu threads=1";

/// Prefill and decode speed.
#[derive(Args, Clone, Debug)]
#[command(after_help = SPEED_HELP)]
pub struct SpeedBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bf16")]
    pub dtype: Vec<DtypeArg>,
    /// Sequences at a time.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,4,8,16,32", value_parser = count)]
    pub batch: Vec<usize>,
    /// Distinct adapters in a batch, given out in turn; cases with more adapters than sequences are left out.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0,1,4,16", value_parser = count_or_none)]
    pub adapters: Vec<usize>,
    /// Sequences of a batch with adapters that use none; cases with too few others are left out.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0", value_parser = count_or_none)]
    pub base_rows: Vec<usize>,
    /// Rank of the adapters, which change every linear layer but the output layer.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "16", value_parser = count)]
    pub rank: Vec<usize>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "prefill,decode")]
    pub phase: Vec<PhaseArg>,
    /// Tokens of each prompt.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub prompt_tokens: u32,
    /// Tokens generated for each sequence.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub decode_tokens: u32,
    /// Runs of each case; the median is printed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
    #[command(flatten)]
    pub ceilings: CeilingArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PhaseArg {
    Prefill,
    Decode,
}

const CLIENTS_HELP: &str = "\
All clients send one request at the same moment; throughput is output tokens over the time until
the last answer has ended, prompts included. Adapters are in memory before. Cases take
turns in every repeat.

Examples:
  banyan bench clients --shape qwen2.5-0.5b
  banyan bench clients --clients 8 --adapters 0,8 --prompt-tokens 256 --decode-tokens 32";

/// Clients at once, each with one request.
#[derive(Args, Clone, Debug)]
#[command(after_help = CLIENTS_HELP)]
pub struct ClientsBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    /// Requests at once.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub clients: usize,
    /// Distinct adapters, given out in turn; 0 is the base alone.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0,1,16", value_parser = count_or_none)]
    pub adapters: Vec<usize>,
    /// Rank of the adapters.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub rank: usize,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub decode_tokens: u32,
    /// Runs of each case; the median is printed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
}

const LOAD_HELP: &str = "\
Arrivals are Poisson at --rate and do not wait for answers (open loop), or --clients clients send
their next request when the last one is answered (closed loop: the throughput at full load). Which
adapter a request names follows a Zipf distribution over --touched of the --registered ones.

The registered adapters are distinct for the engine, each of a tenant of its own; their files are
--contents different ones in a temporary folder, and every load reads and judges its file. So loads
and evictions are real, and the disk's page cache is warm. The registry's own index is not part of it.

Several --touched values run one after the other on the same engine; the last column compares each
with the first.

Examples:
  banyan bench load --shape qwen2.5-0.5b --rate 2 --seconds 60
  banyan bench load --shape qwen2.5-0.5b --clients 16 --touched 5,10000 --zipf 1.0
  banyan bench load --rate 50 --touched 1000 --set adapter_bytes_max=67108864";

/// A stream of requests over many adapters.
#[derive(Args, Clone, Debug)]
#[command(after_help = LOAD_HELP)]
pub struct LoadBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    /// Requests per second on average, whatever becomes of them.
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive, conflicts_with = "clients")]
    pub rate: f64,
    /// Clients that send their next request after each answer, instead of a rate.
    #[arg(long, value_name = "N", value_parser = count)]
    pub clients: Option<usize>,
    /// Length of each measurement, after --warm-up-seconds of the same load.
    #[arg(long, value_name = "N", default_value = "60", value_parser = positive)]
    pub seconds: f64,
    #[arg(long, value_name = "N", default_value = "5", value_parser = not_negative)]
    pub warm_up_seconds: f64,
    /// Adapters that exist.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count)]
    pub registered: usize,
    /// Of those, how many are ever named.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10000", value_parser = count)]
    pub touched: Vec<usize>,
    /// Exponent of the Zipf distribution; 0 names all alike.
    #[arg(long, value_name = "S", default_value = "1", value_parser = not_negative)]
    pub zipf: f64,
    #[command(flatten)]
    pub cold_from: ColdFromArgs,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub decode_tokens: u32,
    /// Of the arrivals and choices.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// What adapters are made of, and where those come from that are not in memory.
#[derive(Args, Clone, Debug)]
pub struct ColdFromArgs {
    /// Different adapter files on disk.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub contents: usize,
    /// Rank of the adapters.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub rank: usize,
    /// Ask for every adapter that may be cold once before the measurement, so that it comes from a packed image on this
    /// machine's disk and not from its files. The images take disk space in a temporary folder.
    #[arg(long)]
    pub packed: bool,
}

const STORM_HELP: &str = "\
--clients clients decode without a break, each with an adapter of its own that stays in memory. Beside
them, short requests come at --rate: none (quiet), for adapters in memory (warm), each for another
one of --cold adapters (cold). The phases take turns. Cold adapters come from files, which are judged
and packed, or with --packed from packed images on this machine's disk.

Examples:
  banyan bench storm --shape qwen2.5-0.5b --dtype int8
  banyan bench storm --shape qwen2.5-0.5b --cold 300 --packed";

/// Loads beside steady answers.
#[derive(Args, Clone, Debug)]
#[command(after_help = STORM_HELP)]
pub struct StormBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    /// Those who decode without a break, and as many warm adapters for short requests.
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub clients: usize,
    /// Short requests per second.
    #[arg(long, value_name = "N", default_value = "4", value_parser = positive)]
    pub rate: f64,
    /// Adapters that are named in turn while adapters are loaded; all of them should not fit into memory.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count)]
    pub cold: usize,
    /// Length of one turn of a phase.
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    pub seconds: f64,
    /// Turns of each phase.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
    #[command(flatten)]
    pub cold_from: ColdFromArgs,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub decode_tokens: u32,
}

const FAIRNESS_HELP: &str = "\
--tenants tenants send one request at a time, each after the answer to the one before. Beside them,
one more tenant keeps --flood streams of long prompts going: not at all (none), under its own id
(by one tenant), and with one id for all (first come, first served). The phases take turns; ratios
are taken turn by turn, and medians are printed.

Examples:
  banyan bench fairness
  banyan bench fairness --set fairness.contended_prefill_tokens_max=64 --repeats 10
  banyan bench fairness --flood 200 --pause-ms 200";

/// A flood beside others.
#[derive(Args, Clone, Debug)]
#[command(after_help = FAIRNESS_HELP)]
pub struct FairnessBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    /// Tenants with one request at a time.
    #[arg(long, value_name = "N", default_value = "9", value_parser = count)]
    pub tenants: usize,
    /// Streams of the tenant that floods.
    #[arg(long, value_name = "N", default_value = "50", value_parser = count)]
    pub flood: usize,
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub decode_tokens: u32,
    /// Between an answer and the next request of the same tenant, but not of the flood.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub pause_ms: u64,
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub flood_prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub flood_decode_tokens: u32,
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = not_negative)]
    pub warm_up_seconds: f64,
    /// Length of one turn of a phase: short, so that a drift of the machine hits all phases alike.
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive)]
    pub seconds: f64,
    /// Turns of each phase.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
}

const SWAP_HELP: &str = "\
--names names stand for a version each. Clients ask for names in a closed loop; every --every-ms one
name moves to its next version. A request is pinned to the version that its name has when it is
sent. It fails if any request fails, if an answer's receipt names another version than the pinned
one, or if a sampled answer differs by one token from what that version answers alone.

Example:
  banyan bench swap --clients 16 --versions 8 --every-ms 10 --seconds 60";

/// Names move under full load.
#[derive(Args, Clone, Debug)]
#[command(after_help = SWAP_HELP)]
pub struct SwapBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub clients: usize,
    #[arg(long, value_name = "N", default_value = "4", value_parser = count)]
    pub names: usize,
    /// Versions that each name goes through in turn.
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub versions: usize,
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub every_ms: u64,
    #[arg(long, value_name = "N", default_value = "60", value_parser = positive)]
    pub seconds: f64,
    /// Answers that are computed again, alone.
    #[arg(long, value_name = "N", default_value = "32", value_parser = count)]
    pub sample: usize,
    /// Rank of the adapters.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub rank: usize,
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub decode_tokens: u32,
}

const GATEWAY_HELP: &str = "\
Starts what `banyan up` starts, in this process, with an own temporary data directory, uploads
random adapters through the admin door, and lets clients generate through the public one. The
engine alone gets the same requests in turn with it. Clients run in this process too, on a thread
of their own. CPU is what all threads together have spent for each token: those of the engine
(waiting for each other included), of the platform around it, and the clients'.

Examples:
  banyan bench gateway
  banyan bench gateway --base ./checkpoints/Qwen3-0.6B --clients 16 --adapters 16
  banyan bench gateway --shape qwen2.5-0.5b --dtype int8";

/// The platform against the engine alone.
#[derive(Args, Clone, Debug)]
#[command(after_help = GATEWAY_HELP)]
pub struct GatewayBenchArgs {
    #[command(flatten)]
    pub model: BenchBaseArgs,
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: DtypeArg,
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub clients: usize,
    /// Distinct adapters, given out in turn; 0 is the base alone.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0,16", value_parser = count_or_none)]
    pub adapters: Vec<usize>,
    /// Rank of the adapters.
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    pub rank: usize,
    /// Requests that each client sends, one after the other.
    #[arg(long, value_name = "N", default_value = "4", value_parser = count)]
    pub rounds: usize,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub prompt_tokens: u32,
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub decode_tokens: u32,
    /// Runs of each case; the median is printed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
}

/// The machine's ceilings.
#[derive(Args, Clone, Debug)]
pub struct MachineBenchArgs {
    #[command(flatten)]
    pub ceilings: CeilingArgs,
    #[command(flatten)]
    pub cpu: CpuArgs,
}

#[derive(Args, Clone, Copy, Debug)]
pub struct CeilingArgs {
    /// Memory that is read for the bandwidth; it should be larger than every cache. 0 leaves the ceilings out.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(0..=1 << 16))]
    pub ceiling_mib: u64,
}

/// Most of anything that a flag counts.
const COUNT_MAX: usize = 10_000_000;

fn count(text: &str) -> Result<usize, String> {
    match count_or_none(text)? {
        0 => Err("must be at least 1".to_owned()),
        count => Ok(count),
    }
}

fn count_or_none(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
    if count > COUNT_MAX { Err(format!("must be at most {COUNT_MAX}")) } else { Ok(count) }
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|value| if value > 0.0 { Ok(value) } else { Err("must be above 0".to_owned()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if value.is_finite() && (0.0..=1e9).contains(&value) { Ok(value) } else { Err("must be 0 to 1e9".to_owned()) }
}
