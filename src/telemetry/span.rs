//! Spans that cost nothing when the request is not sampled.

use bytes::Bytes;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

use super::propagation::{Injected, inject};

/// A span, or nothing if the trace is not sampled. It ends when dropped.
#[derive(Debug, Default)]
pub struct Span {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Off,
    /// Not recorded, but passed on, so that the model server knows the decision.
    Unsampled {
        context: SpanContext,
        baggage: Option<Bytes>,
    },
    Recording(Box<Recording>),
}

#[derive(Debug)]
struct Recording {
    span: SdkSpan,
    tracer: SdkTracer,
    baggage: Option<Bytes>,
}

impl Span {
    /// A span that records nothing.
    pub fn off() -> Self {
        Self::default()
    }

    pub(super) fn unsampled(context: SpanContext, baggage: Option<Bytes>) -> Self {
        Self { state: State::Unsampled { context, baggage } }
    }

    /// A span as the SDK started it, recording or not.
    pub(super) fn started(span: SdkSpan, tracer: SdkTracer, baggage: Option<Bytes>) -> Self {
        if span.is_recording() {
            Self { state: State::Recording(Box::new(Recording { span, tracer, baggage })) }
        } else {
            Self::unsampled(span.span_context().clone(), baggage)
        }
    }

    /// True if attributes are kept. Ask before computing one that costs something.
    pub fn is_recording(&self) -> bool {
        matches!(self.state, State::Recording(_))
    }

    /// A span below this one; off if this one does not record. `name` is only called when recording.
    #[must_use]
    pub fn child<N: Into<String>>(&self, name: impl FnOnce() -> N) -> Self {
        self.child_of(SpanKind::Internal, name)
    }

    /// As [`Span::child`], of the kind of spans that serve a remote caller.
    #[must_use]
    pub fn server_child<N: Into<String>>(&self, name: impl FnOnce() -> N) -> Self {
        self.child_of(SpanKind::Server, name)
    }

    fn child_of<N: Into<String>>(&self, kind: SpanKind, name: impl FnOnce() -> N) -> Self {
        let State::Recording(recording) = &self.state else { return Self::off() };
        let parent = Context::new().with_remote_span_context(recording.span.span_context().clone());
        let builder = SpanBuilder::from_name(name().into()).with_kind(kind);
        let span = recording.tracer.build_with_context(builder, &parent);
        Self::started(span, recording.tracer.clone(), None)
    }

    /// Sets an attribute.
    pub fn attribute(&mut self, key: &'static str, value: impl Into<Value>) {
        if let State::Recording(recording) = &mut self.state {
            recording.span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Sets an attribute that is a list of texts.
    pub fn texts(&mut self, key: &'static str, values: impl IntoIterator<Item = String>) {
        let values: Vec<StringValue> = values.into_iter().map(StringValue::from).collect();
        self.attribute(key, Value::Array(Array::String(values)));
    }

    /// Sets an attribute that is a list of numbers.
    pub fn numbers(&mut self, key: &'static str, values: impl IntoIterator<Item = f64>) {
        self.attribute(key, Value::Array(Array::F64(values.into_iter().collect())));
    }

    /// Marks the span as failed.
    pub fn error(&mut self, text: &str) {
        if let State::Recording(recording) = &mut self.state {
            recording.span.set_status(Status::error(text.to_owned()));
        }
    }

    /// Headers that make this span the parent of what the model server does; with the flag 00 if it is not sampled,
    /// none if tracing is off.
    pub fn inject(&self) -> Injected {
        match &self.state {
            State::Off => Injected::new(),
            State::Unsampled { context, baggage } => inject(context, baggage.as_ref()),
            State::Recording(recording) => inject(recording.span.span_context(), recording.baggage.as_ref()),
        }
    }
}
