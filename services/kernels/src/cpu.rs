//! The threads and the instruction set that operations run on. Every operation takes a [`Cpu`]; none keeps state in it.
//!
//! A region ([`Cpu::each`]) is a fork and a join: the calling thread works too, tasks are claimed one at a time, and a
//! worker that has not woken by the time all tasks are claimed is not waited for. Workers spin for a moment after a
//! region, since the next one of a step comes within microseconds, and then sleep: an idle engine burns no core.

mod team;

use std::io;

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::split::Split;
use team::Team;

/// Threads and instruction set of a [`Cpu`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpuConfig {
    /// Threads of a region, the calling one included; 0: as many as this process may use.
    pub threads: usize,
    /// Instructions to use; none: the best that this machine has. A better one than it has is an error.
    pub isa: Option<Isa>,
    /// Microseconds that a worker looks for more work before it sleeps.
    pub spin_us: u32,
    /// Ties each worker to one processor (Linux; without effect elsewhere). For machines that serve and do nothing else.
    pub pin: bool,
}

impl Default for CpuConfig {
    fn default() -> Self {
        CpuConfig { threads: 0, isa: None, spin_us: 200, pin: false }
    }
}

/// The threads and the instruction set that operations run on.
pub struct Cpu {
    isa: Isa,
    team: Option<Team>,
}

impl Cpu {
    /// Starts the workers.
    ///
    /// # Errors
    /// An instruction set that this machine lacks, or no thread to be had.
    pub fn new(config: &CpuConfig) -> io::Result<Cpu> {
        let isa = match config.isa {
            None => Isa::best(),
            Some(isa) if isa <= Isa::best() => isa,
            Some(isa) => {
                let message = format!("this machine has no {isa}: its best is {}", Isa::best());
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
        };
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let team = (threads > 1).then(|| Team::start(threads - 1, config.spin_us, config.pin)).transpose()?;
        Ok(Cpu { isa, team })
    }

    /// The calling thread alone, with the best instructions: for work beside the steps of those who are being served.
    pub fn serial() -> Cpu {
        Cpu { isa: Isa::best(), team: None }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads of a region, the calling one included.
    pub fn threads(&self) -> usize {
        self.team.as_ref().map_or(1, |team| team.workers() + 1)
    }

    /// Calls `task(i)` once for each `i` in `0..tasks`, on all threads, in no fixed order. Inside of a region, or while
    /// another thread has one, it runs on the calling thread.
    ///
    /// # Panics
    /// If a task does, after all tasks that had begun have ended.
    pub fn each(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.team {
            Some(team) if tasks > 1 => team.run(tasks, &task),
            _ => (0..tasks).for_each(task),
        }
    }

    /// Calls `task(i, part)` for each part of `chunk` elements; the last may be shorter. As [`Cpu::each`] otherwise.
    pub fn each_chunk<T: Send>(&self, values: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
        assert!(chunk > 0, "a chunk has elements");
        let (length, tasks) = (values.len(), values.len().div_ceil(chunk));
        let split = Split::new(values);
        self.each(tasks, |i| {
            let first = i * chunk;
            // SAFETY: chunks do not overlap, and each index is given to one call.
            task(i, unsafe { split.part(first..(first + chunk).min(length)) });
        });
    }
}

#[cfg(test)]
impl Cpu {
    /// With the instructions of AMX, which products emulate where the machine has none (`linear/amx.rs`). None where it
    /// lacks the others that they come with.
    pub fn with_tiles(threads: usize) -> Option<Cpu> {
        let mut cpu = Cpu::new(&CpuConfig { threads, ..CpuConfig::default() }).ok()?;
        cpu.isa = Isa::Amx;
        (Isa::best() >= Isa::Avx512Bf16).then_some(cpu)
    }
}

#[cfg(test)]
mod tests;
