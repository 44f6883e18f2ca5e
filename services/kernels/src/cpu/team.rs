//! The workers of a [`super::Cpu`] and the gate through which they enter a region.

use std::cell::UnsafeCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One region: odd while it is open, one more when it is closed.
const EPOCH: u64 = 1 << 32;
/// Workers inside the region: the low half of the gate.
const INSIDE: u64 = EPOCH - 1;
/// Looks between two looks at the clock.
const SPINS: u32 = 64;

pub struct Team {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    /// A region is under way; another caller goes on alone.
    busy: AtomicBool,
}

struct Gate {
    /// High half: the epoch. Low half: workers inside.
    state: AtomicU64,
    /// Written only while the gate is closed and nobody is inside.
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    asleep: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written by the one caller that holds `busy`, while no worker is inside; workers read it only inside.
unsafe impl Sync for Gate {}
// SAFETY: the pointers in `job` are used only as above.
unsafe impl Send for Gate {}

#[derive(Clone, Copy)]
struct Job {
    task: *const (),
    call: unsafe fn(*const (), usize),
    tasks: usize,
}

impl Team {
    pub fn start(workers: usize, spin_us: u32, pin: bool) -> io::Result<Team> {
        unsafe fn nothing(_: *const (), _: usize) {}
        let gate = Arc::new(Gate {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { task: std::ptr::null(), call: nothing, tasks: 0 }),
            next: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut team = Team { gate, threads: Vec::new(), busy: AtomicBool::new(false) };
        let spin = Duration::from_micros(u64::from(spin_us));
        for index in 1..=workers {
            let gate = Arc::clone(&team.gate);
            let work = move || {
                if pin {
                    crate::system::pin_thread(index);
                }
                gate.work(spin);
            };
            team.threads.push(std::thread::Builder::new().name(format!("kernels-{index}")).spawn(work)?);
        }
        Ok(team)
    }

    pub fn workers(&self) -> usize {
        self.threads.len()
    }

    pub fn run<F: Fn(usize) + Sync>(&self, tasks: usize, task: &F) {
        unsafe fn call<F: Fn(usize)>(task: *const (), index: usize) {
            // SAFETY: `task` is the `&F` of the region that is open.
            unsafe { (*task.cast::<F>())(index) }
        }
        if self.busy.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(task);
        }
        let gate = &*self.gate;
        gate.next.store(0, Ordering::Relaxed);
        // SAFETY: the gate is closed, nobody is inside, and `busy` keeps other callers out.
        unsafe { *gate.job.get() = Job { task: std::ptr::from_ref(task).cast(), call: call::<F>, tasks } };
        let region = Region { team: self };
        gate.state.fetch_add(EPOCH, Ordering::SeqCst);
        if gate.asleep.load(Ordering::SeqCst) > 0 {
            self.threads.iter().take(tasks - 1).for_each(|thread| thread.thread().unpark());
        }
        loop {
            let index = gate.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                break;
            }
            task(index);
        }
        drop(region);
    }
}

/// An open region. Its end, by return or panic, closes the gate and waits for those inside.
struct Region<'a> {
    team: &'a Team,
}

impl Drop for Region<'_> {
    fn drop(&mut self) {
        let gate = &*self.team.gate;
        // After a panic of the caller's own task, nobody begins another one.
        gate.next.store(usize::MAX / 2, Ordering::Relaxed);
        gate.state.fetch_add(EPOCH, Ordering::AcqRel);
        let mut looks = 0u32;
        while gate.state.load(Ordering::Acquire) & INSIDE != 0 {
            looks += 1;
            // The worker may have lost its processor: let it have this one.
            if looks.is_multiple_of(1 << 14) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panicked = gate.panicked.swap(false, Ordering::Relaxed);
        self.team.busy.store(false, Ordering::Release);
        assert!(!panicked || std::thread::panicking(), "a task of a region panicked");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.gate.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A worker catches what its tasks throw.
            let _ = thread.join();
        }
    }
}

impl Gate {
    fn work(&self, spin: Duration) {
        let mut last = 0;
        while let Some(epoch) = self.wait(last, spin) {
            last = epoch;
            let open = epoch * EPOCH;
            let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                (state & !INSIDE == open).then(|| state + 1)
            });
            if entered.is_ok() {
                self.take_tasks();
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    fn take_tasks(&self) {
        // SAFETY: inside of the region, the job is not written.
        let job = unsafe { *self.job.get() };
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                return;
            }
            // SAFETY: the caller waits for this worker before `task` ends.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.task, index) }));
            if done.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The epoch of an open region other than `last`; `None` at the end.
    fn wait(&self, last: u64, spin: Duration) -> Option<u64> {
        let begin = Instant::now();
        loop {
            for _ in 0..SPINS {
                let epoch = self.state.load(Ordering::SeqCst) / EPOCH;
                if epoch != last && !epoch.is_multiple_of(2) {
                    return Some(epoch);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if begin.elapsed() >= spin {
                self.sleep(last);
            }
        }
    }

    fn sleep(&self, last: u64) {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let epoch = self.state.load(Ordering::SeqCst) / EPOCH;
        let called = epoch != last && !epoch.is_multiple_of(2);
        if !called && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}
