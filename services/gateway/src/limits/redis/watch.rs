//! Looks several times a second whether Redis has forgotten, and then hands over what runs here; says again what Redis has
//! not heard.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::time::MissedTickBehavior;

use super::Shared;

/// Between two looks; several of them fit into the time for which nobody asks the ledger after a loss.
const LOOKS_WHILE_SETTLING: u32 = 5;
/// Calls at the same time.
const AT_ONCE: usize = 32;

pub async fn watch(shared: Arc<Shared>) {
    let interval = (shared.options.settling / LOOKS_WHILE_SETTLING).max(Duration::from_millis(10));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // The settles come first: what has ended needs no hand-over.
        let unsaid = shared.live.unsaid(interval);
        stream::iter(unsaid)
            .for_each_concurrent(AT_ONCE, async |(ask, used)| {
                if let Err(error) = shared.settle(&ask, used).await {
                    tracing::debug!(request_id = %ask.id, %error, "not settled yet");
                }
            })
            .await;
        let Ok(generation) = shared.look_at_all().await else { continue };
        let lost = shared.live.all_lost(&generation.token);
        if lost.is_empty() {
            continue;
        }
        tracing::warn!(running = lost.len(), "Redis has lost data: what runs here is handed over");
        // What cannot be handed over now is at the next look.
        stream::iter(lost)
            .for_each_concurrent(AT_ONCE, async |ask| {
                if let Err(error) = shared.adopt(&ask).await {
                    tracing::debug!(request_id = %ask.id, %error, "not handed over yet");
                }
            })
            .await;
    }
}
