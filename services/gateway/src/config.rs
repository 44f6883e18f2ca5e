//! What a gateway may be told. `defaults.toml` documents every setting.

use std::{collections::BTreeMap, time::Duration};

use chassis::{
    config::{Secret, Validate},
    server::ListenConfig,
    telemetry::TelemetryConfig,
};
use domain::Limits;
use serde::{Deserialize, Serialize};
use store::StoreConfig;

/// The compiled-in defaults; also the documentation of every key.
pub const DEFAULTS: &str = include_str!("../defaults.toml");
/// Environment variables that override begin with this.
pub const ENV_PREFIX: &str = "BANYAN_GATEWAY_";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    pub name: String,
    pub operator_token: Secret,
    pub auditor_token: Secret,
    pub key_pepper: Secret,
    pub cluster_token: Secret,
    pub postgres: Secret,
    pub redis: Secret,
    pub registry: String,
    pub registry_options: BTreeMap<String, Secret>,
    pub listen: ListenConfig,
    pub admin_listen: ListenConfig,
    pub tenant_limits: Limits,
    pub calls: CallsConfig,
    pub http: HttpConfig,
    pub auth: AuthConfig,
    pub changes: ChangesConfig,
    pub audit: AuditConfig,
    pub limits: LimitsConfig,
    pub generate: GenerateConfig,
    pub idempotency: IdempotencyConfig,
    pub models: ModelsConfig,
    pub rollouts: RolloutsConfig,
    pub shadow: ShadowConfig,
    pub ledger: LedgerConfig,
    pub prices: PricesConfig,
    pub workers: WorkersConfig,
    pub uploads: UploadsConfig,
    pub store: StoreConfig,
    pub telemetry: TelemetryConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsConfig {
    pub message_bytes_max: usize,
    pub deadline_ms: u64,
    pub deadline_margin_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub body_read_ms: u64,
    pub allowed_origins: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    pub cache_ttl_ms: u64,
    pub refresh_ms: u64,
    pub cache_max: usize,
    pub stale_max_ms: u64,
    pub unknown_ttl_ms: u64,
    pub unknown_max: usize,
    pub lookups_max: usize,
    pub lookups_waiting_max: usize,
    pub lookup_timeout_ms: u64,
    pub uses_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    pub refusals_per_minute: u32,
    pub export_batch: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesConfig {
    pub poll_ms: u64,
    pub batch_max: u16,
    pub heartbeat_ms: u64,
    pub keep_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    pub redis_prefix: String,
    pub redis_timeout_ms: u64,
    pub breaker_failures_max: u32,
    pub breaker_pause_ms: u64,
    pub ledger_timeout_ms: u64,
    pub settling_ms: u64,
    pub slice_hot_per_second: u32,
    pub slice_valid_ms: u64,
    pub slice_lease_ms: u64,
    pub slice_parts: u32,
    pub lease_ms: u64,
    pub renew_ms: u64,
    pub errands_max: usize,
    pub try_ms: u64,
    pub try_requests_max: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateConfig {
    pub max_tokens_default: u32,
    pub max_tokens_max: u32,
    pub grant_tokens: u32,
    pub deadline_default_ms: u64,
    pub deadline_max_ms: u64,
    pub stream_buffer_max: usize,
    pub input_bytes_max: usize,
    pub messages_max: usize,
    pub response_format_bytes_max: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotencyConfig {
    pub window_ms: u64,
    pub claim_ms: u64,
    pub renew_ms: u64,
    pub poll_ms: u64,
    pub running_max: usize,
    pub answer_bytes_max: usize,
    pub requests_per_tenant_max: u32,
    pub bytes_per_tenant_max: u64,
    pub replays_per_minute: u32,
    pub sweep_interval_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsConfig {
    pub cache_max: usize,
    pub staleness_max_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutsConfig {
    pub pins_max: u32,
    pub schedules_max: u32,
    pub schedule_interval_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowConfig {
    pub queue_max: usize,
    pub running_max: usize,
    pub deadline_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    pub dir: String,
    pub requests_max: usize,
    pub segment_bytes: u64,
    pub bytes_max: u64,
    pub batch_max: usize,
    pub ship_interval_ms: u64,
    pub ship_wait_ms: u64,
    pub sync_wait_ms: u64,
    pub retry_ms: u64,
    pub sweep_interval_ms: u64,
    pub grace_ms: u64,
    pub orphan_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PricesConfig {
    pub refresh_ms: u64,
    pub stale_max_ms: u64,
    pub tenants_max: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkersConfig {
    pub urls: Vec<String>,
    pub check_interval_ms: u64,
    pub connect_timeout_ms: u64,
    pub call_timeout_ms: u64,
    pub probe_timeout_ms: u64,
    pub message_bytes_max: usize,
    pub in_flight_max: usize,
    pub discover_interval_ms: u64,
    pub peers_max: usize,
    pub keepalive_interval_ms: u64,
    pub keepalive_timeout_ms: u64,
    pub step_timeout_ms: u64,
    pub resumes_max: u32,
    pub resume_ms: u64,
    pub hot_share_percent: u32,
    pub hot_half_life_ms: u64,
    pub hot_keys_max: usize,
    pub cold_load: usize,
    pub tokenize_bytes_per_tenant_max: u32,
    pub tokenize_texts_per_tenant_max: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadsConfig {
    pub concurrent_max: usize,
    pub bytes_in_flight_max: u64,
    pub weights_bytes_max: u64,
    pub deadline_ms: u64,
    pub write_lease_ms: u64,
    pub sweep_interval_ms: u64,
}

/// Longest that a gateway may answer with what an alias meant before.
const STALENESS_MS_MAX: u64 = 1_000;

/// Reads a setting in milliseconds.
pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Validate for GatewayConfig {
    fn faults(&self) -> Vec<String> {
        let set = |value: &Secret| !value.is_empty();
        let rules = [
            (set(&self.operator_token), "operator_token: must be set"),
            (set(&self.key_pepper), "key_pepper: must be set"),
            (set(&self.cluster_token), "cluster_token: must be set, and the same as the workers'"),
            (set(&self.postgres), "postgres: must be the URL of the database"),
            (!self.registry.is_empty(), "registry: must say where adapters are kept"),
            (!self.workers.urls.is_empty(), "workers.urls: must name at least one worker"),
            (!self.ledger.dir.is_empty(), "ledger.dir: must be a folder on a local disk, for this gateway alone"),
            (self.ledger.segment_bytes >= 1 << 20, "ledger.segment_bytes: must be at least 1 MiB"),
            (
                self.ledger.bytes_max / 4 >= self.ledger.segment_bytes,
                "ledger.bytes_max: must be at least four times segment_bytes",
            ),
            (self.ledger.orphan_ms >= self.ledger.grace_ms, "ledger.orphan_ms: must be at least grace_ms"),
            (
                self.limits.slice_valid_ms < self.limits.slice_lease_ms,
                "limits.slice_valid_ms: must be less than slice_lease_ms",
            ),
            (
                self.auth.cache_ttl_ms == 0 || self.auth.refresh_ms < self.auth.cache_ttl_ms,
                "auth.refresh_ms: must be less than cache_ttl_ms",
            ),
            (
                self.auditor_token.is_empty() || self.auditor_token.reveal() != self.operator_token.reveal(),
                "auditor_token: must be another one than operator_token",
            ),
            (self.limits.renew_ms < self.limits.lease_ms, "limits.renew_ms: must be less than lease_ms"),
            (self.idempotency.renew_ms < self.idempotency.claim_ms, "idempotency.renew_ms: must be less than claim_ms"),
            (
                self.idempotency.bytes_per_tenant_max >= self.idempotency.answer_bytes_max as u64,
                "idempotency.bytes_per_tenant_max: must be at least answer_bytes_max",
            ),
            (
                self.models.staleness_max_ms <= STALENESS_MS_MAX,
                "models.staleness_max_ms: must be at most 1000, so that every gateway follows a change within a second",
            ),
            (
                self.generate.max_tokens_default <= self.generate.max_tokens_max,
                "generate.max_tokens_default: must be at most max_tokens_max",
            ),
            (
                self.generate.deadline_default_ms <= self.generate.deadline_max_ms,
                "generate.deadline_default_ms: must be at most deadline_max_ms",
            ),
            (
                self.uploads.weights_bytes_max <= self.uploads.bytes_in_flight_max,
                "uploads.weights_bytes_max: must be at most bytes_in_flight_max",
            ),
        ];
        let mut faults: Vec<_> =
            rules.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault.to_owned()).collect();
        let limits = &self.tenant_limits;
        let positive = [
            ("tenant_limits.requests_per_minute", limits.requests_per_minute.into()),
            ("tenant_limits.input_tokens_per_minute", limits.input_tokens_per_minute.into()),
            ("tenant_limits.output_tokens_per_minute", limits.output_tokens_per_minute.into()),
            ("tenant_limits.concurrent_requests", limits.concurrent_requests.into()),
            ("tenant_limits.adapters_max", limits.adapters_max.into()),
            ("tenant_limits.adapter_bytes_max", limits.adapter_bytes_max),
            ("tenant_limits.adapter_rank_max", limits.adapter_rank_max.into()),
            ("calls.message_bytes_max", self.calls.message_bytes_max as u64),
            ("calls.deadline_ms", self.calls.deadline_ms),
            ("http.body_read_ms", self.http.body_read_ms),
            ("auth.cache_max", self.auth.cache_max as u64),
            ("auth.refresh_ms", self.auth.refresh_ms),
            ("auth.unknown_max", self.auth.unknown_max as u64),
            ("auth.lookups_max", self.auth.lookups_max as u64),
            ("auth.lookups_waiting_max", self.auth.lookups_waiting_max as u64),
            ("auth.lookup_timeout_ms", self.auth.lookup_timeout_ms),
            ("auth.uses_ms", self.auth.uses_ms),
            ("audit.refusals_per_minute", self.audit.refusals_per_minute.into()),
            ("audit.export_batch", self.audit.export_batch.into()),
            ("changes.poll_ms", self.changes.poll_ms),
            ("changes.batch_max", self.changes.batch_max.into()),
            ("changes.heartbeat_ms", self.changes.heartbeat_ms),
            ("changes.keep_ms", self.changes.keep_ms),
            ("limits.redis_timeout_ms", self.limits.redis_timeout_ms),
            ("limits.breaker_failures_max", self.limits.breaker_failures_max.into()),
            ("limits.breaker_pause_ms", self.limits.breaker_pause_ms),
            ("limits.slice_valid_ms", self.limits.slice_valid_ms),
            ("limits.slice_parts", self.limits.slice_parts.into()),
            ("limits.settling_ms", self.limits.settling_ms),
            ("limits.try_ms", self.limits.try_ms),
            ("limits.try_requests_max", self.limits.try_requests_max.into()),
            ("limits.ledger_timeout_ms", self.limits.ledger_timeout_ms),
            ("limits.renew_ms", self.limits.renew_ms),
            ("limits.errands_max", self.limits.errands_max as u64),
            ("generate.grant_tokens", self.generate.grant_tokens.into()),
            ("generate.max_tokens_default", self.generate.max_tokens_default.into()),
            ("generate.deadline_default_ms", self.generate.deadline_default_ms),
            ("generate.stream_buffer_max", self.generate.stream_buffer_max as u64),
            ("generate.input_bytes_max", self.generate.input_bytes_max as u64),
            ("generate.messages_max", self.generate.messages_max as u64),
            ("generate.response_format_bytes_max", self.generate.response_format_bytes_max as u64),
            ("idempotency.window_ms", self.idempotency.window_ms),
            ("idempotency.renew_ms", self.idempotency.renew_ms),
            ("idempotency.poll_ms", self.idempotency.poll_ms),
            ("idempotency.running_max", self.idempotency.running_max as u64),
            ("idempotency.answer_bytes_max", self.idempotency.answer_bytes_max as u64),
            ("idempotency.requests_per_tenant_max", self.idempotency.requests_per_tenant_max.into()),
            ("idempotency.replays_per_minute", self.idempotency.replays_per_minute.into()),
            ("idempotency.sweep_interval_ms", self.idempotency.sweep_interval_ms),
            ("ledger.requests_max", self.ledger.requests_max as u64),
            ("ledger.batch_max", self.ledger.batch_max as u64),
            ("ledger.ship_interval_ms", self.ledger.ship_interval_ms),
            ("ledger.ship_wait_ms", self.ledger.ship_wait_ms),
            ("ledger.sync_wait_ms", self.ledger.sync_wait_ms),
            ("ledger.retry_ms", self.ledger.retry_ms),
            ("ledger.sweep_interval_ms", self.ledger.sweep_interval_ms),
            ("ledger.grace_ms", self.ledger.grace_ms),
            ("rollouts.pins_max", self.rollouts.pins_max.into()),
            ("rollouts.schedules_max", self.rollouts.schedules_max.into()),
            ("rollouts.schedule_interval_ms", self.rollouts.schedule_interval_ms),
            ("shadow.queue_max", self.shadow.queue_max as u64),
            ("shadow.running_max", self.shadow.running_max as u64),
            ("shadow.deadline_ms", self.shadow.deadline_ms),
            ("prices.refresh_ms", self.prices.refresh_ms),
            ("prices.stale_max_ms", self.prices.stale_max_ms),
            ("prices.tenants_max", self.prices.tenants_max as u64),
            ("workers.check_interval_ms", self.workers.check_interval_ms),
            ("workers.connect_timeout_ms", self.workers.connect_timeout_ms),
            ("workers.call_timeout_ms", self.workers.call_timeout_ms),
            ("workers.probe_timeout_ms", self.workers.probe_timeout_ms),
            ("workers.message_bytes_max", self.workers.message_bytes_max as u64),
            ("workers.in_flight_max", self.workers.in_flight_max as u64),
            ("workers.discover_interval_ms", self.workers.discover_interval_ms),
            ("workers.peers_max", self.workers.peers_max as u64),
            ("workers.keepalive_interval_ms", self.workers.keepalive_interval_ms),
            ("workers.keepalive_timeout_ms", self.workers.keepalive_timeout_ms),
            ("workers.step_timeout_ms", self.workers.step_timeout_ms),
            ("workers.hot_share_percent", self.workers.hot_share_percent.into()),
            ("workers.hot_half_life_ms", self.workers.hot_half_life_ms),
            ("workers.hot_keys_max", self.workers.hot_keys_max as u64),
            ("workers.tokenize_bytes_per_tenant_max", self.workers.tokenize_bytes_per_tenant_max.into()),
            ("workers.tokenize_texts_per_tenant_max", self.workers.tokenize_texts_per_tenant_max as u64),
            ("uploads.concurrent_max", self.uploads.concurrent_max as u64),
            ("uploads.weights_bytes_max", self.uploads.weights_bytes_max),
            ("uploads.deadline_ms", self.uploads.deadline_ms),
            ("uploads.write_lease_ms", self.uploads.write_lease_ms),
            ("uploads.sweep_interval_ms", self.uploads.sweep_interval_ms),
        ];
        let zeros = positive.into_iter().filter(|(_, value)| *value == 0);
        let origins = self.http.allowed_origins.iter().filter(|origin| !is_origin(origin));
        faults.extend(
            origins
                .map(|origin| format!("http.allowed_origins: `{origin}` is not scheme://host or scheme://host:port")),
        );
        faults.extend(zeros.map(|(key, _)| format!("{key}: must be at least 1")));
        faults
    }
}

/// As browsers send it (<https://fetch.spec.whatwg.org/#origin-header>).
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| {
        matches!(scheme, "http" | "https")
            && !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'*' | b'@'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_need_only_what_nobody_else_can_know() {
        let load = |text: &str| {
            let table = text.parse().expect("toml");
            chassis::config::load::<GatewayConfig>(DEFAULTS, None, "BANYAN_GATEWAY_TEST_NONE_", &table)
        };
        assert_eq!(load("").expect_err("incomplete").faults.len(), 7);
        let complete = "operator_token = 'o'\nkey_pepper = 'p'\ncluster_token = 'c'\npostgres = 'postgres://x'\n\
                        registry = 'r'\n[ledger]\ndir = 'l'\n[workers]\nurls = ['http://127.0.0.1:1']\n";
        let config = load(complete).expect("complete");
        assert_eq!(config.tenant_limits, Limits::default(), "defaults.toml and the code agree");
        let dumped = chassis::config::dump(&config);
        assert!(!dumped.contains("postgres://x"), "secrets are redacted");
        assert!(load(&format!("{complete}urlz = 1")).is_err());
    }
}
