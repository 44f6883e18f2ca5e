//! What gateways write down, and what it adds up to. A grant is written after it was given and an end before it is told, so
//! that at every moment no more is counted here than was charged.

use std::{
    collections::HashMap,
    fmt, fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use domain::{ApiKeyId, RequestId, TenantId};
use futures::{FutureExt as _, future::BoxFuture};

use super::gateway::{key_of, limits_of, tenant, unix_ms};
use crate::limits::{BudgetSource, LimitsUnavailable, Period, Spent};

/// One line of a file.
#[derive(Clone, Debug)]
pub struct Event {
    pub at_ms: u64,
    pub gateway: u64,
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
    gateway: u64,
    file: Mutex<fs::File>,
}

impl Journal {
    pub fn open(folder: &Path, gateway: u64) -> Self {
        let path = folder.join(gateway.to_string());
        let file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
        Self { gateway, file: Mutex::new(file) }
    }

    /// In one write, which a kill leaves whole or undone.
    pub fn write(&self, event: &Event) {
        let Event { tenant, key, id, input, output, cost, held, .. } = event;
        let line = format!("{} {} {tenant} {key} {id} {input} {output} {cost} {held}\n", unix_ms(), self.gateway);
        self.file.lock().expect("nobody panicked").write_all(line.as_bytes()).expect("writes");
    }
}

/// All that was ever written, in order.
pub fn read(folder: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    for file in fs::read_dir(folder).expect("a folder") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("text");
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            let id = RequestId::new(words[4].parse().expect("an id"));
            let [at_ms, gateway, tenant, key] = [0, 1, 2, 3].map(number);
            let [input, output, cost, held] = [5, 6, 7, 8].map(number);
            events.push(Event { at_ms, gateway, tenant, key, id, input, output, cost, held });
        }
    }
    events.sort_by_key(|event: &Event| event.at_ms);
    events
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
    ) -> BoxFuture<'a, Result<Spent, LimitsUnavailable>> {
        let mut requests = HashMap::new();
        for event in read(&self.0) {
            let counts = tenant(event.tenant) == of && key.is_none_or(|key| key_of(event.tenant, event.key) == key);
            if counts && !except.contains(&event.id) {
                requests.insert(event.id, event.cost.max(event.held));
            }
        }
        let spent = requests.values().sum();
        futures::future::ready(Ok(Spent { day: spent, month: spent })).boxed()
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
    pub fn replay(events: &[Event], tenant: u64) -> Self {
        let mut requests: HashMap<RequestId, &Event> = HashMap::new();
        let mut most = [Most::default(); 3];
        // A gateway that was killed wrote nothing after its last line.
        let mut last: HashMap<u64, u64> = HashMap::new();
        for event in events {
            last.insert(event.gateway, event.at_ms);
        }
        for event in events.iter().filter(|event| event.tenant == tenant) {
            requests.insert(event.id, event);
            for (scope, most) in most.iter_mut().enumerate() {
                let of = || requests.values().filter(|one| scope == 0 || one.key + 1 == scope as u64);
                let running = of().filter(|one| one.held > 0 && last[&one.gateway] >= event.at_ms).count() as u64;
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
