//! Ends requests whose gateway did not: killed before it could, or gone for good. Workers know for a while what a request
//! has used whose stream was lost; that is posted. What no worker knows of expires, and nothing is charged for it.
//!
//! A gateway ends its own as soon as it is back, and those of others when they are long overdue. When all of an earlier
//! process of its own are ended, what that one had charged to budgets is put right ([`RateLimits::close_process`]).

use std::{sync::Arc, time::Duration};

use domain::RequestId;
use store::{End, LedgerEntry, OpenHold, Outcome, Store, StoreError};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{processes::Processes, state::State};
use crate::{
    config::{LedgerConfig, ms},
    limits::RateLimits,
    workers::{Known, Workers},
};

/// Requests of one round.
const ROUND_MAX: u16 = 256;

/// What there is of this gateway from before this process.
pub struct Earlier {
    pub gateway: Uuid,
    /// Requests of this gateway before it have lost their process.
    pub border: RequestId,
    pub processes: Processes,
    pub limits: Arc<dyn RateLimits>,
}

/// What a round has come to.
struct Round {
    closed: u64,
    /// Of requests before the border none is open any more.
    none_left: bool,
}

/// Never ends.
pub async fn keep_closing(
    store: Store,
    workers: Workers,
    state: Arc<State>,
    mut earlier: Earlier,
    config: LedgerConfig,
) {
    // What the log knows of ends comes first.
    let replayed = *state.written().borrow();
    let mut shipped = state.shipped().subscribe();
    if shipped.wait_for(|shipped| *shipped >= replayed).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        match close_some(&store, &workers, (earlier.gateway, earlier.border), &config).await {
            Ok(Round { none_left: true, .. }) => put_right(&mut earlier).await,
            Ok(Round { closed: 0, .. }) => {}
            Ok(Round { closed, .. }) => tracing::info!(closed, "requests without an end are ended"),
            Err(error) => tracing::warn!(%error, "requests without an end are not ended yet"),
        }
        tokio::time::sleep(ms(config.sweep_interval_ms)).await;
    }
}

async fn close_some(
    store: &Store,
    workers: &Workers,
    (gateway, border): (Uuid, RequestId),
    config: &LedgerConfig,
) -> Result<Round, StoreError> {
    let (own, any) = (ms(config.grace_ms), ms(config.orphan_ms));
    let holds = store.platform().open_holds(gateway, border, own, any, ROUND_MAX).await?;
    let is_earlier = |open: &OpenHold| open.gateway == gateway && open.hold.request < border;
    let none_left = holds.len() < usize::from(ROUND_MAX) && !holds.iter().any(is_earlier);
    if holds.is_empty() {
        return Ok(Round { closed: 0, none_left });
    }
    let ids: Vec<_> = holds.iter().map(|open| open.hold.request).collect();
    let known = workers.known_of(&ids).await;
    let ended: Vec<_> = holds.into_iter().filter_map(|open| end_of(open, &known, own)).collect();
    let closed = if ended.is_empty() { 0 } else { store.platform().post(gateway, &ended).await?.written };
    Ok(Round { closed, none_left })
}

/// A process is forgotten when a look has found nothing of it: what it had sent to Redis when it died may have come after
/// the look before.
async fn put_right(earlier: &mut Earlier) {
    for gone in earlier.processes.earlier().to_vec() {
        match earlier.limits.close_process(gone).await {
            Ok(false) => {
                tracing::info!(process = %gone, "what a process that is gone had charged to budgets is put right")
            }
            Ok(true) => {
                if let Err(error) = earlier.processes.forget(gone) {
                    tracing::warn!(%error, "it is not written down that a process was put right");
                }
            }
            Err(error) => tracing::warn!(process = %gone, %error, "its charges to budgets are not put right yet"),
        }
    }
}

/// `None`: it is too early to say.
fn end_of(open: OpenHold, known: &Known, grace: Duration) -> Option<LedgerEntry> {
    let hold = open.hold;
    let late = OffsetDateTime::now_utc() > hold.deadline + grace;
    match known.used.get(&hold.request) {
        Some((used, ended)) if *ended || late => {
            let mut record = hold.record();
            record.worker.clone_from(&used.worker);
            record.prompt_tokens = used.prompt_tokens;
            record.cached_prompt_tokens = used.cached_prompt_tokens.min(used.prompt_tokens);
            record.completion_tokens = used.completion_tokens;
            record.outcome = Outcome::Failed;
            Some(LedgerEntry::Ended(hold, End::Posted(Box::new(record))))
        }
        Some(_) => None,
        None if late || known.complete => Some(LedgerEntry::Ended(hold, End::Expired)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{ledger::record::tests::hold, meter::Counted};

    #[test]
    fn an_end_is_what_workers_know_and_nothing_is_decided_too_early() {
        let counted =
            Counted { worker: "one".into(), prompt_tokens: 10, cached_prompt_tokens: 4, completion_tokens: 5 };
        let now = OffsetDateTime::now_utc();
        let end = |running: bool, knows: Option<bool>, complete: bool| {
            let deadline = if running { now + time::Duration::HOUR } else { now - time::Duration::HOUR };
            let open = OpenHold { hold: store::Hold { deadline, ..hold() }, gateway: Uuid::nil() };
            let used = knows.map(|ended| (open.hold.request, (counted.clone(), ended)));
            let known = Known { used: used.into_iter().collect::<HashMap<_, _>>(), complete };
            match end_of(open, &known, Duration::from_secs(60)) {
                None => "wait",
                Some(LedgerEntry::Ended(_, End::Posted(record))) => {
                    assert_eq!((record.prompt_tokens, record.completion_tokens), (10, 5));
                    "posted"
                }
                Some(LedgerEntry::Ended(_, End::Expired)) => "expired",
                Some(_) => "wrong",
            }
        };
        assert_eq!(end(true, Some(true), false), "posted");
        assert_eq!(end(true, Some(false), true), "wait", "it still runs there");
        assert_eq!(end(false, Some(false), true), "posted", "and is over its time");
        assert_eq!(end(true, None, false), "wait", "a worker has not answered");
        assert_eq!(end(true, None, true), "expired");
        assert_eq!(end(false, None, false), "expired");
    }
}
