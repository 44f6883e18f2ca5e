//! A fail-over that loses writes: Redis is killed while its replica lags, and the replica takes its place. Then Redis comes
//! back as a replica of that one, and takes its place again.

use std::{net::Ipv4Addr, time::Instant};

use super::{ANSWERS_BETWEEN, Fault, Kind, Stage, blocking};
use crate::{
    faults::cluster::Links,
    link::{Link, Traffic},
    redis::RedisServer,
};

impl Stage<'_> {
    /// Two fail-overs: what was reserved while the replica lagged is lost with the first.
    ///
    /// # Errors
    /// Nobody is answered while the replica stands in.
    pub(super) async fn fail_over(&mut self) -> Result<(), String> {
        let (primary, links) = (&self.cluster.redis, &self.cluster.links);
        let copying = Link::to((Ipv4Addr::LOCALHOST, primary.port()).into()).await;
        let replica = blocking(|| RedisServer::replica_of(copying.address().port()));
        blocking(|| replica.wait_until_it_follows());
        // It is told nothing more, and never will be: what was on its way is lost with the link.
        copying.set(Traffic::Swallowed);
        tokio::time::sleep(self.hold).await;
        blocking(|| primary.kill());
        copying.set(Traffic::Cut);
        self.moment().await;
        blocking(|| replica.promote());
        lead(links, replica.port()).await;
        self.load.wait_for_answers(ANSWERS_BETWEEN).await?;
        if let Some(first) = self.faults.last_mut() {
            (first.kind, first.to) = (Kind::RedisEmptied, Instant::now());
        }
        let now = Instant::now();
        self.faults.push(Fault { kind: Kind::Other, from: now, to: now });
        blocking(|| {
            primary.restart_as_replica_of(replica.port());
            primary.wait_until_it_follows();
            replica.kill();
            primary.promote();
        });
        lead(links, primary.port()).await;
        Ok(())
    }
}

/// Connections that there are end, and new ones go to this port.
async fn lead(links: &[Links], port: u16) {
    for way in links {
        way.redis.set(Traffic::Cut);
        way.redis.lead_to((Ipv4Addr::LOCALHOST, port).into());
    }
    tokio::time::sleep(super::CUT).await;
    links.iter().for_each(|way| way.redis.set(Traffic::Flows));
}
