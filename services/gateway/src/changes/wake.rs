//! Tells other gateways over Redis that something was committed, and hears it from them. The message says nothing: what
//! has changed stands in the database. One that is lost costs the time until the next reading.

use std::time::Duration;

use futures::StreamExt as _;
use redis::Client;
use tokio::sync::Notify;

/// Between two tries to reach Redis.
const RETRY: Duration = Duration::from_secs(1);

pub struct Wake {
    client: Client,
    channel: String,
    timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WakeError(#[from] redis::RedisError);

impl Wake {
    /// Does not connect yet. `timeout` is for one publication.
    pub fn new(url: &str, prefix: &str, timeout: Duration) -> Result<Self, WakeError> {
        Ok(Self { client: Client::open(url)?, channel: format!("{prefix}:changes"), timeout })
    }

    /// Passes every message on. Never ends.
    pub async fn listen(&self, heard: &Notify) {
        loop {
            if let Err(error) = self.listen_once(heard).await {
                tracing::debug!(%error, "not woken by Redis for now");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Publishes every call of `committed`. Never ends.
    pub async fn publish(&self, committed: &Notify) {
        let mut connection = None;
        loop {
            committed.notified().await;
            let published = tokio::time::timeout(self.timeout, async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => self.client.get_multiplexed_async_connection().await?,
                };
                redis::cmd("PUBLISH").arg(&self.channel).arg("").exec_async(&mut open).await?;
                Ok::<_, redis::RedisError>(open)
            });
            match published.await {
                Ok(Ok(open)) => connection = Some(open),
                Ok(Err(error)) => tracing::debug!(%error, "other gateways are not woken"),
                Err(_) => tracing::debug!("other gateways are not woken: Redis does not answer"),
            }
        }
    }

    async fn listen_once(&self, heard: &Notify) -> Result<(), redis::RedisError> {
        let mut subscription = self.client.get_async_pubsub().await?;
        subscription.subscribe(&self.channel).await?;
        // What was published before the subscription held.
        heard.notify_one();
        let mut messages = subscription.into_on_message();
        while messages.next().await.is_some() {
            heard.notify_one();
        }
        Ok(())
    }
}
