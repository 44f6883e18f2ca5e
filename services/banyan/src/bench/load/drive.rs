//! Sends the requests of a load until its end, and waits for the answers.

use std::time::{Duration, Instant};

use domain::Fault;
use engine::{AdapterKey, EngineHandle, EventStream};
use futures::{StreamExt as _, future, stream::FuturesUnordered};
use rand::{SeedableRng as _, rngs::StdRng};

use super::Touched;
use crate::{
    bench::{
        arrivals::Poisson,
        client::{self, Answer},
        subject::prompt,
    },
    cli::LoadBenchArgs,
};

/// A request and what became of it.
pub struct Asked {
    /// When it should have been sent; it was, if the machine had time.
    pub due: Instant,
    /// Its adapter was ready when it was sent.
    pub warm: bool,
    pub outcome: Outcome,
}

pub enum Outcome {
    Answered(Answer),
    Failed(Fault),
}

impl Asked {
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed(_) => None,
        }
    }
}

/// Sends until `end`; answers that are under way then are waited for.
pub async fn drive(args: &LoadBenchArgs, engine: &EngineHandle, adapters: &Touched, end: Instant) -> Vec<Asked> {
    match args.clients {
        Some(clients) => {
            let each = (0..clients).map(|client| closed_loop(args, engine, adapters, end, client, clients));
            future::join_all(each).await.into_iter().flatten().collect()
        }
        None => open_loop(args, engine, adapters, end).await,
    }
}

/// Requests come when they come. A request's time runs from when it was due, so a stall cannot hide what it delayed.
async fn open_loop(args: &LoadBenchArgs, engine: &EngineHandle, adapters: &Touched, end: Instant) -> Vec<Asked> {
    let poisson = Poisson { rate: args.rate };
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut due = Instant::now() + Duration::from_secs_f64(poisson.gap(&mut random));
    let (mut asked, mut running, mut turn) = (Vec::new(), FuturesUnordered::new(), 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()), if due < end => {
                let key = adapters.key(&mut random);
                running.push(submit(args, engine, key, turn).finish(due));
                turn += 1;
                due += Duration::from_secs_f64(poisson.gap(&mut random));
            }
            Some(one) = running.next() => asked.push(one),
            else => return asked,
        }
    }
}

/// One client: the next request follows the answer.
async fn closed_loop(
    args: &LoadBenchArgs,
    engine: &EngineHandle,
    adapters: &Touched,
    end: Instant,
    client: usize,
    clients: usize,
) -> Vec<Asked> {
    let mut random = StdRng::seed_from_u64(args.seed.wrapping_mul(1_000_003).wrapping_add(client as u64));
    let mut asked = Vec::new();
    while Instant::now() < end {
        let key = adapters.key(&mut random);
        let one = submit(args, engine, key, asked.len() * clients + client).finish(Instant::now()).await;
        let failed = one.answer().is_none();
        asked.push(one);
        if failed {
            // Not a busy loop against an engine that refuses.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    asked
}

/// A request that was sent, now.
struct Sent {
    /// Its adapter was in memory.
    warm: bool,
    events: Result<EventStream, Fault>,
}

fn submit(args: &LoadBenchArgs, engine: &EngineHandle, key: AdapterKey, turn: usize) -> Sent {
    let prompt = prompt(turn, args.prompt_tokens, engine.model().config().vocab_size);
    let warm = engine.is_resident(&key);
    Sent { warm, events: engine.submit(client::request(Some(key), prompt, args.decode_tokens)) }
}

impl Sent {
    async fn finish(self, due: Instant) -> Asked {
        let answer = match self.events {
            Ok(events) => client::read(events, due).await,
            Err(fault) => Err(fault),
        };
        let outcome = answer.map_or_else(Outcome::Failed, Outcome::Answered);
        Asked { due, warm: self.warm, outcome }
    }
}
