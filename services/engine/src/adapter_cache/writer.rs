//! Brings images to disk behind the back of those who serve them. What does not fit its short queue is not kept this
//! time: memory stays bounded, and the next load of that adapter offers it again.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::{AdapterCache, CacheKey};

/// The writer's thread; dropping it waits for the writes that it has taken.
pub(crate) struct CacheWriter<I> {
    jobs: Option<SyncSender<(CacheKey, I)>>,
    thread: Option<JoinHandle<()>>,
}

impl<I: Deref<Target = [u8]> + Send + 'static> CacheWriter<I> {
    /// At most `writes_max` images wait.
    pub fn start(cache: Arc<AdapterCache>, writes_max: usize) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(writes_max);
        let run = move || {
            kernels::lower_thread_priority();
            write_all(&cache, &receiver);
        };
        let thread = std::thread::Builder::new().name("adapter-cache".to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has the image kept if there is time for it. Never waits.
    pub fn write(&self, key: CacheKey, image: I) {
        if let Some(jobs) = &self.jobs
            && jobs.try_send((key, image)).is_err()
        {
            tracing::debug!(digest = %key.adapter.digest, "the adapter cache has no time for this one");
        }
    }
}

fn write_all<I: Deref<Target = [u8]>>(cache: &AdapterCache, jobs: &Receiver<(CacheKey, I)>) {
    if let Err(error) = cache.reconcile() {
        tracing::warn!(%error, "the adapter cache could not be put in order");
    }
    for (key, image) in jobs {
        if let Err(error) = cache.put(&key, &image) {
            tracing::warn!(digest = %key.adapter.digest, %error, "the adapter cache could not keep an adapter");
        }
    }
}

impl<I> Drop for CacheWriter<I> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the adapter cache crashed");
        }
    }
}
