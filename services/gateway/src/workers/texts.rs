//! Texts on their way to a tokenizer: how many one tenant may have there, so that its long ones do not keep the others'
//! waiting. It is before admission: nothing is reserved yet, and nothing is charged for it.
//!
//! Of one tenant, texts of so many bytes together are at workers at the same time; a longer one goes alone. The others wait
//! here in the order in which they came, so many of them, and beyond that they are refused. Whatever becomes of a call,
//! dropping its [`Turn`] gives back what it had.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{Detail, Fault, Reason, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::WorkersConfig, parse::Input};

/// The setting that a refusal names.
const LIMIT: &str = "workers.tokenize_texts_per_tenant_max";
/// A text does not take long.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Clone)]
pub struct Texts {
    inner: Arc<Inner>,
}

struct Inner {
    bytes_max: u32,
    texts_max: usize,
    /// Of tenants that have any.
    tenants: Mutex<HashMap<TenantId, Crowd>>,
}

struct Crowd {
    /// A permit for each byte that may be at workers.
    room: Arc<Semaphore>,
    /// Texts at workers and waiting.
    texts: usize,
}

/// The right to have a text tokenized now.
pub struct Turn {
    _room: OwnedSemaphorePermit,
    _place: Place,
}

/// One of a tenant's texts.
struct Place {
    tenant: TenantId,
    inner: Arc<Inner>,
}

impl Texts {
    pub fn new(config: &WorkersConfig) -> Self {
        let inner = Inner {
            bytes_max: config.tokenize_bytes_per_tenant_max,
            texts_max: config.tokenize_texts_per_tenant_max,
            tenants: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until it is this text's turn.
    ///
    /// # Errors
    /// `RATE_LIMITED` at once, when the tenant has too many texts already.
    pub async fn turn(&self, tenant: TenantId, bytes: usize) -> Result<Turn, Fault> {
        let (place, room) = self.place(tenant)?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.inner.bytes_max);
        let room = room.acquire_many_owned(bytes).await.map_err(|_| Fault::internal())?;
        Ok(Turn { _room: room, _place: place })
    }

    fn place(&self, tenant: TenantId) -> Result<(Place, Arc<Semaphore>), Fault> {
        let mut tenants = self.inner.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = tenants
            .entry(tenant)
            .or_insert_with(|| Crowd { room: Arc::new(Semaphore::new(self.inner.bytes_max as usize)), texts: 0 });
        if crowd.texts >= self.inner.texts_max {
            return Err(self.full());
        }
        crowd.texts += 1;
        Ok((Place { tenant, inner: Arc::clone(&self.inner) }, Arc::clone(&crowd.room)))
    }

    fn full(&self) -> Fault {
        let most = self.inner.texts_max;
        let words = format!("{most} texts of this tenant are being tokenized or wait for it here, which is the most");
        let quota = Detail::Quota { subject: LIMIT.to_owned(), description: format!("{LIMIT} is {most}") };
        Fault::new(Reason::RateLimited, words).detail(quota).retry_after(RETRY_AFTER)
    }
}

/// What there is to tokenize.
pub fn bytes(input: &Input) -> usize {
    match input {
        Input::Prompt(text) => text.len(),
        Input::Chat(messages) => messages.iter().map(|(role, content)| role.len() + content.len()).sum(),
        Input::Tokens(_) => 0,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tenants = self.inner.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(crowd) = tenants.get_mut(&self.tenant) else { return };
        crowd.texts -= 1;
        if crowd.texts == 0 {
            tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn texts(bytes_max: u32, texts_max: usize) -> Texts {
        Texts { inner: Arc::new(Inner { bytes_max, texts_max, tenants: Mutex::default() }) }
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn bytes_at_workers_are_bounded_for_each_tenant_and_a_longer_text_goes_alone() {
        let texts = texts(100, 9);
        let now = |of, bytes| texts.turn(tenant(of), bytes).now_or_never().map(|turn| turn.expect("not refused"));
        let (first, second) = (now(1, 60), now(1, 40));
        assert!(first.is_some() && second.is_some());
        assert!(now(1, 1).is_none(), "its bytes are used up");
        assert!(now(2, 1_000_000).is_some(), "another tenant has its own");
        drop(second);
        assert!(now(1, 41).is_none() && now(1, 40).is_some());
        drop(first);
        let long = now(1, 1_000_000).expect("alone");
        assert!(now(1, 1).is_none());
        drop(long);
        assert!(texts.inner.tenants.lock().expect("unpoisoned").is_empty(), "nobody is remembered");
    }

    #[test]
    fn too_many_are_refused_and_whoever_gives_up_waiting_leaves_nothing_behind() {
        let texts = texts(10, 2);
        let inside = texts.turn(tenant(1), 10).now_or_never().expect("its turn").expect("not refused");
        let mut waiting = Box::pin(texts.turn(tenant(1), 10));
        assert!(waiting.as_mut().now_or_never().is_none());
        let refused = texts.turn(tenant(1), 1).now_or_never().expect("at once").err().expect("refused");
        assert_eq!((refused.reason, refused.retry_hint()), (Reason::RateLimited, Some(RETRY_AFTER)));
        assert!(
            refused.details.iter().any(|detail| matches!(detail, Detail::Quota { subject, .. } if subject == LIMIT))
        );
        drop(waiting);
        assert!(texts.turn(tenant(1), 1).now_or_never().is_none(), "there is a place to wait again");
        drop(inside);
        assert!(texts.turn(tenant(1), 10).now_or_never().is_some());
        assert!(texts.inner.tenants.lock().expect("unpoisoned").is_empty());
    }
}
