//! Works off a bounded inbox: several entries at a time, until everybody who could send is gone or the process stops;
//! what was accepted until then is still done.

use std::future::Future;

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub async fn work_off<T, F: Future<Output = ()>>(
    mut inbox: mpsc::Receiver<T>,
    at_once: usize,
    stop: CancellationToken,
    act: impl Fn(T) -> F,
) {
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            entry = inbox.recv(), if open && running.len() < at_once => match entry {
                Some(entry) => running.push(act(entry)),
                None => open = false,
            },
            Some(()) = running.next(), if !running.is_empty() => {}
            () = stop.cancelled(), if !inbox.is_closed() => inbox.close(),
        }
    }
}
