//! Behind the `banyan` command: `up` assembles every process in one, `gateway` and `worker` run one each, and every
//! other verb is a client of them or a user of the engine. No business rules live here.

mod admin;
pub mod bench;
pub mod cli;
mod client;
pub mod client_file;
mod dataset;
pub mod embedded;
mod evaluate;
pub mod failure;
mod inference;
pub mod inspect;
mod load;
mod local_base;
mod output;
mod private_file;
pub mod process;
pub mod score;
mod train;
pub mod up;

use cli::{Cli, Verb};
use failure::{Failure, Outcome};

/// Runs one verb to its end.
///
/// # Errors
/// With what is to be printed, and the exit code.
pub fn run(cli: Cli) -> Outcome {
    let as_json = cli.json;
    match cli.verb {
        Verb::Inspect(args) => inspect::inspect(&args, as_json),
        Verb::Score(args) => score::score(&args),
        Verb::Dataset(args) => dataset::dataset(args, as_json),
        Verb::Train(args) => train::train(&args, as_json),
        Verb::Eval(args) => evaluate::evaluate(&args, as_json),
        Verb::Bench(args) => bench::bench(&args, as_json),
        Verb::Load(args) => load::load(&args, as_json),
        verb @ (Verb::Up(_) | Verb::Worker(_)) => process::runtime_beside_engine()?.block_on(talk(verb, as_json)),
        verb => tokio::runtime::Runtime::new()?.block_on(talk(verb, as_json)),
    }
}

/// The verbs that serve or call.
async fn talk(verb: Verb, as_json: bool) -> Outcome {
    match verb {
        Verb::Up(args) => up::up(args, as_json).await,
        Verb::Gateway(args) => process::gateway(args).await,
        Verb::Worker(args) => process::worker(args).await,
        Verb::Generate(args) => inference::generate(args, as_json).await,
        Verb::Chat(args) => inference::chat(args, as_json).await,
        Verb::Models(args) => inference::models(args, as_json).await,
        Verb::Plan(args) => admin::plan(args, as_json).await,
        Verb::Price(args) => admin::price(args, as_json).await,
        Verb::Usage(args) => admin::usage(args, as_json).await,
        Verb::Invoice(args) => admin::invoice(args, as_json).await,
        Verb::Ledger(args) => admin::ledger(args, as_json).await,
        Verb::Tenant(args) => admin::tenant(args, as_json).await,
        Verb::Key(args) => admin::key(args, as_json).await,
        Verb::Audit(args) => admin::audit(args, as_json).await,
        Verb::Adapter(args) => admin::adapter(args, as_json).await,
        Verb::Limits(args) => admin::limit_verbs(args, as_json).await,
        Verb::LoadBareRelay(args) => load::serve_bare_relay(&args).await,
        Verb::Inspect(_)
        | Verb::Score(_)
        | Verb::Train(_)
        | Verb::Dataset(_)
        | Verb::Eval(_)
        | Verb::Bench(_)
        | Verb::Load(_) => Err(Failure::Failed("this verb needs no server".to_owned())),
    }
}
