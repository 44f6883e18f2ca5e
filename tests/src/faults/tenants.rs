//! Who asks: tenants under each rule for an outage and with tight limits, each with an adapter and a key of its own.

use std::time::{Duration, Instant};

use super::{
    books,
    cluster::{Cluster, repository},
};

const INDUSTRIES: [&str; 4] = ["finance", "healthcare", "legal", "manufacturing"];
/// Longest that a worker may take until it can probe an adapter, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const NO_LIMIT: u32 = 1_000_000_000;

/// A tenant with a key.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub slug: &'static str,
    pub key: String,
    pub model: String,
    pub terms: Terms,
}

/// What holds for a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The plan's rule while Redis does not answer.
    pub outage: &'static str,
    pub requests_per_minute: u32,
    pub output_tokens_per_minute: u32,
    /// Micro-units that it has left of its day's budget at the beginning of each lane.
    pub money: Option<u64>,
}

const ROOMY: Terms =
    Terms { outage: "closed", requests_per_minute: NO_LIMIT, output_tokens_per_minute: NO_LIMIT, money: None };
/// For all tokens, cached or not, of all models: micro-units for a million.
const PRICES: [&str; 6] = ["--input", "1000000", "--cached-input", "500000", "--output", "2000000"];
const TENANTS: [(&str, Terms); 7] = [
    ("steady", ROOMY),
    ("second", ROOMY),
    ("open", Terms { outage: "open", ..ROOMY }),
    ("tight", Terms { output_tokens_per_minute: 1_500, ..ROOMY }),
    ("seldom", Terms { requests_per_minute: 30, ..ROOMY }),
    // Some five answers, and not quite: the last one is cut short.
    ("frugal", Terms { money: Some(1_100), ..ROOMY }),
    ("leased", Terms { money: Some(1_100), outage: "leased", ..ROOMY }),
];

/// Micro-units of a budget that nobody reaches: it is counted all the same.
const MUCH_MONEY: u64 = 1_000_000_000;

/// Gives every tenant with a budget its money for a lane; says how much each may have spent then, in all.
pub async fn allow(cluster: &Cluster, tenants: &[Tenant]) -> Vec<Option<u64>> {
    let mut budgets = Vec::new();
    for Tenant { slug, terms, .. } in tenants {
        let Some(money) = terms.money else {
            budgets.push(None);
            continue;
        };
        let spent = books::posted(&cluster.database.owner_url(), slug).await.expect("the database answers");
        let budget = (spent + money).to_string();
        let update = ["tenant", "update", slug, "--budget-day", &budget];
        tokio::task::block_in_place(|| cluster.run(&update)).unwrap_or_else(|said| panic!("raise a budget: {said}"));
        budgets.push(Some(spent + money));
    }
    budgets
}

/// Makes the plans, tenants, keys and adapters.
pub fn provide(cluster: &Cluster) -> Vec<Tenant> {
    let set = [&["price", "set", "*"], &PRICES[..]].concat();
    cluster.run(&set).unwrap_or_else(|said| panic!("banyan {}: {said}", set.join(" ")));
    TENANTS
        .iter()
        .zip(INDUSTRIES.iter().cycle())
        .map(|((slug, terms), industry)| tenant(cluster, slug, *terms, industry))
        .collect()
}

fn tenant(cluster: &Cluster, slug: &'static str, terms: Terms, industry: &str) -> Tenant {
    let plan = format!("plan-{slug}");
    let run = |arguments: &[&str]| {
        cluster.run(arguments).unwrap_or_else(|said| panic!("banyan {}: {said}", arguments.join(" ")))
    };
    run(&["plan", "create", &plan, "--outage", terms.outage]);
    let (requests, output) = (terms.requests_per_minute.to_string(), terms.output_tokens_per_minute.to_string());
    let limits = ["--requests-per-minute", &requests, "--output-tokens-per-minute", &output];
    let roomy = NO_LIMIT.to_string();
    let others = ["--input-tokens-per-minute", &roomy, "--concurrent-requests", "1000"];
    let much = MUCH_MONEY.to_string();
    let budget: &[&str] = if terms.money.is_some() { &["--budget-day", &much] } else { &[] };
    run(&[&["tenant", "create", slug, "--plan", &plan], &limits[..], &others[..], budget].concat());
    let key = run(&[&["key", "create", "--tenant", slug], budget].concat());
    let folder = repository("adapters/industries").join(industry).display().to_string();
    let push = ["adapter", "push", &folder, "--tenant", slug, "--name", industry, "--alias", "live"];
    let end = Instant::now() + START_TIMEOUT;
    // An upload is probed on a worker, and those may still be loading.
    while let Err(said) = cluster.run(&push) {
        assert!(Instant::now() < end, "no worker takes an adapter: {said}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Tenant { slug, key: key.lines().last().unwrap_or_default().to_owned(), model: format!("{slug}/{industry}"), terms }
}
