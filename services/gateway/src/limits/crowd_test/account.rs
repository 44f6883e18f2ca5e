//! What gateways write down, and what it adds up to. A grant is written after it was given and an end before it is told, so
//! that at every moment no more is counted here than was charged.

use std::{
    collections::HashMap,
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use domain::{ApiKeyId, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};
use uuid::Uuid;

use super::gateway::{key_of, limits_of, tenant, unix_us};
use crate::limits::{BudgetSource, ByProcess, LimitsUnavailable, Period, Spent};

/// Begins the names of files that others have written for a process that was gone.
const CLOSED: &str = "closed-";

/// One line of a file.
#[derive(Clone, Debug)]
pub struct Event {
    pub at_us: u64,
    /// Its process.
    pub gateway: Uuid,
    /// Written when the process was gone.
    pub afterwards: bool,
    pub tenant: u64,
    pub key: u64,
    pub id: RequestId,
    /// Of a grant what it may come to, of an end what was used.
    pub input: u64,
    pub output: u64,
    pub cost: u64,
    /// The most that it may ever cost; 0 at its end.
    pub held: u64,
}

pub struct Journal {
    gateway: Uuid,
    file: Mutex<fs::File>,
}

impl Journal {
    pub fn open(folder: &Path, name: &str, gateway: Uuid) -> Self {
        let path = folder.join(name);
        let file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
        Self { gateway, file: Mutex::new(file) }
    }

    /// In one write, which a kill leaves whole or undone.
    pub fn write(&self, event: &Event) {
        let Event { tenant, key, id, input, output, cost, held, .. } = event;
        let line = format!("{} {} {tenant} {key} {id} {input} {output} {cost} {held}\n", unix_us(), self.gateway);
        self.file.lock().expect("nobody panicked").write_all(line.as_bytes()).expect("writes");
    }
}

/// All that was ever written, in order.
pub fn read(folder: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    for file in fs::read_dir(folder).expect("a folder") {
        let file = file.expect("a file");
        let afterwards = file.file_name().to_string_lossy().starts_with(CLOSED);
        let text = fs::read_to_string(file.path()).expect("text");
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            let id = RequestId::new(words[4].parse().expect("an id"));
            let gateway = words[1].parse().expect("an id");
            let [at_us, tenant, key] = [0, 2, 3].map(number);
            let [input, output, cost, held] = [5, 6, 7, 8].map(number);
            events.push(Event { at_us, gateway, afterwards, tenant, key, id, input, output, cost, held });
        }
    }
    events.sort_by_key(|event: &Event| event.at_us);
    events
}

/// Ends what a process had running, as the ledger does when it is gone: with what is known of it, or as nothing.
pub fn end_requests_of(folder: &Path, gone: Uuid) {
    let journal = Journal::open(folder, &format!("{CLOSED}{gone}"), gone);
    let mut open = HashMap::new();
    for event in read(folder).into_iter().filter(|event| event.gateway == gone) {
        open.insert(event.id, event);
    }
    for (number, event) in open.into_values().filter(|event| event.held > 0).enumerate() {
        let none = Event { input: 0, output: 0, cost: 0, held: 0, ..event.clone() };
        journal.write(&if number % 2 == 0 { none } else { Event { held: 0, ..event } });
    }
}

/// The files are the ledger: what was used, and the most that open requests may come to.
pub struct Files(pub PathBuf);

impl BudgetSource for Files {
    fn spent<'a>(
        &'a self,
        of: TenantId,
        key: Option<ApiKeyId>,
        _: Period,
        except: &'a [RequestId],
    ) -> BoxFuture<'a, Result<ByProcess, LimitsUnavailable>> {
        let mut requests = HashMap::new();
        for event in read(&self.0) {
            let counts = tenant(event.tenant) == of && key.is_none_or(|key| key_of(event.tenant, event.key) == key);
            if counts && !except.contains(&event.id) {
                requests.insert(event.id, (event.gateway, event.cost.max(event.held)));
            }
        }
        let mut parts = HashMap::<_, Spent>::new();
        for (gateway, cost) in requests.into_values() {
            let part = parts.entry(gateway).or_default();
            *part = Spent { day: part.day + cost, month: part.month + cost };
        }
        futures::future::ready(Ok(parts.into_iter().collect())).boxed()
    }
}

/// The most that one tenant, or one of its keys, ever had at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Most {
    requests: u64,
    input: u64,
    output: u64,
    running: u64,
    cost: u64,
}

pub struct Account {
    tenant: u64,
    pub requests: u64,
    /// Of the tenant, and of its two keys.
    most: [Most; 3],
}

/// What came of a run: how near it has been to each limit.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests; at most {:?}", self.requests, self.most)
    }
}

impl Account {
    /// A place is a request's for `leased` after its last line, whatever the clocks do: later another one may have it.
    pub fn replay(events: &[Event], tenant: u64, leased: Duration) -> Self {
        let leased = u64::try_from(leased.as_micros()).expect("short");
        let mut requests: HashMap<RequestId, &Event> = HashMap::new();
        let mut most = [Most::default(); 3];
        // A gateway that was killed ran nothing after its last line.
        let mut last: HashMap<Uuid, u64> = HashMap::new();
        for event in events.iter().filter(|event| !event.afterwards) {
            last.insert(event.gateway, event.at_us);
        }
        for event in events.iter().filter(|event| event.tenant == tenant) {
            requests.insert(event.id, event);
            for (scope, most) in most.iter_mut().enumerate() {
                let of = || requests.values().filter(|one| scope == 0 || one.key + 1 == scope as u64);
                let is_running = |one: &&&Event| {
                    one.held > 0 && last[&one.gateway] >= event.at_us && event.at_us < one.at_us + leased
                };
                let running = of().filter(is_running).count() as u64;
                most.running = most.running.max(running);
                most.requests = most.requests.max(of().count() as u64);
                most.input = most.input.max(of().map(|one| one.input).sum());
                most.output = most.output.max(of().map(|one| one.output).sum());
                most.cost = most.cost.max(of().map(|one| one.cost).sum());
            }
        }
        Self { tenant, requests: requests.len() as u64, most }
    }

    pub fn assert_within_budgets(&self) {
        // Else the run would show nothing.
        let near = limits_of(self.tenant, 0).budget_day.is_none_or(|budget| self.most[0].cost > budget / 2);
        assert!(near, "tenant {} was never near its budget: {:?}", self.tenant, self.most);
        for (scope, most) in self.most.iter().enumerate() {
            let limits = limits_of(self.tenant, scope);
            let budget = limits.budget_day.unwrap_or(u64::MAX);
            assert!(most.cost <= budget, "tenant {} scope {scope}: {most:?} above {limits:?}", self.tenant);
        }
    }

    /// The run is shorter than a window, so a window holds all of it.
    pub fn assert_within_limits(&self) {
        self.assert_within_budgets();
        for (scope, most) in self.most.iter().enumerate() {
            let limits = limits_of(self.tenant, scope);
            let within = |most: u64, limit: Option<u32>| limit.is_none_or(|limit| most <= limit.into());
            let all = within(most.requests, limits.requests_per_minute)
                && within(most.input, limits.input_tokens_per_minute)
                && within(most.output, limits.output_tokens_per_minute)
                && within(most.running, limits.concurrent_requests);
            assert!(all, "tenant {} scope {scope}: {most:?} above {limits:?}", self.tenant);
        }
    }
}
