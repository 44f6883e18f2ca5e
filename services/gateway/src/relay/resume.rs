//! An answer that survives its worker. It remembers what has come of it, and when its worker is lost it goes on at another
//! one behind the last token: no token comes twice, none is missing. What may be generated stays as it was granted.

use futures::{FutureExt as _, future::BoxFuture};

use domain::{Fault, Reason};

use crate::{
    deadline::Deadline,
    workers::{Answer, Extender, Failure, Job, Step, Workers},
};

pub struct Resumable {
    at: At,
    /// With what has come so far.
    job: Job,
    workers: Workers,
    deadline: Deadline,
    resumes_left: u32,
}

enum At {
    Worker(Box<Answer>),
    /// With the tokens that the next worker is told it may generate.
    Between(BoxFuture<'static, Result<Answer, Fault>>, u32),
}

/// What comes next of an answer.
pub enum Next {
    Step(Step),
    /// Another worker goes on with it.
    Moved {
        worker: String,
        extender: Extender,
        /// Tokens that it was told it may generate.
        told: u32,
    },
}

impl Resumable {
    /// At most `resumes_max` times another worker goes on.
    pub fn new(answer: Answer, job: Job, workers: Workers, deadline: Deadline, resumes_max: u32) -> Self {
        Self { at: At::Worker(Box::new(answer)), job, workers, deadline, resumes_left: resumes_max }
    }

    /// The next step; nothing is lost when it is not waited for. `granted`: tokens that may be generated in all.
    pub async fn next(&mut self, granted: u32) -> Result<Next, Fault> {
        loop {
            match &mut self.at {
                At::Worker(answer) => match answer.next().await {
                    Ok(step) => {
                        self.remember(&step);
                        return Ok(Next::Step(step));
                    }
                    Err(failure) => {
                        let lost = answer.lost(permit(&mut self.resumes_left, failure)?);
                        let (workers, job, deadline) = (self.workers.clone(), self.rest(granted), self.deadline);
                        let told = job.granted_tokens;
                        self.at = At::Between(async move { workers.resume(&job, lost, deadline).await }.boxed(), told);
                    }
                },
                At::Between(resuming, told) => {
                    let (answer, told) = (resuming.await?, *told);
                    let (worker, extender) = (answer.worker(), answer.extender());
                    tracing::info!(worker, tokens = self.job.generated.len(), "another worker goes on with the answer");
                    self.at = At::Worker(Box::new(answer));
                    return Ok(Next::Moved { worker, extender, told });
                }
            }
        }
    }

    fn remember(&mut self, step: &Step) {
        self.job.generated.extend(step.tokens.iter().map(|token| token.id));
        self.job.text_bytes = self.job.text_bytes.saturating_add(u32::try_from(step.text.len()).unwrap_or(u32::MAX));
    }

    /// What another worker is asked for.
    fn rest(&self, granted: u32) -> Job {
        let generated = u32::try_from(self.job.generated.len()).unwrap_or(u32::MAX);
        Job { granted_tokens: granted.max(generated), ..self.job.clone() }
    }
}

/// The failure, unless it is not one of the worker, or there were too many.
fn permit(resumes_left: &mut u32, failure: Failure) -> Result<Failure, Fault> {
    match failure {
        Failure::Refused(fault) | Failure::Full(fault) => Err(fault),
        Failure::Gone { cause, .. } if *resumes_left == 0 => {
            tracing::warn!(cause, "worker lost in the middle of an answer, and not for the first time");
            let message = "the worker that was answering is gone; what it sent is not the whole";
            Err(Fault::new(Reason::WorkerUnavailable, message))
        }
        gone @ Failure::Gone { .. } => {
            *resumes_left -= 1;
            Ok(gone)
        }
    }
}
