//! W3C trace context (<https://www.w3.org/TR/trace-context/>) in gRPC metadata, in and out.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::{
    codegen::http::{HeaderMap, HeaderName},
    metadata::{MetadataKey, MetadataMap},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Writes the current span's context into outgoing metadata.
pub fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut Outgoing(metadata));
}

/// Makes `span` a child of the caller's span, if the headers name one. Without an exporter this does nothing.
pub fn follow(span: &Span, headers: &HeaderMap) {
    // Fails only when no OpenTelemetry layer is installed or the span is disabled: nothing to follow then.
    let _ = span.set_parent(extract(headers));
}

/// The caller's context.
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract(&Incoming(headers))
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt as _;

    use super::*;

    #[test]
    fn a_callers_trace_id_is_read() {
        let mut metadata = MetadataMap::new();
        metadata
            .insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().expect("valid"));
        let context = extract(metadata.as_ref());
        let span = context.span().span_context().clone();
        assert_eq!(span.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        let mut out = MetadataMap::new();
        TraceContextPropagator::new().inject_context(&context, &mut Outgoing(&mut out));
        assert!(out.get("traceparent").is_some_and(|value| value.to_str().is_ok_and(|v| v.contains("0af7651916cd"))));
    }
}
