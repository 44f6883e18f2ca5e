//! Which workers there are: those that the configuration names, and those behind its names in the DNS, looked up again and
//! again with the system's resolver. A Kubernetes headless service gives one address for each of its pods. Who comes is
//! looked at and used; who goes gets no new requests, and its running answers end there. When a lookup fails, what was
//! known stays.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{WorkersError, peer::Peer};

/// `dns:///name:port`, as gRPC writes it, or `dns://name:port`.
const DNS: &str = "dns://";

/// What a list of workers' addresses says.
pub struct Named {
    pub urls: Vec<String>,
    pub names: Vec<String>,
}

/// The workers there are now.
#[derive(Default)]
pub struct Directory {
    peers: RwLock<Arc<[Arc<Peer>]>>,
}

impl Named {
    /// # Errors
    /// A DNS name without a port.
    pub fn of(addresses: &[String]) -> Result<Self, WorkersError> {
        let mut named = Self { urls: Vec::new(), names: Vec::new() };
        for address in addresses {
            match address.strip_prefix(DNS) {
                None => named.urls.push(address.clone()),
                Some(name) => named.names.push(host_and_port(address, name.trim_start_matches('/'))?),
            }
        }
        Ok(named)
    }
}

fn host_and_port(address: &str, name: &str) -> Result<String, WorkersError> {
    let port = name.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(name.to_owned()),
        _ => Err(WorkersError::Url { url: address.to_owned(), fault: "must be dns:///name:port".to_owned() }),
    }
}

impl Directory {
    pub fn peers(&self) -> Arc<[Arc<Peer>]> {
        Arc::clone(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// These are the workers now; those that were known before stay as they are. True if any came or went.
    pub fn set(
        &self,
        urls: &[String],
        mut make: impl FnMut(&str) -> Result<Peer, WorkersError>,
    ) -> Result<bool, WorkersError> {
        let before = self.peers();
        let known = |url: &String| before.iter().find(|peer| peer.url() == url).cloned();
        let peers = urls.iter().map(|url| known(url).map_or_else(|| make(url).map(Arc::new), Ok));
        let peers: Arc<[_]> = peers.collect::<Result<Vec<_>, _>>()?.into();
        let (came, gone) = (missing(&peers, &before), missing(&before, &peers));
        for url in &came {
            tracing::info!(worker = url, "worker found");
        }
        for url in &gone {
            tracing::info!(worker = url, "worker is no longer listed");
        }
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        Ok(!came.is_empty() || !gone.is_empty())
    }
}

/// Of `some`, those that `others` has not.
fn missing(some: &[Arc<Peer>], others: &[Arc<Peer>]) -> Vec<String> {
    let has = |url: &str| others.iter().any(|other| other.url() == url);
    some.iter().filter(|peer| !has(peer.url())).map(|peer| peer.url().to_owned()).collect()
}

/// How lookups go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub interval: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Workers behind names; further ones are left out.
    pub most: usize,
}

/// The system's resolver.
pub async fn system(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}

/// Looks the names up at intervals until `stop`, and says which addresses there are, in their order. Ends at once without
/// a name.
pub async fn keep_resolving<F: Future<Output = io::Result<Vec<SocketAddr>>>>(
    names: Vec<String>,
    pace: Pace,
    resolve: impl Fn(String) -> F,
    mut found: impl FnMut(Vec<String>),
    stop: CancellationToken,
) {
    if names.is_empty() {
        return;
    }
    let mut known: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    let mut ticks = tokio::time::interval(pace.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for name in &names {
            let looked_up = tokio::select! {
                () = stop.cancelled() => return,
                looked_up = tokio::time::timeout(pace.timeout, resolve(name.clone())) => looked_up,
            };
            let cause = match looked_up {
                Ok(Ok(addresses)) if !addresses.is_empty() => {
                    known.insert(name.clone(), addresses);
                    continue;
                }
                Ok(Ok(_)) => "no address".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::warn!(name, cause, "workers not looked up: those that were known stay");
        }
        let mut addresses: Vec<_> = known.values().flatten().copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() > pace.most {
            tracing::warn!(found = addresses.len(), most = pace.most, "more workers than workers.peers_max");
            addresses.truncate(pace.most);
        }
        found(addresses.iter().map(|address| format!("http://{address}")).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let list = ["http://10.0.0.5:7080", "dns:///workers.banyan:7080", "dns://[::1]:80"].map(str::to_owned);
        let named = Named::of(&list).expect("makes sense");
        assert_eq!(
            (named.urls, named.names),
            (vec![list[0].clone()], vec!["workers.banyan:7080".into(), "[::1]:80".into()])
        );
        for wrong in ["dns://workers", "dns://:7080", "dns:///workers:x", "dns://workers:0"] {
            assert!(Named::of(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn who_comes_and_goes_is_found_and_a_failure_changes_nothing() {
        let address = |n: u8| SocketAddr::from(([10, 0, 0, n], 7080));
        let answers = Mutex::new(VecDeque::from([
            Ok(vec![address(2), address(1)]),
            Err(io::Error::other("no server could be reached")),
            Ok(Vec::new()),
            Ok(vec![address(2), address(3), address(3)]),
            Ok((1..=9).map(address).collect()),
            Ok(Vec::new()),
        ]));
        let stop = CancellationToken::new();
        let resolve = |name: String| {
            assert_eq!(name, "workers:7080");
            let answer = answers.lock().expect("answers").pop_front();
            let last = answers.lock().expect("answers").is_empty();
            let stop = stop.clone();
            async move {
                if last {
                    stop.cancel();
                }
                answer.unwrap_or_else(|| Ok(Vec::new()))
            }
        };
        let mut seen = Vec::new();
        let pace = Pace { interval: Duration::from_millis(1), timeout: Duration::from_secs(60), most: 4 };
        let found = |urls: Vec<String>| {
            let last = |url: &String| url.trim_start_matches("http://10.0.0.").trim_end_matches(":7080").to_owned();
            seen.push(urls.iter().map(last).collect::<Vec<_>>().join(" "));
        };
        keep_resolving(vec!["workers:7080".to_owned()], pace, resolve, found, stop.clone()).await;
        assert_eq!(seen[..5], ["1 2", "1 2", "1 2", "2 3", "1 2 3 4"]);
    }

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let found = system("localhost:7080".to_owned()).await.expect("looked up");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7080), "{found:?}");
        assert!(!found.is_empty());
    }
}
