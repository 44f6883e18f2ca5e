//! Looks several times a second whether Redis has forgotten, and then hands over what runs here and has it vouched for; says
//! again what Redis has not heard.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use tokio::time::MissedTickBehavior;

use super::{Shared, generation::Generation};

/// Between two looks; several of them fit into the time for which nobody asks the ledger after a loss.
const LOOKS_WHILE_SETTLING: u32 = 5;
/// Calls at the same time.
const AT_ONCE: usize = 32;

pub async fn watch(shared: Arc<Shared>) {
    let interval = (shared.options.settling / LOOKS_WHILE_SETTLING).max(Duration::from_millis(10));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Before the first one nothing ran here.
    let mut before: Option<Arc<str>> = None;
    loop {
        ticks.tick().await;
        // The settles come first: what has ended needs no hand-over.
        say_again(&shared, interval).await;
        let Ok(generation) = shared.look().await else { continue };
        let changed = before.is_some_and(|before| before != generation.token);
        before = Some(Arc::clone(&generation.token));
        let handed_over = hand_over(&shared, &generation).await;
        if changed | shared.generations.take_straggler() || handed_over != HandedOver::Nothing {
            if changed {
                // It is in the ledger too, if everything is.
                shared.generations.missed_none();
            }
            if handed_over == HandedOver::Failed || !posts_in_time(&shared, &generation).await {
                shared.generations.missed_one();
            }
        }
        if let Err(error) = shared.begin_where_uncounted(&generation).await {
            tracing::debug!(%error, "no other generation yet");
        }
    }
}

async fn say_again(shared: &Shared, interval: Duration) {
    let unsaid = shared.live.unsaid(interval);
    stream::iter(unsaid)
        .for_each_concurrent(AT_ONCE, async |(ask, used)| {
            if let Err(error) = shared.settle(&ask, used).await {
                tracing::debug!(request_id = %ask.id, %error, "not settled yet");
            }
        })
        .await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandedOver {
    Nothing,
    All,
    /// What could not be handed over is at the next look.
    Failed,
}

async fn hand_over(shared: &Shared, generation: &Generation) -> HandedOver {
    let lost = shared.live.all_lost(&generation.token);
    if lost.is_empty() {
        return HandedOver::Nothing;
    }
    tracing::warn!(running = lost.len(), "Redis has lost data: what runs here is handed over");
    let adopt = |ask| async move {
        let adopted = shared.adopt(&ask).await;
        adopted.inspect_err(|error| tracing::debug!(request_id = %ask.id, %error, "not handed over yet")).is_ok()
    };
    let adopted: Vec<_> = stream::iter(lost).map(adopt).buffer_unordered(AT_ONCE).collect().await;
    if adopted.into_iter().all(|adopted| adopted) { HandedOver::All } else { HandedOver::Failed }
}

/// Whether everything that was let through here is in the ledger before anybody reads it for this generation.
async fn posts_in_time(shared: &Shared, generation: &Generation) -> bool {
    let posted = async {
        if let Some(log) = shared.log.get() {
            log.posted().await;
        }
    };
    tokio::time::timeout_at(generation.due.into(), posted).await.is_ok() && Instant::now() <= generation.due
}
