//! A process whose processor time and memory are read from outside. Dropping it kills it.

use std::{
    fs,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::failure::{Failure, Outcome};

/// Linux counts processor time in these (`USER_HZ`, the same on every architecture that we run on).
const TICKS_PER_SECOND: u64 = 100;

pub struct MeasuredProcess(Child);

impl MeasuredProcess {
    /// # Errors
    /// What does not start.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    /// Processor time that it has spent so far, in user and system mode.
    ///
    /// # Errors
    /// Where the system does not say (only Linux does).
    pub fn cpu_time(&self) -> Result<Duration, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The second field is the program's name in parentheses; behind it, `utime` and `stime` are the 12th and 13th.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace()).into_iter().flatten();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Memory that it holds now.
    ///
    /// # Errors
    /// Where the system does not say (only Linux does).
    pub fn resident_bytes(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Failure::Failed("the process's memory cannot be read".to_owned()))
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// As the system says.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        Ok(self.0.try_wait()?)
    }

    /// # Errors
    /// A process that does not end.
    pub fn kill(&mut self) -> Outcome {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for MeasuredProcess {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}
