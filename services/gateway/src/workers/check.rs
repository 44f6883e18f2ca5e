//! Looks after the workers: asks each one at intervals how it is, and what base it has when it comes (back).

use std::{collections::HashMap, sync::Arc};

use domain::Digest;
use futures::future::join_all;
use proto::worker as wire;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    BaseModel, Inner,
    peer::{Peer, Seen},
};
use crate::{config::ms, deadline::Deadline};

pub async fn keep_looking(workers: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ms(workers.config.check_interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = workers.look.notified() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look_at_all(&workers) => {}
        }
        let well = workers.directory.peers().iter().any(|peer| peer.is_well());
        workers.well.send_if_modified(|before| std::mem::replace(before, well) != well);
    }
}

async fn look_at_all(workers: &Inner) {
    let peers = workers.directory.peers();
    join_all(peers.iter().map(|peer| look(workers, peer))).await;
}

async fn look(workers: &Inner, peer: &Peer) {
    let deadline = Deadline::in_time(ms(workers.config.call_timeout_ms));
    let seen = match peer.status(deadline).await {
        Ok(status) => {
            // One that was restarted may have another base.
            let same = peer.is_well() && peer.seen().epoch == status.epoch;
            let well = !status.draining && (same || has_our_base(workers, peer, deadline).await);
            seen(status, well, peer.own_load())
        }
        Err(failure) => {
            tracing::debug!(worker = peer.url(), cause = %failure, "worker does not answer");
            Seen::default()
        }
    };
    let (well, name) = (seen.well, seen.name.clone());
    if peer.update(seen) != well {
        tracing::info!(worker = peer.url(), name, well, "worker changed");
    }
}

fn seen(status: wire::Status, well: bool, own_load: usize) -> Seen {
    let resident = |resident: wire::ResidentAdapter| {
        let digest = resident.adapter?.digest.parse::<Digest>().ok()?;
        (!resident.loading).then_some((digest, resident.leases))
    };
    // Tenants may have the same adapter.
    let mut residents = HashMap::new();
    for (digest, leases) in status.residents.into_iter().filter_map(resident) {
        *residents.entry(digest).or_default() += leases;
    }
    let load = status.running.saturating_add(status.waiting) as usize;
    Seen {
        well,
        name: status.worker,
        waiting: status.waiting,
        waiting_max: status.waiting_max,
        epoch: status.epoch,
        others: load.saturating_sub(own_load),
        residents: Arc::new(residents),
    }
}

/// The first worker that answers decides which base this gateway serves; the others must have the same.
async fn has_our_base(workers: &Inner, peer: &Peer, deadline: Deadline) -> bool {
    let base = match peer.base(deadline).await {
        Ok(base) => base,
        Err(failure) => {
            tracing::warn!(worker = peer.url(), cause = %failure, "worker does not tell its base");
            return false;
        }
    };
    let Ok(digest) = base.digest.parse::<Digest>() else {
        tracing::error!(worker = peer.url(), "worker tells a malformed base digest");
        return false;
    };
    let inventory = match serde_json::from_slice::<adapters::Base>(&base.inventory_json) {
        Ok(inventory) => inventory,
        Err(error) => {
            tracing::error!(worker = peer.url(), %error, "worker tells an unreadable inventory of its base");
            return false;
        }
    };
    let ours = workers.base.get_or_init(|| {
        tracing::info!(worker = peer.url(), base = %digest, "base model known");
        Arc::new(BaseModel { digest, context_length: base.context_length, inventory })
    });
    if ours.digest != digest {
        tracing::error!(worker = peer.url(), theirs = %digest, ours = %ours.digest, "worker refused: it has another base");
    }
    ours.digest == digest
}
