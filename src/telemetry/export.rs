//! Where finished spans go.

use std::time::{Duration, Instant};

use opentelemetry::trace::Status;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use serde_json::{Map, Value, json};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tracing::warn;

use super::events::Repeat;
use super::lines::LineQueue;
use super::settings::Otlp;
use super::timestamp::rfc3339;

/// Bundles of trusted authorities, for a collector with `https` and no certificate of its own configured.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why spans cannot be exported as configured.
#[derive(Debug, thiserror::Error)]
pub enum TracingError {
    /// The address of the collector is none.
    #[error("collector address {endpoint:?} is not usable")]
    Endpoint {
        /// The address, as configured.
        endpoint: String,
        /// The fault.
        source: tonic::transport::Error,
    },
    /// A certificate or key could not be read.
    #[error("certificate file {path} cannot be read")]
    Certificate {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// `https`, and no authority to check the collector against.
    #[error(
        "collector {endpoint} needs TLS and no trusted authorities were found: set OTEL_EXPORTER_OTLP_CERTIFICATE"
    )]
    NoAuthorities {
        /// The address.
        endpoint: String,
    },
    /// The exporter does not take the configuration.
    #[error("the OTLP exporter cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// An exporter over gRPC. It connects when the first spans are sent. Must be called within a Tokio runtime.
pub(super) fn otlp(settings: &Otlp) -> Result<opentelemetry_otlp::SpanExporter, TracingError> {
    let channel = connect(settings)?;
    Ok(opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(settings.timeout)
        .build()?)
}

fn connect(settings: &Otlp) -> Result<Channel, TracingError> {
    let invalid = |source| TracingError::Endpoint { endpoint: settings.endpoint.clone(), source };
    let endpoint = Endpoint::from_shared(settings.endpoint.clone())
        .map_err(invalid)?
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint.connect_lazy());
    }
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities(settings)?));
    if let Some((certificate, key)) = &settings.client {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(endpoint.tls_config(tls).map_err(invalid)?.connect_lazy())
}

fn authorities(settings: &Otlp) -> Result<Vec<u8>, TracingError> {
    if let Some(path) = &settings.certificate {
        return read(path);
    }
    BUNDLES
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .ok_or_else(|| TracingError::NoAuthorities { endpoint: settings.endpoint.clone() })
}

fn read(path: &str) -> Result<Vec<u8>, TracingError> {
    std::fs::read(path).map_err(|source| TracingError::Certificate { path: path.to_owned(), source })
}

/// An exporter whose failures are logged, now and then: the SDK itself says nothing.
#[derive(Debug)]
pub(super) struct Logged<E> {
    inner: E,
    failures: Repeat,
}

impl<E> Logged<E> {
    pub(super) fn new(inner: E) -> Self {
        Self { inner, failures: Repeat::every(Duration::from_secs(30)) }
    }
}

impl<E: SpanExporter> SpanExporter for Logged<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => self.failures.reset(),
            Err(error) => {
                if let Some(suppressed) = self.failures.due(Instant::now()) {
                    warn!(error = %error, spans, suppressed, "spans could not be exported");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Writes each span as a line of JSON on standard output.
#[derive(Debug)]
pub(super) struct Console {
    output: LineQueue,
}

impl Console {
    pub(super) fn new(output: LineQueue) -> Self {
        Self { output }
    }
}

impl SpanExporter for Console {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &batch {
            self.output.push(describe(span).to_string().as_bytes(), false);
        }
        Ok(())
    }
}

fn describe(span: &SpanData) -> Value {
    let attributes: Map<String, Value> = span
        .attributes
        .iter()
        .map(|attribute| (attribute.key.to_string(), attribute.value.to_string().into()))
        .collect();
    let error = match &span.status {
        Status::Error { description } => Some(description.as_ref()),
        _ => None,
    };
    json!({
        "name": span.name,
        "kind": format!("{:?}", span.span_kind),
        "trace_id": span.span_context.trace_id().to_string(),
        "span_id": span.span_context.span_id().to_string(),
        "parent_span_id": span.parent_span_id.to_string(),
        "start": rfc3339(span.start_time),
        "end": rfc3339(span.end_time),
        "attributes": attributes,
        "error": error,
    })
}
