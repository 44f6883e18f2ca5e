//! Gives usage records out to writers: those of one tenant that wait go together, tenants in the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
};

use domain::TenantId;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Entry;

/// What was taken out of the queue and has no writer yet.
#[derive(Default)]
struct Backlog {
    turns: VecDeque<TenantId>,
    waiting: HashMap<TenantId, Vec<Entry>>,
    len: usize,
}

/// Writes what comes, at most so many tenants' records at a time and at most `batch_max` of each, until everybody who
/// could send is gone or the process stops; what was accepted until then is still written. Takes no more than `batch_max`
/// records out of the queue before they have a writer, so the queue's bound holds.
pub async fn work_off<F: Future<Output = ()>>(
    mut inbox: mpsc::Receiver<Entry>,
    writers_max: usize,
    batch_max: usize,
    stop: CancellationToken,
    write: impl Fn(TenantId, Vec<Entry>) -> F,
) {
    let (mut running, mut backlog, mut arrived) = (FuturesUnordered::new(), Backlog::default(), Vec::new());
    let mut open = true;
    while open || !running.is_empty() {
        let room = batch_max - backlog.len;
        tokio::select! {
            count = inbox.recv_many(&mut arrived, room), if open && room > 0 => {
                open = count > 0;
                arrived.drain(..).for_each(|entry| backlog.push(entry));
            }
            Some(()) = running.next(), if !running.is_empty() => {}
            () = stop.cancelled(), if !inbox.is_closed() => inbox.close(),
        }
        while running.len() < writers_max
            && let Some((tenant, entries)) = backlog.pop()
        {
            running.push(write(tenant, entries));
        }
    }
}

impl Backlog {
    fn push(&mut self, entry: Entry) {
        let waiting = self.waiting.entry(entry.tenant).or_default();
        if waiting.is_empty() {
            self.turns.push_back(entry.tenant);
        }
        waiting.push(entry);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<(TenantId, Vec<Entry>)> {
        let tenant = self.turns.pop_front()?;
        let entries = self.waiting.remove(&tenant)?;
        self.len -= entries.len();
        Some((tenant, entries))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use domain::{ApiKeyId, Digest, RequestId};
    use store::{Outcome, UsageRecord};
    use tokio::sync::{Semaphore, oneshot};
    use uuid::Uuid;

    use super::*;

    fn tenant(id: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(id))
    }

    fn entry(of: u128) -> Entry {
        let record = UsageRecord {
            request: RequestId::new(Uuid::now_v7()),
            api_key: ApiKeyId::new(Uuid::nil()),
            model: "base".to_owned(),
            adapter_digest: None,
            base_digest: Digest::new([0; 32]),
            worker: String::new(),
            prompt_tokens: 1,
            cached_prompt_tokens: 0,
            completion_tokens: 1,
            outcome: Outcome::Cancelled,
            first_token: None,
            duration: Duration::ZERO,
        };
        Entry { tenant: tenant(of), record, written: oneshot::channel().0 }
    }

    #[tokio::test]
    async fn what_waits_for_a_writer_goes_together_and_nothing_is_lost() {
        let (sender, inbox) = mpsc::channel(16);
        // One writer and no room for more than four: two of tenant 1 and one each of 2 and 3, then the rest.
        for of in [1, 2, 1, 3, 2, 2] {
            sender.try_send(entry(of)).expect("room");
        }
        drop(sender);
        let written = RefCell::new(Vec::new());
        let write = |tenant, entries: Vec<Entry>| {
            written.borrow_mut().push((tenant, entries.len()));
            tokio::task::yield_now()
        };
        work_off(inbox, 1, 4, CancellationToken::new(), write).await;
        assert_eq!(written.into_inner(), [(tenant(1), 2), (tenant(2), 3), (tenant(3), 1)]);
    }

    #[tokio::test]
    async fn a_stop_lets_accepted_records_be_written() {
        let (sender, inbox) = mpsc::channel(16);
        let (stop, gate, written) = (CancellationToken::new(), Semaphore::new(0), RefCell::new(0));
        let write = |_, entries: Vec<Entry>| {
            let (gate, written) = (&gate, &written);
            async move {
                gate.acquire().await.expect("open").forget();
                *written.borrow_mut() += entries.len();
            }
        };
        (1..=3).for_each(|of| sender.try_send(entry(of)).expect("room"));
        stop.cancel();
        gate.add_permits(3);
        work_off(inbox, 2, 1, stop, write).await;
        assert_eq!(written.into_inner(), 3);
        assert!(sender.is_closed());
    }
}
