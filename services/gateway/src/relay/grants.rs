//! Lets an answer go on step by step: when half of what it was last granted is used up, more is asked for, first of the
//! rate limits and then for the worker, which never goes beyond what it was told. So no token is generated that has not
//! been reserved. When the limits have no more, the worker ends the answer where its grant ends.

use std::time::Duration;

use futures::{FutureExt as _, future::BoxFuture};

use crate::{
    limits::{Extended, Lease, Limit},
    workers::Extender,
};

/// Between two tries when the limits or the worker do not answer. The worker waits longer for an extension than this.
const RETRY: Duration = Duration::from_millis(100);

/// What an answer may have in all, and in one step.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub granted: u32,
    pub max_tokens: u32,
    pub step: u32,
}

pub struct Grants {
    lease: Lease,
    worker: Extender,
    allowance: Allowance,
    generated: u32,
    /// The worker has been told that no more will come.
    last: bool,
    stopped_by: Vec<Limit>,
    running: Option<BoxFuture<'static, Outcome>>,
}

enum Outcome {
    Extended {
        granted: u32,
        last: bool,
        stopped_by: Vec<Limit>,
    },
    /// Somebody did not answer: it is tried again.
    Unknown,
}

impl Grants {
    pub const fn new(lease: Lease, worker: Extender, allowance: Allowance) -> Self {
        Self { lease, worker, allowance, generated: 0, last: false, stopped_by: Vec::new(), running: None }
    }

    /// So many more tokens have been generated.
    pub fn generated(&mut self, tokens: usize) {
        self.generated = self.generated.saturating_add(u32::try_from(tokens).unwrap_or(u32::MAX));
        self.ask_if_due();
    }

    /// Tokens that may be generated in all.
    pub const fn granted(&self) -> u32 {
        self.allowance.granted
    }

    /// Another worker goes on with the answer, and was told of `told` tokens. What its predecessor heard since, it hears
    /// now. An extension that is under way begins anew: reserving the same total once more reserves nothing.
    pub fn go_on_at(&mut self, worker: Extender, told: u32) {
        self.worker = worker;
        self.running = (self.last || self.allowance.granted > told).then(|| self.tell().boxed());
        self.ask_if_due();
    }

    /// Ends when an extension that is under way has ended; never without one.
    pub async fn settle_down(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = running.await;
        self.running = match outcome {
            Outcome::Extended { granted, last, stopped_by } => {
                self.allowance.granted = granted;
                self.last = last;
                self.stopped_by = stopped_by;
                None
            }
            // The answer may be waiting at the end of its grant, so no step of it would remind us.
            Outcome::Unknown if self.last => {
                let told = self.tell();
                Some(async { tokio::time::sleep(RETRY).then(|()| told).await }.boxed())
            }
            Outcome::Unknown => {
                let (lease, worker, allowance) = (self.lease.clone(), self.worker.clone(), self.allowance);
                let again = async move {
                    tokio::time::sleep(RETRY).await;
                    extend(lease, worker, allowance).await
                };
                Some(again.boxed())
            }
        };
        // All that it was granted may have been generated meanwhile.
        self.ask_if_due();
    }

    /// Tells the worker what another one has been told.
    fn tell(&self) -> impl Future<Output = Outcome> + Send + 'static {
        let (worker, granted, last) = (self.worker.clone(), self.allowance.granted, self.last);
        let stopped_by = self.stopped_by.clone();
        async move {
            match worker.extend(granted, last).await {
                Ok(()) => Outcome::Extended { granted, last, stopped_by },
                Err(cause) => {
                    tracing::warn!(cause, "the worker was not told what is granted yet");
                    Outcome::Unknown
                }
            }
        }
    }

    /// The limits that left no more for the answer.
    pub fn stopped_by(&self) -> Vec<String> {
        self.stopped_by.iter().map(ToString::to_string).collect()
    }

    fn ask_if_due(&mut self) {
        if self.running.is_none() && self.is_due() {
            self.running = Some(extend(self.lease.clone(), self.worker.clone(), self.allowance).boxed());
        }
    }

    fn is_due(&self) -> bool {
        let Allowance { granted, max_tokens, step } = self.allowance;
        let left = granted.saturating_sub(self.generated);
        !self.last && granted < max_tokens && left <= step.min(granted) / 2
    }
}

async fn extend(lease: Lease, worker: Extender, allowance: Allowance) -> Outcome {
    let Allowance { granted, max_tokens, step } = allowance;
    let wanted = granted.saturating_add(step).min(max_tokens);
    let (total, stopped_by) = match lease.extend(wanted).await {
        Ok(Extended::Granted { total, stopped_by }) => (total, stopped_by),
        // Its lease has expired, so it gets no more.
        Ok(Extended::Unknown) => (granted, Vec::new()),
        Err(error) => {
            tracing::debug!(%error, "not extended yet");
            return Outcome::Unknown;
        }
    };
    let last = total <= granted;
    match worker.extend(total, last).await {
        Ok(()) => Outcome::Extended { granted: total, last, stopped_by },
        Err(cause) => {
            tracing::warn!(cause, "the worker was not told of an extension yet");
            Outcome::Unknown
        }
    }
}
