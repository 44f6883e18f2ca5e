//! What a lane has left, counted, and which counts must not be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    ask::{Attempt, Outcome},
    books::Books,
    budgets,
    cluster::{Cluster, LEASE},
    counts::reservations_left,
    lanes::{Fault, Kind, Lane},
    load::Questions,
    tenants::Tenant,
};

/// The longest of the windows that limits count in.
const WINDOW: Duration = Duration::from_secs(60);
/// Until what was lost for a moment must be on record.
const RECOVERY: Duration = Duration::from_secs(30);
/// Longest that a refusal may take while Redis hangs: its time limit, and what a busy machine adds.
const REFUSAL_MAX: Duration = Duration::from_millis(1_000);

/// Most that half of them may take: a few times that time limit (`limits.redis_timeout_ms`).
const REFUSAL_MEDIAN_MAX: Duration = Duration::from_millis(200);

/// A row of the table.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    pub lane: String,
    /// Kills, or rounds of what is not a kill.
    pub faults: usize,
    pub kills: usize,
    pub requests: usize,
    pub finished: usize,
    /// Ended by a limit before their length.
    pub ended_by_limit: usize,
    pub refused: BTreeMap<String, usize>,
    /// Through a gateway that was being killed: its client sees the connection end.
    pub with_their_gateway: usize,
    /// Other failures that a client saw.
    pub failed: BTreeMap<String, usize>,
    pub rows_lost: usize,
    pub rows_duplicated: usize,
    /// Requests with a beginning on record and no end, or the other way round.
    pub rows_unmatched: usize,
    pub tokens_over: u64,
    /// Micro-units beyond budgets.
    pub money_over: u64,
    /// A comparison of Redis' budget counters with the ledger that is not even.
    pub budgets_differing: Option<String>,
    pub reservations_left: u64,
    pub streams_lost: usize,
    pub texts_differing: usize,
    /// While Redis hung, of tenants whose plan refuses.
    pub slowest_refusal_ms: Option<u64>,
    /// The one in the middle of the same.
    pub median_refusal_ms: Option<u64>,
    /// Why the lane was not run: this machine does not let us.
    pub skipped: Option<String>,
    /// What must not be; empty when all is well.
    pub broken: Vec<String>,
}

/// All of a lane.
pub struct Evidence<'a> {
    pub lane: Lane,
    pub attempts: &'a [Attempt],
    /// From the start of the deployment on, this lane's included.
    pub all_attempts: &'a [Attempt],
    pub faults: &'a [Fault],
    pub all_faults: &'a [Fault],
    pub tenants: &'a [Tenant],
    /// What each tenant with a budget may have spent.
    pub budgets: &'a [Option<u64>],
    pub questions: &'a Questions,
    /// What kept the lane from its end.
    pub stuck: Option<String>,
}

impl Verdict {
    pub fn skipped(lane: Lane, why: String) -> Self {
        Self { lane: lane.name(), skipped: Some(why), ..Self::default() }
    }

    /// Waits until what must come has come, and counts.
    pub async fn of(evidence: &Evidence<'_>, cluster: &Cluster) -> Self {
        let Evidence { lane, attempts, faults, .. } = *evidence;
        let refusals = evidence.refusals_while_stopped();
        let mut verdict = Self {
            lane: lane.name(),
            faults: faults.len(),
            kills: if lane.kills() { faults.len() } else { 0 },
            requests: attempts.len(),
            finished: attempts.iter().filter(|attempt| attempt.finished()).count(),
            tokens_over: evidence.tokens_over(),
            texts_differing: attempts.iter().filter(|attempt| !evidence.questions.agrees(attempt)).count(),
            slowest_refusal_ms: refusals.last().copied(),
            median_refusal_ms: refusals.get(refusals.len() / 2).copied(),
            ..Self::default()
        };
        for attempt in attempts {
            verdict.count(attempt, evidence);
        }
        [verdict.rows_lost, verdict.rows_duplicated, verdict.rows_unmatched] = on_record(attempts, cluster).await;
        verdict.money_over = budgets::money_over(cluster, evidence.tenants, evidence.budgets).await;
        verdict.budgets_differing = budgets::differing(cluster, RECOVERY).await;
        verdict.reservations_left = left(cluster).await;
        verdict.judge(evidence);
        verdict
    }

    fn count(&mut self, attempt: &Attempt, evidence: &Evidence<'_>) {
        match &attempt.outcome {
            Outcome::Finished { by_limit, .. } => self.ended_by_limit += usize::from(*by_limit),
            Outcome::Refused(reason) if !attempt.accepted => *self.refused.entry(reason.clone()).or_default() += 1,
            _ if evidence.gateway_died_during(attempt) => self.with_their_gateway += 1,
            Outcome::Refused(reason) => *self.failed.entry(format!("after a part: {reason}")).or_default() += 1,
            Outcome::Unreachable(why) => *self.failed.entry(why.clone()).or_default() += 1,
            Outcome::Hung => *self.failed.entry("hung".to_owned()).or_default() += 1,
        }
        let lost = attempt.lost() && !evidence.gateway_died_during(attempt);
        self.streams_lost += usize::from(lost && evidence.lane.keeps_streams());
    }

    fn judge(&mut self, evidence: &Evidence<'_>) {
        let counts = [
            ("finished answers are not on record", self.rows_lost as u64),
            ("rows are there twice", self.rows_duplicated as u64),
            ("requests have a beginning or an end on record, not both", self.rows_unmatched as u64),
            ("tokens are beyond a limit", self.tokens_over),
            ("micro-units are beyond a budget", self.money_over),
            ("reservations are left after their deadline", self.reservations_left),
            ("streams are lost", self.streams_lost as u64),
            ("texts differ", self.texts_differing as u64),
            ("requests hung", self.failed.get("hung").copied().unwrap_or(0) as u64),
        ];
        self.broken =
            counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
        if self.slowest_refusal_ms.is_some_and(|ms| u128::from(ms) > REFUSAL_MAX.as_millis()) {
            self.broken.push(format!("a refusal took longer than {REFUSAL_MAX:?} while Redis hung"));
        }
        if self.median_refusal_ms.is_some_and(|ms| u128::from(ms) > REFUSAL_MEDIAN_MAX.as_millis()) {
            self.broken.push(format!("half of all refusals took longer than {REFUSAL_MEDIAN_MAX:?} while Redis hung"));
        }
        self.broken.extend(self.budgets_differing.iter().map(|told| format!("Redis and the ledger differ: {told}")));
        if self.finished == 0 {
            self.broken.push("nothing was answered".to_owned());
        }
        self.broken.extend(evidence.stuck.clone());
    }
}

impl Evidence<'_> {
    fn gateway_died_during(&self, attempt: &Attempt) -> bool {
        let died = Kind::GatewayDied(attempt.gateway);
        self.faults.iter().any(|fault| fault.kind == died && fault.from < attempt.ended && attempt.began < fault.to)
    }

    /// Of requests that lie wholly within a window, so that all of what they were granted does. Each time that Redis
    /// forgets the minute, the minute begins anew.
    fn tokens_over(&self) -> u64 {
        let of_tenant = |(number, tenant): (usize, &Tenant)| {
            let own: Vec<_> = self.all_attempts.iter().filter(|attempt| attempt.tenant == number).collect();
            let limit = u64::from(tenant.terms.output_tokens_per_minute);
            let over = own.iter().map(|first| {
                let (from, to) = (first.began, first.began + WINDOW);
                let within = own.iter().filter(|attempt| from <= attempt.began && attempt.ended <= to);
                let tokens: u64 = within.map(|attempt| attempt.tokens).sum();
                tokens.saturating_sub(limit * (1 + self.emptied_between(from, to)))
            });
            over.max().unwrap_or(0)
        };
        self.tenants.iter().enumerate().filter(|(_, tenant)| tenant.terms.outage == "closed").map(of_tenant).sum()
    }

    fn emptied_between(&self, from: Instant, to: Instant) -> u64 {
        let emptied = |fault: &&Fault| fault.kind == Kind::RedisEmptied && from <= fault.to && fault.from <= to;
        self.all_faults.iter().filter(emptied).count() as u64
    }

    /// How long each took, in milliseconds, the fastest first.
    fn refusals_while_stopped(&self) -> Vec<u64> {
        let stopped: Vec<_> = self.faults.iter().filter(|fault| fault.kind == Kind::RedisStopped).collect();
        let refused = self.attempts.iter().filter(|attempt| {
            matches!(attempt.outcome, Outcome::Refused(_))
                && !attempt.accepted
                && stopped.iter().any(|fault| fault.from <= attempt.began && attempt.ended <= fault.to)
        });
        let took = |attempt: &Attempt| u64::try_from((attempt.ended - attempt.began).as_millis()).unwrap_or(u64::MAX);
        let mut took: Vec<_> = refused.map(took).collect();
        took.sort_unstable();
        took
    }
}

/// Finished answers that are not on record in time, rows too many, and requests with a half of their rows.
async fn on_record(attempts: &[Attempt], cluster: &Cluster) -> [usize; 3] {
    let end = Instant::now() + RECOVERY;
    loop {
        let counts = Books::read(&cluster.database.owner_url()).await.map(|books| {
            let missing = attempts.iter().filter(|attempt| match &attempt.outcome {
                Outcome::Finished { request, prompt_tokens, completion_tokens, .. } => {
                    !books.has(request, *prompt_tokens, *completion_tokens)
                }
                _ => false,
            });
            [missing.count(), books.duplicated(), books.halves()]
        });
        match counts {
            Ok(counts @ [0, _, 0]) => return counts,
            Ok(counts) if Instant::now() > end => return counts,
            Err(error) if Instant::now() > end => panic!("the database has not come back: {error}"),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Reservations that outlive their lease.
async fn left(cluster: &Cluster) -> u64 {
    let end = Instant::now() + LEASE + LEASE;
    loop {
        let left = reservations_left(&cluster.redis.url()).await.expect("Redis answers again");
        if left == 0 || Instant::now() > end {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
