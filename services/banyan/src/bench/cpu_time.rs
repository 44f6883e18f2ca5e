//! Where this process has spent its processors' time, by the names of its threads: on what the machine is shared with,
//! wall times say little, and these still do. Known on Linux alone.

use std::{fs, io, ops::Sub};

/// The thread names of [`clients_runtime`].
const CLIENTS: &str = "clients";

/// Seconds of user and system time of all threads that live, since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// The engine's thread and its team, waiting for each other included.
    pub engine: f64,
    /// Clients of a bench and their connections.
    pub clients: f64,
    /// Everything else: the platform between the two, its database included.
    pub platform: f64,
}

impl CpuTime {
    /// # Errors
    /// Where the system does not say.
    pub fn now() -> io::Result<Self> {
        let mut time = Self::default();
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            // A thread may have ended since it was listed.
            let (Ok(name), Ok(stat)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let nanos = stat.split_ascii_whitespace().next().and_then(|field| field.parse::<u64>().ok());
            *time.part_of(name.trim_end()) += nanos.ok_or(io::ErrorKind::InvalidData)? as f64 * 1e-9;
        }
        Ok(time)
    }

    fn part_of(&mut self, thread: &str) -> &mut f64 {
        match thread {
            CLIENTS => &mut self.clients,
            "engine" => &mut self.engine,
            name if name.starts_with("kernels-") => &mut self.engine,
            _ => &mut self.platform,
        }
    }

    /// Microseconds of each part for each of so many tokens.
    pub fn per_token(self, tokens: usize) -> Self {
        let per = |seconds: f64| seconds * 1e6 / tokens as f64;
        Self { engine: per(self.engine), clients: per(self.clients), platform: per(self.platform) }
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            engine: self.engine - earlier.engine,
            clients: self.clients - earlier.clients,
            platform: self.platform - earlier.platform,
        }
    }
}

/// Where the clients of a bench run, so that their time is known apart.
///
/// # Errors
/// No thread to be had.
pub fn clients_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name(CLIENTS).enable_all().build()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn time_goes_to_the_part_whose_thread_has_spent_it() {
        let spent = |name: &str| {
            let busy = || {
                let before = CpuTime::now().expect("Linux");
                // Until the kernel has counted some of it.
                loop {
                    (0..1 << 16).for_each(|n| _ = black_box(n));
                    let spent = CpuTime::now().expect("Linux") - before;
                    if spent.engine > 0.002 || spent.clients > 0.002 {
                        return spent;
                    }
                }
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(busy).expect("a thread").join().expect("it ends")
        };
        let engine = spent("kernels-9");
        assert!(engine.engine > 0.002 && engine.clients == 0.0, "{engine:?}");
        let clients = spent(CLIENTS);
        assert!(clients.clients > 0.002, "{clients:?}");
        assert_eq!(clients.per_token(2).clients, clients.clients * 5e5);
    }
}
