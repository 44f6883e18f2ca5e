//! What the workers know of requests whose stream was lost.

use std::collections::HashMap;

use domain::RequestId;
use futures::future::join_all;

use super::Workers;
use crate::{config::ms, deadline::Deadline, meter::Counted};

/// What workers say of requests.
#[derive(Default)]
pub struct Known {
    /// What each has used, and whether it has ended.
    pub used: HashMap<RequestId, (Counted, bool)>,
    /// Every worker has answered.
    pub complete: bool,
}

impl Workers {
    /// Asks all of them, also those that are not well.
    pub async fn known_of(&self, requests: &[RequestId]) -> Known {
        let deadline = Deadline::in_time(ms(self.inner.config.call_timeout_ms));
        let peers = self.inner.directory.peers();
        let answers = join_all(peers.iter().map(|peer| peer.usage(requests, deadline))).await;
        let mut known = Known { used: HashMap::new(), complete: !answers.is_empty() };
        for answer in answers {
            let Ok(usages) = answer else {
                known.complete = false;
                continue;
            };
            for (request, counted, ended) in usages {
                // An answer that was carried on elsewhere counts there what it had before.
                let more =
                    known.used.get(&request).is_none_or(|(had, _)| had.completion_tokens < counted.completion_tokens);
                if more {
                    known.used.insert(request, (counted, ended));
                }
            }
        }
        known
    }
}
