//! Logs to stderr (text or JSON), spans and metrics over OTLP when an endpoint is configured.
//! Never prompts, completions or keys: callers put ids, digests and counts into fields, nothing else.

use std::{io::IsTerminal as _, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What a process reports, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// `service.name` of spans and metrics.
    pub service_name: String,
    pub log_format: LogFormat,
    /// `tracing` directives, for example `info,gateway=debug`.
    pub log_filter: String,
    /// OTLP over gRPC, for example `http://127.0.0.1:4317`; empty exports nothing.
    pub otlp_endpoint: String,
    pub otlp_timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service_name: "banyan".to_owned(),
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            otlp_endpoint: String::new(),
            otlp_timeout_ms: 3_000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log_filter `{filter}`: {source}")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("otlp_endpoint `{endpoint}`: {source}")]
    Exporter { endpoint: String, source: opentelemetry_otlp::ExporterBuildError },
    #[error("telemetry was started twice in one process")]
    Twice,
}

/// Flushes what is buffered when dropped. Keep it until the process ends.
#[must_use]
pub struct TelemetryGuard {
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        // A collector that is gone must not keep the process from ending; there is nobody left to tell.
        if let Some(tracer) = &self.tracer {
            let _ = tracer.shutdown_with_timeout(Duration::from_secs(3));
        }
        if let Some(meter) = &self.meter {
            let _ = meter.shutdown_with_timeout(Duration::from_secs(3));
        }
    }
}

/// Installs the process-wide subscriber. Call once, inside the Tokio runtime.
///
/// # Errors
/// A wrong filter or endpoint, or a second call.
pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&config.log_filter)
        .map_err(|source| TelemetryError::Filter { filter: config.log_filter.clone(), source })?;
    let logs = match config.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let (tracer, meter) = providers(config)?;
    let spans = tracer.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("banyan")));
    tracing_subscriber::registry().with(filter).with(logs).with(spans).try_init().map_err(|_| TelemetryError::Twice)?;
    if let Some(meter) = &meter {
        opentelemetry::global::set_meter_provider(meter.clone());
    }
    Ok(TelemetryGuard { tracer, meter })
}

fn providers(
    config: &TelemetryConfig,
) -> Result<(Option<SdkTracerProvider>, Option<SdkMeterProvider>), TelemetryError> {
    if config.otlp_endpoint.is_empty() {
        return Ok((None, None));
    }
    let fault = |source| TelemetryError::Exporter { endpoint: config.otlp_endpoint.clone(), source };
    let timeout = Duration::from_millis(config.otlp_timeout_ms);
    let resource = Resource::builder().with_service_name(config.service_name.clone()).build();
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.otlp_endpoint)
        .with_timeout(timeout)
        .build()
        .map_err(fault)?;
    let metrics = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(&config.otlp_endpoint)
        .with_timeout(timeout)
        .build()
        .map_err(fault)?;
    let tracer = SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build();
    let meter = SdkMeterProvider::builder().with_periodic_exporter(metrics).with_resource(resource).build();
    Ok((Some(tracer), Some(meter)))
}
