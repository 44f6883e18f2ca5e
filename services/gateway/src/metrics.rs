//! What the gateway counts, as OpenTelemetry instruments. No tenant, model or key among the attributes: totals by tenant
//! come from the usage records.

use std::time::Duration;

use domain::Fault;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};
use store::{Outcome, UsageRecord};

/// Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    requests: Counter<u64>,
    refusals: Counter<u64>,
    resumes: Counter<u64>,
    tokens: Counter<u64>,
    first_token: Histogram<f64>,
    duration: Histogram<f64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = global::meter("gateway");
        Self {
            requests: meter.u64_counter("banyan.gateway.requests").with_unit("{request}").build(),
            refusals: meter.u64_counter("banyan.gateway.refusals").with_unit("{request}").build(),
            resumes: meter.u64_counter("banyan.gateway.resumes").with_unit("{resume}").build(),
            tokens: meter.u64_counter("banyan.gateway.tokens").with_unit("{token}").build(),
            first_token: meter.f64_histogram("banyan.gateway.time_to_first_token").with_unit("s").build(),
            duration: meter.f64_histogram("banyan.gateway.duration").with_unit("s").build(),
        }
    }
}

impl Metrics {
    pub fn refused(&self, fault: &Fault) {
        self.refusals.add(1, &[KeyValue::new("reason", fault.reason.as_str())]);
    }

    /// An answer goes on at another worker than before.
    pub fn resumed(&self) {
        self.resumes.add(1, &[]);
    }

    pub fn first_token(&self, waited: Duration) {
        self.first_token.record(waited.as_secs_f64(), &[]);
    }

    pub fn ended(&self, record: &UsageRecord) {
        let outcome = match record.outcome {
            Outcome::Finished(_) => "finished",
            Outcome::Cancelled => "cancelled",
            Outcome::DeadlineExceeded => "deadline_exceeded",
            Outcome::Failed => "failed",
        };
        let outcome = [KeyValue::new("outcome", outcome)];
        self.requests.add(1, &outcome);
        self.duration.record(record.duration.as_secs_f64(), &outcome);
        let cached = record.cached_prompt_tokens;
        for (kind, tokens) in [
            ("prompt", record.prompt_tokens.saturating_sub(cached)),
            ("cached_prompt", cached),
            ("completion", record.completion_tokens),
        ] {
            self.tokens.add(tokens, &[KeyValue::new("kind", kind)]);
        }
    }
}
