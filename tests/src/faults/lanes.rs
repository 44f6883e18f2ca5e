//! The lanes: what is done to a running deployment, round by round, each round healed before the next.

mod failover;

use std::time::{Duration, Instant};

use clap::ValueEnum;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    cluster::{Cluster, WORKER_CHECK},
    load::Load,
    process::BanyanProcess,
    small_disk,
};
use crate::link::Traffic;

/// Answers between two rounds: proof that all is well again.
const ANSWERS_BETWEEN: usize = 6;

/// Until every connection has seen that its link is cut, also on a busy machine.
const CUT: Duration = Duration::from_millis(100);

/// One way to hurt a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lane {
    /// kill -9 of a gateway, started again a moment later.
    GatewayKill,
    /// kill -9 of a worker, started again a moment later.
    WorkerKill,
    /// kill -9 of PostgreSQL with all its processes, started again on the same data.
    PostgresKill,
    /// kill -9 of Redis, started again with nothing in it.
    RedisKill,
    /// SIGSTOP of Redis.
    RedisStop,
    /// SIGSTOP of PostgreSQL.
    PostgresStop,
    /// FLUSHALL of Redis.
    RedisFlush,
    /// A replica that has missed writes takes the place of a Redis that is killed, and hands back later.
    RedisFailover,
    /// The network between a gateway and a worker: cut, swallowing, slow.
    CutWorker,
    /// The network between a gateway and Redis: cut, swallowing, slow.
    CutRedis,
    /// The network between a gateway and PostgreSQL: cut, swallowing, slow.
    CutPostgres,
    /// The disk of a gateway's log is full.
    DiskFull,
}

/// What a lane has at hand.
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    pub load: &'a Load,
    pub rounds: usize,
    /// How long what is not a kill lasts.
    pub hold: Duration,
    pub random: StdRng,
    pub faults: Vec<Fault>,
}

/// Something that was done, and from when to when it lasted.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub from: Instant,
    pub to: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the gateway with this number.
    GatewayDied(usize),
    /// It has forgotten everything.
    RedisEmptied,
    RedisStopped,
    Other,
}

impl Lane {
    /// Whether this machine lets us.
    ///
    /// # Errors
    /// Why not.
    pub fn permitted(self) -> Result<(), String> {
        if self == Self::DiskFull { small_disk::permitted() } else { Ok(()) }
    }

    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether its rounds are kills.
    pub const fn kills(self) -> bool {
        matches!(
            self,
            Self::GatewayKill | Self::WorkerKill | Self::PostgresKill | Self::RedisKill | Self::RedisFailover
        )
    }

    /// Whether no stream may end but as it should: what is taken away is there a second time, or nothing that a stream
    /// needs.
    pub const fn keeps_streams(self) -> bool {
        matches!(self, Self::WorkerKill | Self::CutWorker | Self::RedisFlush)
    }
}

impl<'a> Stage<'a> {
    pub fn new(cluster: &'a Cluster, load: &'a Load, rounds: usize, hold: Duration, seed: u64) -> Self {
        Self { cluster, load, rounds, hold, random: StdRng::seed_from_u64(seed), faults: Vec::new() }
    }

    /// Runs all rounds; `done` is told after each.
    ///
    /// # Errors
    /// The deployment has not come back after a round.
    pub async fn run(&mut self, lane: Lane, done: impl FnMut()) -> Result<(), String> {
        if lane != Lane::DiskFull {
            return self.rounds(lane, done).await;
        }
        let gateway = &self.cluster.gateways[0];
        self.exchange(&small_disk::wrapper(&gateway.log_folder())).await;
        let outcome = self.rounds(lane, done).await;
        self.exchange(&[]).await;
        outcome
    }

    async fn rounds(&mut self, lane: Lane, mut done: impl FnMut()) -> Result<(), String> {
        self.load.wait_for_answers(ANSWERS_BETWEEN).await?;
        for round in 0..self.rounds {
            let kind = self.round(lane, round).await.map_err(|said| format!("in round {round}: {said}"))?;
            if let Some(last) = self.faults.last_mut() {
                (last.kind, last.to) = (kind, Instant::now());
            }
            self.load.wait_for_answers(ANSWERS_BETWEEN).await.map_err(|said| format!("after round {round}: {said}"))?;
            done();
        }
        Ok(())
    }

    /// Errors: as of [`Stage::run`].
    async fn round(&mut self, lane: Lane, round: usize) -> Result<Kind, String> {
        // Anywhere in the life of the streams that are under way.
        let moment = Duration::from_millis(self.random.random_range(0..250));
        tokio::time::sleep(moment).await;
        let now = Instant::now();
        self.faults.push(Fault { kind: Kind::Other, from: now, to: now });
        let Cluster { gateways, workers, links, redis, postgres, .. } = self.cluster;
        let (one, way) = (round % 2, &links[round % 2]);
        match lane {
            Lane::GatewayKill => {
                self.kill(&gateways[one]).await;
                return Ok(Kind::GatewayDied(one));
            }
            Lane::WorkerKill => {
                self.kill(&workers[one]).await;
                // Both gateways must know that it is back before the other one may die.
                tokio::time::sleep(WORKER_CHECK * 5).await;
            }
            Lane::PostgresKill => {
                blocking(|| postgres.kill());
                self.moment().await;
                blocking(|| postgres.resume());
            }
            Lane::RedisKill => {
                blocking(|| redis.kill());
                self.moment().await;
                blocking(|| redis.restart());
                return Ok(Kind::RedisEmptied);
            }
            Lane::RedisStop => {
                blocking(|| redis.pause());
                tokio::time::sleep(self.hold).await;
                blocking(|| redis.resume());
                return Ok(Kind::RedisStopped);
            }
            Lane::PostgresStop => {
                blocking(|| postgres.pause());
                tokio::time::sleep(self.hold).await;
                blocking(|| postgres.unpause());
            }
            Lane::RedisFlush => {
                blocking(|| redis.flush());
                return Ok(Kind::RedisEmptied);
            }
            Lane::RedisFailover => {
                self.fail_over().await?;
                return Ok(Kind::RedisEmptied);
            }
            Lane::CutWorker => {
                let link = &way.workers[(round / 2) % way.workers.len()];
                self.disturb(round, |traffic| link.set(traffic)).await;
                tokio::time::sleep(WORKER_CHECK * 5).await;
            }
            Lane::CutRedis => self.disturb(round, |traffic| way.redis.set(traffic)).await,
            Lane::CutPostgres => self.disturb(round, |traffic| way.postgres.set(traffic)).await,
            Lane::DiskFull => {
                let filler = small_disk::fill(&gateways[0].pid(), &gateways[0].log_folder());
                tokio::time::sleep(self.hold).await;
                small_disk::free(&filler);
            }
        }
        Ok(Kind::Other)
    }

    async fn kill(&mut self, process: &BanyanProcess) {
        blocking(|| process.kill());
        self.moment().await;
        blocking(|| {
            process.restart();
            process.wait_until_it_listens();
        });
    }

    /// Stops the first gateway as an operator does, and starts it under a wrapper. To its clients it is gone meanwhile.
    async fn exchange(&mut self, wrapper: &[String]) {
        let (gateway, from) = (&self.cluster.gateways[0], Instant::now());
        blocking(|| {
            gateway.stop();
            gateway.restart_under(wrapper);
            gateway.wait_until_it_listens();
        });
        self.faults.push(Fault { kind: Kind::GatewayDied(0), from, to: Instant::now() });
    }

    async fn disturb(&self, round: usize, set: impl Fn(Traffic)) {
        let late = Traffic::Late(Duration::from_millis(30));
        set([Traffic::Cut, Traffic::Swallowed, late][round % 3]);
        tokio::time::sleep(self.hold).await;
        set(Traffic::Flows);
    }

    /// How long something stays dead.
    async fn moment(&mut self) {
        let moment = Duration::from_millis(self.random.random_range(0..400));
        tokio::time::sleep(moment).await;
    }
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
