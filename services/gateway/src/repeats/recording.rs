//! An answer that is running, for everybody who follows it: each reads it from its beginning, at its own pace. It is kept
//! whole, within a bound, so nobody who reads slowly slows it down.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use domain::{Fault, Reason};
use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};
use tokio::sync::watch;

use crate::{deadline::Deadline, workers::Step};

/// What a token takes besides its texts, at most.
const TOKEN_BYTES: usize = 16;

#[derive(Default)]
struct Tape {
    steps: Vec<Step>,
    fault: Option<Fault>,
}

/// The run's end.
pub struct Recorder {
    tape: Arc<Mutex<Tape>>,
    told: watch::Sender<()>,
    bytes: usize,
    bytes_max: usize,
}

/// What can be followed. Cheap to clone.
#[derive(Clone)]
pub struct Recording {
    tape: Arc<Mutex<Tape>>,
    told: watch::Receiver<()>,
}

/// One who follows; ends with the last step, a fault, or at its own deadline.
pub struct Follower {
    recording: Recording,
    deadline: Pin<Box<tokio::time::Sleep>>,
    read: usize,
    /// The first step, when it has been waited for.
    first: Option<Step>,
    news: Option<BoxFuture<'static, bool>>,
    ended: bool,
}

pub fn record(bytes_max: usize) -> (Recorder, Recording) {
    let (told, hear) = watch::channel(());
    let tape = Arc::<Mutex<Tape>>::default();
    (Recorder { tape: Arc::clone(&tape), told, bytes: 0, bytes_max }, Recording { tape, told: hear })
}

fn open(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Refuses what would make it longer than may be kept.
    pub fn add(&mut self, step: Step) -> Result<(), Fault> {
        self.bytes += size(&step);
        if self.bytes > self.bytes_max {
            let words = "the answer is longer than is kept for a client_request_id: ask for less, or without one";
            return Err(Fault::new(Reason::QuotaExceeded, words));
        }
        open(&self.tape).steps.push(step);
        self.told.send_replace(());
        Ok(())
    }

    /// The whole answer as one step.
    pub fn whole_with(&self, last: &Step) -> Step {
        let mut whole = Step { text: String::new(), tokens: Vec::new(), finished: last.finished.clone() };
        for step in open(&self.tape).steps.iter().chain([last]) {
            whole.text += &step.text;
            whole.tokens.extend(step.tokens.iter().cloned());
        }
        whole
    }

    pub fn end(self, outcome: Result<Step, Fault>) {
        {
            let mut tape = open(&self.tape);
            match outcome {
                Ok(last) => tape.steps.push(last),
                Err(fault) => tape.fault = Some(fault),
            }
        }
        self.told.send_replace(());
    }
}

impl Recording {
    pub fn follow(self, deadline: Deadline) -> Follower {
        let deadline = Box::pin(tokio::time::sleep_until(deadline.instant()));
        Follower { recording: self, deadline, read: 0, first: None, news: None, ended: false }
    }
}

impl Follower {
    /// Waits for the first step; a fault in its place refuses.
    pub async fn begun(mut self) -> Result<Self, Fault> {
        self.first = Some(self.next().await.unwrap_or_else(|| Err(Fault::internal()))?);
        self.ended = self.first.as_ref().is_some_and(|step| step.finished.is_some());
        Ok(self)
    }
}

impl Stream for Follower {
    type Item = Result<Step, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            // Before looking, so that nothing is missed in between.
            let mut hear = self.recording.told.clone();
            hear.borrow_and_update();
            let next = {
                let tape = open(&self.recording.tape);
                tape.steps.get(self.read).cloned().map(Ok).or_else(|| tape.fault.clone().map(Err))
            };
            if let Some(next) = next {
                self.read += 1;
                self.news = None;
                self.ended = next.as_ref().map_or(true, |step| step.finished.is_some());
                return Poll::Ready(Some(next));
            }
            if self.deadline.poll_unpin(cx).is_ready() {
                self.ended = true;
                return Poll::Ready(Some(Err(Deadline::fault())));
            }
            let news = self.news.get_or_insert_with(|| async move { hear.changed().await.is_ok() }.boxed());
            let alive = std::task::ready!(news.poll_unpin(cx));
            self.news = None;
            if !alive && open(&self.recording.tape).steps.get(self.read).is_none() {
                // A run that ends without a word has panicked.
                let fault = open(&self.recording.tape).fault.clone().unwrap_or_else(Fault::internal);
                self.ended = true;
                return Poll::Ready(Some(Err(fault)));
            }
        }
    }
}

fn size(step: &Step) -> usize {
    let token = |token: &proto::v1::Token| {
        TOKEN_BYTES
            + token.text.len()
            + token.top_logprobs.iter().map(|top| TOKEN_BYTES + top.text.len()).sum::<usize>()
    };
    step.text.len() + step.tokens.iter().map(token).sum::<usize>()
}
