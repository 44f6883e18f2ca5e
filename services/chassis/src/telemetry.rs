//! Logs to stderr (text or JSON), spans and metrics over OTLP when an endpoint is configured.
//! Never prompts, completions or keys: callers put ids, digests and counts into fields, nothing else.

use std::{io::IsTerminal as _, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    trace::{Sampler, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

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
    /// Of a thousand calls that come without a trace of their caller's, so many begin one. A caller's own trace is always
    /// followed as the caller has decided.
    pub traces_per_mille: u16,
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
            traces_per_mille: 1_000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log_filter `{filter}`: {source}")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("otlp_endpoint `{endpoint}`: {source}")]
    Exporter { endpoint: String, source: opentelemetry_otlp::ExporterBuildError },
    #[error("traces_per_mille: {0} is more than 1000")]
    Traces(u16),
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
    // What is logged is one question, what is traced another.
    let spans = tracer.as_ref().map(|provider| {
        // Of a span counts what it is and how long it took; files, lines and threads would be most of what is sent.
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("banyan"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(LevelFilter::INFO)
    });
    let subscriber = tracing_subscriber::registry().with(logs.with_filter(filter)).with(spans);
    subscriber.try_init().map_err(|_| TelemetryError::Twice)?;
    if let Some(meter) = &meter {
        opentelemetry::global::set_meter_provider(meter.clone());
    }
    Ok(TelemetryGuard { tracer, meter })
}

fn providers(
    config: &TelemetryConfig,
) -> Result<(Option<SdkTracerProvider>, Option<SdkMeterProvider>), TelemetryError> {
    if config.traces_per_mille > 1_000 {
        return Err(TelemetryError::Traces(config.traces_per_mille));
    }
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
    let begun = Sampler::TraceIdRatioBased(f64::from(config.traces_per_mille) / 1_000.0);
    let tracer = SdkTracerProvider::builder()
        .with_batch_exporter(spans)
        .with_sampler(Sampler::ParentBased(Box::new(begun)))
        .with_resource(resource.clone())
        .build();
    let meter = SdkMeterProvider::builder().with_periodic_exporter(metrics).with_resource(resource).build();
    Ok((Some(tracer), Some(meter)))
}
