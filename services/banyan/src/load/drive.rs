//! Sends requests at a constant average rate, each when it is due, whatever became of those before it (open loop): a
//! stall cannot hide what it delayed. A request's times run from the moment that it was due.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{runtime::Handle, task::JoinSet};
use tonic::Streaming;

use crate::{
    bench::{arrivals::Poisson, percentile::Sorted},
    failure::Failure,
};

/// Requests that have not been answered yet. A system that cannot keep up with the rate fills it, and then the rate is
/// above what it can do.
const UNANSWERED_MAX: usize = 4_096;

/// What requests are sent to: the n-th request, as a future.
pub type Target = Arc<dyn Fn(usize) -> Pin<Box<dyn Future<Output = Result<Times, Failure>> + Send>> + Send + Sync>;

/// When the first message and the end of one answer came.
#[derive(Clone, Copy)]
pub struct Times {
    pub first: Instant,
    pub end: Instant,
}

impl Times {
    /// Reads an answer to its end.
    ///
    /// # Errors
    /// An answer that is broken off.
    pub async fn of<M>(mut answer: Streaming<M>) -> Result<Self, Failure> {
        let mut first = None;
        while answer.message().await?.is_some() {
            first.get_or_insert_with(Instant::now);
        }
        let end = Instant::now();
        Ok(Self { first: first.unwrap_or(end), end })
    }
}

/// What came of one stretch of requests.
pub struct Run {
    /// Seconds from due to the first message, and to the end.
    pub first: Sorted,
    pub end: Sorted,
    /// Answers for each second of the stretch.
    pub per_second: f64,
    /// The system could not keep up.
    pub overrun: bool,
}

/// Sends for `time` and waits for the answers.
///
/// # Errors
/// The first request that is refused or broken off.
pub async fn drive(target: Target, rate: u32, time: Duration, clients: &Handle) -> Result<Run, Failure> {
    clients.spawn(send(target, rate, time)).await.map_err(|crash| Failure::Failed(crash.to_string()))?
}

async fn send(target: Target, rate: u32, time: Duration) -> Result<Run, Failure> {
    let poisson = Poisson { rate: rate.into() };
    let mut random = StdRng::seed_from_u64(rate.into());
    let begin = Instant::now();
    let mut due = begin;
    let (mut asking, mut firsts, mut ends, mut overrun) = (JoinSet::new(), Vec::new(), Vec::new(), false);
    let mut keep = |done: Result<Result<(Instant, Times), Failure>, tokio::task::JoinError>| {
        let (due, times) = done.map_err(|crash| Failure::Failed(crash.to_string()))??;
        firsts.push(times.first.saturating_duration_since(due).as_secs_f64());
        ends.push(times.end.saturating_duration_since(due).as_secs_f64());
        Ok::<_, Failure>(())
    };
    for n in 0.. {
        due += Duration::from_secs_f64(poisson.gap(&mut random));
        if due >= begin + time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let asked = target(n);
        asking.spawn(async move { asked.await.map(|times| (due, times)) });
        while let Some(done) = asking.try_join_next() {
            keep(done)?;
        }
        if asking.len() >= UNANSWERED_MAX {
            overrun = true;
            break;
        }
    }
    while let Some(done) = asking.join_next().await {
        keep(done)?;
    }
    let per_second = ends.len() as f64 / begin.elapsed().as_secs_f64();
    Ok(Run { first: Sorted::new(firsts), end: Sorted::new(ends), per_second, overrun })
}
