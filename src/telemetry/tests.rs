//! Spans as an exporter sees them, and as a collector receives them.

use std::time::Duration;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;

use super::settings::Settings;
use super::*;
use crate::request::Headers;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn parent(flags: &str) -> Headers {
    let value = format!("00-{TRACE}-b7ad6b7169203331-{flags}");
    Headers::from([("traceparent", value.as_str()), ("tracestate", "vendor=1"), ("baggage", "k=v")])
}

#[derive(Clone, Debug, Default)]
struct Collected(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collected {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

fn settings(sampler: &str) -> Settings {
    let sampler = sampler.to_owned();
    Settings::read(move |name| (name == "OTEL_TRACES_SAMPLER").then(|| sampler.clone()), "v1")
}

fn tracing(sampler: &str) -> (Tracing, Collected) {
    let collected = Collected::default();
    let builder = SdkTracerProvider::builder().with_simple_exporter(collected.clone());
    (Tracing::build(builder, &settings(sampler), "v1", "abc"), collected)
}

fn header(span: &Span, name: &str) -> Option<String> {
    let injected = span.inject();
    let (_, value) = injected.iter().find(|(key, _)| key == name)?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn children_lie_below_the_request_and_the_request_below_its_caller() {
    let (tracing, collected) = tracing("parentbased_always_off");
    let mut request = tracing.request_span(&parent("01"), &Headers::new(), Duration::ZERO);
    assert!(request.is_recording());
    let mut child = request.child(|| "run_scheduler_profile");
    child.attribute("llm_d.epp.scheduling.profile.name", "default");
    let grandchild = child.child(|| "pick_endpoints".to_owned());
    drop((grandchild, child));
    request.error("no endpoint");
    let injected = header(&request, "traceparent").unwrap();
    drop(request);
    let spans = collected.0.lock();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (request, child, pick) =
        (find("gateway.request"), find("run_scheduler_profile"), find("pick_endpoints"));
    assert_eq!(request.parent_span_id, SpanId::from_hex("b7ad6b7169203331").unwrap());
    assert_eq!((request.span_kind.clone(), child.span_kind.clone()), (SpanKind::Server, SpanKind::Internal));
    assert_eq!(child.parent_span_id, request.span_context.span_id());
    assert_eq!(pick.parent_span_id, child.span_context.span_id());
    assert_eq!(request.status, Status::error("no endpoint"));
    assert_eq!(child.attributes[0].value.to_string(), "default");
    for span in [request, child, pick] {
        assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    }
    assert_eq!(injected, format!("00-{TRACE}-{}-01", request.span_context.span_id()));
}

#[test]
fn an_unsampled_caller_is_passed_on_with_flag_00_and_records_nothing() {
    for sampler in ["parentbased_always_on", "always_off"] {
        let (tracing, collected) = tracing(sampler);
        let span = tracing.request_span(&parent("00"), &Headers::new(), Duration::ZERO);
        assert!(!span.is_recording());
        let child = span.child(|| -> String { unreachable!("an unsampled span names no child") });
        assert!(child.inject().is_empty());
        let traceparent = header(&span, "traceparent").unwrap();
        assert!(
            traceparent.starts_with(&format!("00-{TRACE}-")) && traceparent.ends_with("-00"),
            "{traceparent}"
        );
        assert!(!traceparent.contains("b7ad6b7169203331"), "{traceparent}");
        assert_eq!(header(&span, "tracestate").as_deref(), Some("vendor=1"));
        assert_eq!(header(&span, "baggage").as_deref(), Some("k=v"));
        drop(span);
        assert!(collected.0.lock().is_empty());
    }
}

#[test]
fn a_request_without_a_caller_starts_a_trace_if_the_sampler_says_so() {
    let (tracing, collected) = tracing("always_on");
    drop(tracing.request_span(&Headers::new(), &Headers::new(), Duration::ZERO));
    assert_eq!(collected.0.lock().len(), 1);
    let (tracing, _) = self::tracing("always_off");
    let traceparent =
        header(&tracing.request_span(&Headers::new(), &Headers::new(), Duration::ZERO), "traceparent")
            .unwrap();
    assert!(traceparent.ends_with("-00"), "{traceparent}");
}

#[test]
fn tracing_that_is_off_leaves_headers_alone() {
    let span = Tracing::off().request_span(&parent("01"), &Headers::new(), Duration::ZERO);
    assert!(!span.is_recording() && span.inject().is_empty());
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {}

/// A collector that keeps the spans it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<WireSpan>>>);

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tonic::server::UnaryService<ExportRequest> for Collector {
    type Response = ExportResponse;
    type Future = Answer<tonic::Response<ExportResponse>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<ExportRequest>) -> Self::Future {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        self.0.lock().extend(scopes.flat_map(|scope| scope.spans));
        Box::pin(async { Ok(tonic::Response::new(ExportResponse {})) })
    }
}

impl tower_service::Service<http::Request<tonic::body::Body>> for Collector {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(service, request).await)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_sends_what_is_left_to_the_collector() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let server = tonic::transport::Server::builder()
        .serve_with_incoming(collector.clone(), TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let lookup = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
        "OTEL_TRACES_SAMPLER" => Some("parentbased_always_on".to_owned()),
        _ => None,
    };
    let output = LineQueue::start("test", std::io::sink(), |_| String::new()).unwrap();
    let tracing = Tracing::new(&Settings::read(lookup, "v1"), "v1", "abc", &output).unwrap();
    let request = tracing.request_span(&parent("01"), &Headers::new(), Duration::ZERO);
    drop(request.child(|| "pick_endpoints"));
    drop(request);
    tracing.shutdown().await;
    let names: Vec<String> = collector.0.lock().iter().map(|span| span.name.clone()).collect();
    assert_eq!(names, ["pick_endpoints", "gateway.request"]);
    assert!(!tracing.request_span(&parent("01"), &Headers::new(), Duration::ZERO).is_recording());
    server.abort();
}
