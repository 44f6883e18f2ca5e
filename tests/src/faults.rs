//! Fault lanes: a deployment of two gateways and two workers under load, on its own PostgreSQL and Redis, is killed, stopped
//! and cut off again and again, and what it leaves is counted. What a client was told is the measure: every answer whose
//! end it saw is on record once with the same tokens, no limit and no budget is passed, Redis counts of every budget what the
//! ledger has, nothing stays reserved, and every text is the one that comes undisturbed.
//!
//! It does not measure speed: the processes, their servers and the load share one machine.

mod ask;
mod books;
mod budgets;
mod cluster;
mod counts;
mod lanes;
mod load;
mod process;
mod report;
mod small_disk;
mod tenants;
mod verdict;

use std::{path::Path, sync::Arc, time::Duration};

pub use lanes::Lane;
pub use report::Report;
pub use verdict::Verdict;

use cluster::Cluster;
use lanes::Stage;
use load::{Load, Questions};
use verdict::Evidence;

/// How much of it.
#[derive(Clone, Debug)]
pub struct Options {
    pub lanes: Vec<Lane>,
    /// Rounds of each lane that kills.
    pub kills: usize,
    /// Rounds of each other lane.
    pub rounds: usize,
    /// How long a stop, a cut or a full disk lasts.
    pub hold: Duration,
    /// For each tenant.
    pub clients: usize,
    /// Of the moments at which something is done.
    pub seed: u64,
}

impl Options {
    pub fn rounds_of(&self, lane: Lane) -> usize {
        if lane.kills() { self.kills } else { self.rounds }
    }
}

/// Runs the lanes one after the other, on one deployment of `program` (`banyan`); `done` is told after each round, with the
/// lane's name. Needs a runtime with several threads.
pub async fn run(program: &Path, options: &Options, mut done: impl FnMut(&str)) -> Report {
    let cluster = Cluster::start(program).await;
    let tenants = tokio::task::block_in_place(|| tenants::provide(&cluster));
    let questions = Arc::new(Questions::of(&tenants, &cluster).await);
    let (mut all_attempts, mut all_faults, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
    for &lane in &options.lanes {
        if let Err(why) = lane.permitted() {
            verdicts.push(Verdict::skipped(lane, why));
            continue;
        }
        let budgets = tenants::allow(&cluster, &tenants).await;
        let load = Load::start(&cluster, &questions, tenants.len(), options.clients);
        let mut stage = Stage::new(&cluster, &load, options.rounds_of(lane), options.hold, options.seed);
        let stuck = stage.run(lane, || done(&lane.name())).await.err();
        let faults = stage.faults;
        let attempts = load.stop().await;
        all_attempts.extend(attempts.iter().cloned());
        all_faults.extend(faults.iter().copied());
        let evidence = Evidence {
            lane,
            attempts: &attempts,
            all_attempts: &all_attempts,
            faults: &faults,
            all_faults: &all_faults,
            tenants: &tenants,
            budgets: &budgets,
            questions: &questions,
            stuck,
        };
        verdicts.push(Verdict::of(&evidence, &cluster).await);
    }
    Report { lanes: verdicts }
}
