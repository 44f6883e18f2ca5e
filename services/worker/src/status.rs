//! Load, residency and health of the engine, as the wire and the health service want them.

use std::time::Duration;

use domain::{Fault, Reason};
use engine::EngineHandle;
use proto::worker as wire;

/// The base is on its way; loading takes seconds.
pub fn not_loaded() -> Fault {
    Fault::new(Reason::WorkerUnavailable, "the worker is still loading its base model")
        .retry_after(Duration::from_secs(1))
}

/// How residents are listed in a status.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// Those in use before all others: a list of tens of thousands is no message.
    pub residents_max: usize,
    /// The engine lists between two steps. Beyond this, the list is the one made last: a long step is no reason to be late.
    pub wait: Duration,
}

pub async fn of(name: &str, epoch: &str, engine: &EngineHandle, listing: Listing) -> wire::Status {
    let Listing { residents_max, wait } = listing;
    let listed = tokio::time::timeout(wait, engine.residents()).await;
    let listed = listed.unwrap_or_else(|_| engine.latest_residents());
    let status = engine.status();
    let (used, idle): (Vec<_>, Vec<_>) = listed.iter().partition(|resident| resident.leases > 0);
    let residents = used.into_iter().chain(idle).take(residents_max).map(|resident| wire::ResidentAdapter {
        adapter: Some(wire::AdapterPin {
            tenant_id: resident.key.tenant.to_string(),
            digest: resident.key.digest.to_string(),
        }),
        bytes: resident.bytes,
        leases: count(resident.leases),
        loading: resident.loading,
    });
    let tenants = engine.latest_tenants();
    let tenants = tenants.iter().map(|tenant| wire::TenantStatus {
        tenant_id: tenant.tenant.to_string(),
        running: count(tenant.running),
        waiting: count(tenant.waiting),
        kv_blocks: count(tenant.kv_blocks),
        service: tenant.service,
    });
    wire::Status {
        worker: name.to_owned(),
        running: count(status.running),
        waiting: count(status.waiting),
        waiting_max: count(status.waiting_max),
        kv_blocks_total: count(status.kv_blocks_total),
        kv_blocks_free: count(status.kv_blocks_free),
        kv_blocks_cached: count(status.kv_blocks_cached),
        adapter_bytes: status.adapter_bytes,
        adapter_bytes_max: status.adapter_bytes_max,
        residents: residents.collect(),
        prompt_tokens_total: status.totals.scheduler.prompt_tokens,
        cached_prompt_tokens_total: status.totals.scheduler.cached_prompt_tokens,
        completion_tokens_total: status.totals.completion_tokens,
        drafted_tokens_total: status.totals.drafted_tokens,
        accepted_tokens_total: status.totals.accepted_tokens,
        late_masks_total: status.totals.late_masks,
        preemptions_total: status.totals.scheduler.preemptions,
        displacements_total: status.totals.scheduler.displacements,
        tenants: tenants.collect(),
        taken_over_tokens_total: status.totals.taken_over_tokens,
        epoch: epoch.to_owned(),
        draining: engine.is_stopping(),
        steps_total: status.totals.steps,
    }
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
