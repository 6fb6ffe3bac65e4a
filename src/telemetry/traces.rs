//! Whether a request is traced, and the first span of one that is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanKind, TraceContextExt, TraceFlags, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider, TracerProviderBuilder,
};
use tracing::warn;

use super::export::{Console, Logged, TracingError, otlp};
use super::lines::LineQueue;
use super::propagation::{baggage, carried, extract};
use super::settings::{Exporter, Settings};
use super::span::Span;
use crate::request::Headers;

/// Name of the span that covers a request.
const REQUEST_SPAN: &str = "gateway.request";

/// How long the last spans may take to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Makes spans, if tracing is on. Clones share the exporter.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    active: Option<Arc<Active>>,
}

#[derive(Debug)]
struct Active {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    parent_decides: bool,
}

impl Tracing {
    /// Makes no spans and leaves headers alone.
    pub fn off() -> Self {
        Self::default()
    }

    /// The tracing that `--tracing` and the `OTEL_*` variables ask for. Without an exporter this is [`Tracing::off`]: a
    /// trace that nobody collects would only put spans between the caller's and the model server's that nobody can
    /// find. `build_ref` and `commit` name the build. Must be called within a Tokio runtime, which has to outlive the last
    /// export. The exporter `console` writes to `output`.
    pub fn from_env(
        enabled: bool,
        build_ref: &str,
        commit: &str,
        output: &LineQueue,
    ) -> Result<Self, TracingError> {
        if !enabled {
            return Ok(Self::off());
        }
        Self::new(&Settings::read(|name| std::env::var(name).ok(), build_ref), build_ref, commit, output)
    }

    /// The same for a program that reports as `service` unless the environment has another name.
    pub fn from_env_as(
        service: &str,
        enabled: bool,
        build_ref: &str,
        output: &LineQueue,
    ) -> Result<Self, TracingError> {
        if !enabled {
            return Ok(Self::off());
        }
        let mut settings = Settings::read(|name| std::env::var(name).ok(), build_ref);
        settings.name_service(service);
        Self::new(&settings, build_ref, "", output)
    }

    pub(super) fn new(
        settings: &Settings,
        build_ref: &str,
        commit: &str,
        output: &LineQueue,
    ) -> Result<Self, TracingError> {
        for problem in &settings.problems {
            warn!(problem, "a tracing setting was not understood");
        }
        let builder = SdkTracerProvider::builder();
        let builder = match &settings.exporter {
            Exporter::None => return Ok(Self::off()),
            Exporter::Console => builder.with_batch_exporter(Console::new(output.clone())),
            Exporter::Otlp(collector) => builder.with_batch_exporter(Logged::new(otlp(collector)?)),
        };
        Ok(Self::build(builder, settings, build_ref, commit))
    }

    pub(super) fn build(
        builder: TracerProviderBuilder,
        settings: &Settings,
        build_ref: &str,
        commit: &str,
    ) -> Self {
        let attributes =
            settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource::builder_empty()
            .with_detector(Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector))
            .with_attributes(attributes)
            .build();
        let provider = builder.with_sampler(settings.sampler.clone()).with_resource(resource).build();
        let scope = InstrumentationScope::builder("pointsman")
            .with_version(build_ref.to_owned())
            .with_attributes([KeyValue::new("commit-sha", commit.to_owned())])
            .build();
        let tracer = provider.tracer_with_scope(scope);
        let parent_decides = settings.parent_decides;
        Self { active: Some(Arc::new(Active { provider, tracer, parent_decides })) }
    }

    /// The trace context in the metadata of the proxy's call; nothing if no spans are made.
    pub fn carried(&self, metadata: &http::HeaderMap) -> Headers {
        if self.active.is_some() { carried(metadata) } else { Headers::new() }
    }

    /// The span of a request that began `ago`, below the caller's if the headers name one. Headers without one are
    /// completed by the metadata of the proxy's `call`. Whether the span records is decided before anything is built.
    pub fn request_span(&self, headers: &Headers, call: &Headers, ago: Duration) -> Span {
        self.span(|| REQUEST_SPAN.to_owned(), headers, call, ago)
    }

    /// The span of a request that begins now, under this name.
    pub fn span_of(&self, headers: &http::HeaderMap, name: impl FnOnce() -> String) -> Span {
        self.span(name, &self.carried(headers), &Headers::new(), Duration::ZERO)
    }

    fn span(&self, name: impl FnOnce() -> String, headers: &Headers, call: &Headers, ago: Duration) -> Span {
        let Some(active) = &self.active else { return Span::off() };
        let own = extract(headers);
        let baggage = baggage(headers).or_else(|| if own.is_none() { baggage(call) } else { None });
        let parent = own.or_else(|| extract(call));
        if let Some(parent) = parent.as_ref().filter(|parent| active.parent_decides && !parent.is_sampled()) {
            let id = RandomIdGenerator::default().new_span_id();
            let state = parent.trace_state().clone();
            let context = SpanContext::new(parent.trace_id(), id, TraceFlags::default(), false, state);
            return Span::unsampled(context, baggage);
        }
        let builder = SpanBuilder::from_name(name())
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let span = active.tracer.build_with_context(builder, &context);
        Span::started(span, active.tracer.clone(), baggage)
    }

    /// Sends what is left, for at most 5 s, and makes no spans afterwards.
    pub async fn shutdown(&self) {
        let Some(active) = &self.active else { return };
        let provider = active.provider.clone();
        // The exporter needs this runtime while it is waited for, so the wait must not occupy one of its threads.
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = flushed {
            warn!(error = %error, "the last spans could not be exported");
        }
    }
}
