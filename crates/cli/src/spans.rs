//! Spans of what the server does, sent to an OpenTelemetry collector by OTLP over HTTP, where this program is built
//! with the feature `otel`.

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

/// Sends what is left when it is dropped.
pub(crate) struct Sending(SdkTracerProvider);

impl Drop for Sending {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "The last spans could not be sent.");
        }
    }
}

/// Sends spans in the background to `endpoint`, such as `http://localhost:4318`.
pub(crate) fn sent_to<S>(endpoint: &str) -> anyhow::Result<(impl Layer<S>, Sending)>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // The exporter's HTTP client takes whatever this process has agreed on; nobody else here asks for it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .with_context(|| format!("--otel: expected the address of a collector, found {endpoint:?}"))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("farrier").build())
        .build();
    let spans = Targets::new().with_target(farrier_server::SPANS, LevelFilter::DEBUG);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("farrier")).with_filter(spans);
    Ok((layer, Sending(provider)))
}
