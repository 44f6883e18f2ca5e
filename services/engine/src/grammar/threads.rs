//! The threads that compile grammars and compute masks. Masks go first, and one thread is kept free of compiling where
//! there are two or more, so that an expensive grammar holds up no running answer.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use domain::{Fault, ResponseFormat};
use llguidance::Matcher;

use super::compiler::{self, Compiler};
use super::{Place, State};
use crate::config::GrammarConfig;
use crate::sampler::TokenMask;
use crate::text::TextModel;

/// Owns the threads; dropping it waits for what they are at.
pub(crate) struct Grammars {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// Takes work for the threads. A sequence has at most one job, so the queue is as bounded as the sequences are.
pub(crate) struct Desk {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Made when the first grammar comes.
    compiler: OnceLock<Result<Compiler, String>>,
    text: TextModel,
    vocab_size: usize,
    eos: Vec<u32>,
    config: GrammarConfig,
    /// Tells the engine that something is ready.
    done: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    masks: VecDeque<Job>,
    compiles: VecDeque<Job>,
    /// Threads that compile now.
    compiling: usize,
    stopping: bool,
}

/// Work for one sequence; void when that is gone.
pub(crate) struct Job {
    pub(super) place: Weak<Place>,
    pub(super) task: Task,
}

pub(super) enum Task {
    /// And then these tokens.
    Compile(ResponseFormat, Vec<u32>),
    Advance(Box<Matcher>, u32),
}

impl Grammars {
    /// `eos`: the tokens that end an answer. `done` is called on a grammar thread, and must not wait.
    pub fn start(
        config: &GrammarConfig,
        text: TextModel,
        vocab_size: usize,
        eos: Vec<u32>,
        done: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let desk = Arc::new(Desk {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            compiler: OnceLock::new(),
            text,
            vocab_size,
            eos,
            config: config.clone(),
            done: Box::new(done),
        });
        let spawn = |n| {
            let desk = Arc::clone(&desk);
            let thread = std::thread::Builder::new().name(format!("grammar-{n}")).stack_size(config.stack_bytes);
            thread.spawn(move || desk.run())
        };
        let threads = (0..config.threads).map(spawn).collect::<Result<_, _>>()?;
        Ok(Self { desk, threads })
    }

    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }
}

impl Drop for Grammars {
    fn drop(&mut self) {
        self.desk.lock().stopping = true;
        self.desk.arrived.notify_all();
        for thread in self.threads.drain(..) {
            // A grammar thread catches what its jobs throw.
            let _ = thread.join();
        }
    }
}

impl Desk {
    /// Puts a job into the queue. Never waits.
    pub fn begin(&self, job: Job) {
        let mut queue = self.lock();
        match job.task {
            Task::Compile(..) => queue.compiles.push_back(job),
            Task::Advance(..) => queue.masks.push_back(job),
        }
        drop(queue);
        self.arrived.notify_one();
    }

    fn run(&self) {
        while let Some(Job { place, task }) = self.next() {
            let compiles = matches!(task, Task::Compile(..));
            // Whoever has gone meanwhile gets nothing computed.
            if let Some(place) = place.upgrade() {
                let state = catch_unwind(AssertUnwindSafe(|| self.work(task)));
                place.put(state.unwrap_or_else(|_| State::Refused(compiler::refused("this grammar cannot be served"))));
            }
            let mut queue = self.lock();
            queue.compiling -= usize::from(compiles);
            // Masks come in bunches, after a step: the engine is called when the bunch is done.
            let call = compiles || queue.masks.is_empty();
            drop(queue);
            if compiles {
                self.arrived.notify_one();
            }
            if call {
                (self.done)();
            }
        }
    }

    /// Waits for the next job; `None` when it is over.
    fn next(&self) -> Option<Job> {
        let compiling_max = self.config.threads.saturating_sub(1).max(1);
        let mut queue = self.lock();
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(job) = queue.masks.pop_front() {
                return Some(job);
            }
            if queue.compiling < compiling_max
                && let Some(job) = queue.compiles.pop_front()
            {
                queue.compiling += 1;
                return Some(job);
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, task: Task) -> State {
        let done = match task {
            Task::Compile(format, beginning) => self.compile(&format, &beginning),
            Task::Advance(mut matcher, token) => compiler::advance(&mut matcher, token).map(|mask| (matcher, mask)),
        };
        match done {
            Ok((matcher, mask)) => State::Ready { matcher, mask: Arc::new(mask) },
            Err(fault) => State::Refused(fault),
        }
    }

    fn compile(&self, format: &ResponseFormat, beginning: &[u32]) -> Result<(Box<Matcher>, TokenMask), Fault> {
        let make = || Compiler::new(&self.text, self.vocab_size, &self.eos, &self.config);
        match self.compiler.get_or_init(make) {
            Ok(compiler) => compiler.compile(format, beginning).map(|(matcher, mask)| (Box::new(matcher), mask)),
            Err(error) => {
                tracing::error!(error, "no grammar can be compiled");
                Err(Fault::internal())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
