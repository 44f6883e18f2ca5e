//! `banyan load`: what a governed request costs. A gateway runs as a process of its own in front of a scripted worker;
//! the same requests go to the worker directly and through the gateway, in turn, and the difference is the gateway's. A
//! bare relay in its place says what of that any gateway would cost here.

mod application;
mod bare_relay;
mod collector;
mod drive;
mod gateway_process;
mod measured_process;
mod report;
mod scripted_worker;
mod soak;
mod subject;

use std::time::Duration;

use crate::{
    bench::{cpu_time::clients_runtime, report::progress},
    cli::{LoadArgs, LoadCase},
    failure::{Failure, Outcome},
};
pub use bare_relay::serve as serve_bare_relay;
use drive::{Run, drive};
use report::Row;
use scripted_worker::ScriptedWorker;
use subject::Subject;

/// # Errors
/// What does not start, or a request that is refused.
pub fn load(args: &LoadArgs, as_json: bool) -> Outcome {
    let cases = cases(args)?;
    let (servers, clients) = (tokio::runtime::Runtime::new()?, clients_runtime()?);
    let measured = servers.block_on(async {
        let worker = ScriptedWorker::start(args.messages).await?;
        let mut measured = report::Measured::default();
        let bar = progress(cases.len() * args.rates.len() * args.repeats as usize);
        for case in cases {
            bar.set_message(format!("{case:?}").to_lowercase());
            let gateway = Subject::start(args, case, &worker).await?;
            measured.idle_bytes.push((case, gateway.process().resident_bytes()?));
            for &rate in &args.rates {
                let mut turns = Vec::new();
                for _ in 0..args.repeats {
                    turns.push(turn(args, &gateway, &worker, clients.handle(), rate).await?);
                    bar.inc(1);
                }
                measured.rows.push(Row::of(case, rate, &turns));
            }
            if args.soak_minutes > 0 {
                measured.soaks.push(soak::soak(args, case, &gateway, clients.handle()).await?);
            }
            gateway.stop().await?;
        }
        bar.finish_and_clear();
        Row::compare_with_bare(&mut measured.rows);
        worker.stop().await;
        Ok::<_, Failure>(measured)
    })?;
    report::print(args, &measured, as_json)
}

/// One rate, directly and through the gateway.
pub struct Turn {
    pub direct: Run,
    pub through: Run,
    /// Processor time of the gateway while the requests went through it.
    pub gateway_cpu: Duration,
    pub resident_bytes: u64,
}

async fn turn(
    args: &LoadArgs,
    gateway: &Subject,
    worker: &ScriptedWorker,
    clients: &tokio::runtime::Handle,
    rate: u32,
) -> Result<Turn, Failure> {
    let time = Duration::from_secs(args.seconds.into());
    let direct = drive(worker.target(args).await?, rate, time, clients).await?;
    let before = gateway.process().cpu_time()?;
    let through = drive(gateway.target(args).await?, rate, time, clients).await?;
    let gateway_cpu = gateway.process().cpu_time()?.saturating_sub(before);
    Ok(Turn { direct, through, gateway_cpu, resident_bytes: gateway.process().resident_bytes()? })
}

fn cases(args: &LoadArgs) -> Result<Vec<LoadCase>, Failure> {
    if args.cases.is_empty() {
        let with_redis = args.redis.is_some().then_some(LoadCase::Redis);
        return Ok([LoadCase::Bare, LoadCase::Local].into_iter().chain(with_redis).collect());
    }
    if args.redis.is_none() && args.cases.contains(&LoadCase::Redis) {
        return Err(Failure::Usage("the case `redis` needs --redis".to_owned()));
    }
    Ok(args.cases.clone())
}
