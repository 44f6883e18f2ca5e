//! Makes the planned changes of aliases whose time has come. Every gateway looks; the store sees to it that each change
//! happens once.

use std::time::Duration;

use domain::{Slug, TenantId};
use store::{ScheduleState, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const AT_ONCE: u16 = 64;

/// Looks at intervals until `stop`. `changed` is told what has changed, before the next change is made.
pub fn start(
    store: Store,
    interval: Duration,
    changed: impl Fn(TenantId, &Slug) + Send + Sync + 'static,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let looking = async {
            loop {
                tokio::time::sleep(interval).await;
                run_due(&store, &changed).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = looking => {}
        }
    })
}

async fn run_due(store: &Store, changed: &(impl Fn(TenantId, &Slug) + Send + Sync)) {
    let due = match store.platform().due_schedules(AT_ONCE).await {
        Ok(due) => due,
        Err(error) => return tracing::warn!(%error, "cannot see which planned changes are due"),
    };
    for (tenant, id) in due {
        match store.tenant(tenant).run_schedule(id).await {
            Ok(Some((adapter, schedule))) => {
                changed(tenant, &adapter);
                match schedule.state {
                    ScheduleState::Failed => {
                        tracing::warn!(%tenant, %adapter, %id, outcome = schedule.outcome, "planned change failed");
                    }
                    _ => tracing::info!(%tenant, %adapter, %id, "planned change made"),
                }
            }
            // Another gateway was first.
            Ok(None) => {}
            Err(error) => tracing::warn!(%tenant, %id, %error, "planned change not made yet"),
        }
    }
}
