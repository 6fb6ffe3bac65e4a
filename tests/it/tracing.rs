//! Traces as a collector receives them, and the trace headers that the model server gets.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use pointsman::extproc::wire::Response;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use crate::support::{
    BodyMode, EndpointsFile, Envoy, Pointsman, Proxy, Recorder, SCORERS, body, chat, config, destination,
    headers, holds, response_headers, sets,
};

mod stages;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// `Span.SpanKind` of spans that serve a remote caller, and of all others.
const SERVER: i32 = 2;
const INTERNAL: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    status: Option<SpanStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SpanStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5")]
    any: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Number(f64),
    #[prost(message, tag = "5")]
    List(Items),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {}

impl From<&str> for Any {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Span {
    fn attribute(&self, key: &str) -> &Any {
        let found = self.attributes.iter().find(|attribute| attribute.key == key);
        found
            .and_then(|attribute| attribute.value.as_ref()?.any.as_ref())
            .unwrap_or_else(|| panic!("{} has no {key}: {self:?}", self.name))
    }
}

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tonic::server::UnaryService<ExportRequest> for Collector {
    type Response = ExportResponse;
    type Future = Answer<tonic::Response<ExportResponse>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<ExportRequest>) -> Self::Future {
        self.0.lock().extend(request.into_inner().resource_spans);
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
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(service, request).await)
        })
    }
}

/// A traced picker for a recording server under two names, and its collector.
struct Bench {
    pointsman: Pointsman,
    collector: Collector,
    recorder: Recorder,
    _endpoints: EndpointsFile,
    collecting: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.collecting.abort();
    }
}

impl Bench {
    async fn start(flags: &[&str]) -> Self {
        Self::start_with(str::to_owned, flags).await
    }

    async fn start_with(change: impl FnOnce(&str) -> String, flags: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Collector::default();
        let serving = tonic::transport::Server::builder()
            .serve_with_incoming(collector.clone(), TcpListenerStream::new(listener));
        let collecting = tokio::spawn(async { serving.await.unwrap() });
        let recorder = Recorder::start().await;
        // The filter lets the first one through; both are the same server.
        let endpoints = EndpointsFile::of(&format!(
            "{}- {{name: two, address: \"127.0.0.1\", port: {}, labels: {{llm-d.ai/role: prefill}}}}\n\
             objectives:\n- {{name: gold, priority: 7}}\n",
            EndpointsFile::listed([("one", recorder.addr)]),
            recorder.addr.port()
        ));
        let config = change(&config(&endpoints.path(), SCORERS));
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_TRACES_SAMPLER_ARG", "1"),
            ("OTEL_SERVICE_NAME", "picker-under-test"),
        ];
        let usual = ["--config-text", &config, "--pool-name", "test-pool"];
        let pointsman = Pointsman::start_in(&environment, &[&usual, flags].concat()).await;
        Self { pointsman, collector, recorder, _endpoints: endpoints, collecting }
    }

    /// The answer to a request with these further headers.
    async fn ask(&self, further: &[(&'static str, &str)], text: &str) -> Response {
        self.ask_over(&[], further, text).await
    }

    /// The same over a stream with this metadata.
    async fn ask_over(
        &self,
        metadata: &[(&'static str, &str)],
        further: &[(&'static str, &str)],
        text: &str,
    ) -> Response {
        let proxy = Proxy::connect(self.pointsman.grpc).await;
        let mut exchange = proxy.open_with(metadata).await;
        let further = further.iter().map(|(name, value)| {
            (Bytes::from_static(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
        });
        exchange.say(headers("/v1/chat/completions", further, false)).await;
        exchange.say(body(text.to_owned(), true)).await;
        let answer = exchange.answer().await.unwrap().unwrap();
        exchange.finish().await;
        answer
    }

    /// Ends the picker, which sends what is left, and gives all that the collector got.
    async fn collected(&mut self) -> Vec<ResourceSpans> {
        self.pointsman.process.terminate().await;
        assert!(self.pointsman.process.ended().await.success());
        self.collector.0.lock().clone()
    }
}

fn spans(collected: &[ResourceSpans]) -> Vec<Span> {
    collected
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| scope.spans.clone())
        .collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let names = || spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>();
    let span = found.next().unwrap_or_else(|| panic!("no {name} in {:?}", names()));
    assert!(found.next().is_none(), "several {name} in {:?}", names());
    span
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn question() -> String {
    chat("where is my span", 1, false).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_leaves_the_spans_and_attributes_of_the_reference() {
    let filtered = |config: &str| {
        config
            .replace("schedulingProfiles:", "- type: decode-filter\nschedulingProfiles:")
            .replace("  - pluginRef: max", "  - pluginRef: decode-filter\n  - pluginRef: max")
    };
    let mut bench = Bench::start_with(filtered, &["--secure-serving=false"]).await;
    let traceparent = parent("01");
    let further = [
        ("traceparent", traceparent.as_str()),
        ("x-request-id", "req-1"),
        ("x-llm-d-inference-objective", "gold"),
    ];
    let answer = bench.ask(&further, &question()).await;
    assert!(destination(&answer).is_some(), "{answer:?}");
    let collected = bench.collected().await;
    let resource = collected[0].resource.as_ref().unwrap();
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert_eq!(service.value.as_ref().unwrap().any, Some(Any::from("picker-under-test")));

    let spans = spans(&collected);
    let request = named(&spans, "gateway.request");
    assert_eq!((hex(&request.trace), hex(&request.parent)), (TRACE.to_owned(), CALLER.to_owned()));
    assert!(spans.iter().all(|span| span.trace == request.trace), "{spans:?}");

    let orchestration = named(&spans, "gateway.request_orchestration");
    let profile = named(&spans, "run_scheduler_profile");
    let filter = named(&spans, "filter_endpoints");
    let scoring = named(&spans, "llm_d.epp.scoring");
    let pick = named(&spans, "pick_endpoints");
    for (child, below, kind) in [
        (orchestration, request, SERVER),
        (profile, orchestration, INTERNAL),
        (filter, profile, INTERNAL),
        (scoring, profile, INTERNAL),
        (pick, profile, INTERNAL),
    ] {
        assert_eq!(child.parent, below.id, "{} is below {}", child.name, below.name);
        assert_eq!(child.kind, kind, "{}", child.name);
    }
    assert_eq!(request.kind, SERVER);

    assert_eq!(orchestration.attribute("target_model"), &Any::from("sim-model"));
    assert_eq!(orchestration.attribute("request_prio"), &Any::Integer(7));
    assert_eq!(profile.attribute("llm_d.epp.scheduling.profile.name"), &Any::from("default"));
    for span in [filter, scoring, pick] {
        assert_eq!(span.attribute("gen_ai.request.model"), &Any::from("sim-model"));
        assert_eq!(span.attribute("gen_ai.request.id"), &Any::from("req-1"));
    }
    assert_eq!(filter.attribute("llm_d.epp.filter.candidate_endpoints"), &Any::Integer(2));
    assert_eq!(filter.attribute("llm_d.epp.filter.filtered_endpoints"), &Any::Integer(1));
    assert_eq!(scoring.attribute("llm_d.epp.scorer.count"), &Any::Integer(2));
    assert_eq!(scoring.attribute("llm_d.epp.scoring.candidate_endpoints"), &Any::Integer(1));
    for (scorer, weight) in SCORERS {
        let span = named(&spans, &format!("llm_d.epp.scorer.{scorer}"));
        assert_eq!((&span.parent, span.kind), (&scoring.id, INTERNAL));
        assert_eq!(span.attribute("llm_d.epp.scorer.type"), &Any::from(*scorer));
        assert_eq!(span.attribute("llm_d.epp.scorer.name"), &Any::from(*scorer));
        assert_eq!(span.attribute("llm_d.epp.scorer.weight"), &Any::Number(f64::from(*weight)));
        assert_eq!(span.attribute("llm_d.epp.scorer.candidate_endpoints"), &Any::Integer(1));
        assert_eq!(span.attribute("llm_d.epp.scorer.endpoints_scored"), &Any::Integer(1));
        assert_eq!(span.attribute("llm_d.epp.scorer.score.max"), &Any::Number(1.0));
        assert_eq!(span.attribute("llm_d.epp.scorer.score.avg"), &Any::Number(1.0));
    }
    assert_eq!(pick.attribute("llm_d.epp.picker.candidate_endpoints"), &Any::Integer(1));
    let one = |any| Any::List(Items { values: vec![AnyValue { any: Some(any) }] });
    assert_eq!(pick.attribute("llm_d.epp.picker.top_endpoints"), &one(Any::from("default/one")));
    assert_eq!(pick.attribute("llm_d.epp.picker.top_scores"), &one(Any::Number(4.0)));

    let sent = sets(&answer, "traceparent");
    assert_eq!(sent, [format!("00-{TRACE}-{}-01", hex(&request.id))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_gets_one_trace_context_and_it_is_the_pickers() {
    let mut bench = Bench::start(&[]).await;
    let envoy = Envoy::start(bench.pointsman.grpc, true, BodyMode::FullDuplexStreamed).await;
    let traceparent = parent("01");
    let further = [("traceparent", traceparent.as_str()), ("tracestate", "vendor=1"), ("baggage", "user=me")];
    let reply = envoy.http1().post_with("/v1/chat/completions", &further, question()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let received = bench.recorder.received();
    let values = |name: &str| {
        let values = received[0].headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    drop(envoy);
    let spans = spans(&bench.collected().await);
    let request = named(&spans, "gateway.request");
    assert_eq!(hex(&request.parent), CALLER);
    assert_eq!(values("traceparent"), [format!("00-{TRACE}-{}-01", hex(&request.id))]);
    assert_eq!(values("tracestate"), ["vendor=1"]);
    assert_eq!(values("baggage"), ["user=me"]);
    // Without any filter there is a span of filtering all the same.
    let filter = named(&spans, "filter_endpoints");
    assert_eq!(filter.attribute("llm_d.epp.filter.candidate_endpoints"), &Any::Integer(2));
    assert_eq!(filter.attribute("llm_d.epp.filter.filtered_endpoints"), &Any::Integer(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_not_sampled_is_passed_on_and_nothing_is_exported() {
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    let answer = bench.ask(&[("traceparent", &parent("00"))], &question()).await;
    let sent = sets(&answer, "traceparent");
    let [sent] = sent.as_slice() else { panic!("not one traceparent: {sent:?}") };
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    assert!(!sent.contains(CALLER), "{sent}");
    assert_eq!(bench.collected().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_an_error_in_its_trace() {
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    let answer = bench.ask(&[("traceparent", &parent("01"))], "{").await;
    assert!(matches!(answer, Response::ImmediateResponse(_)), "{answer:?}");
    let spans = spans(&bench.collected().await);
    let status = named(&spans, "gateway.request").status.clone().unwrap();
    assert_eq!(status.code, 2, "{status:?}");
    assert!(!status.message.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_model_server_is_an_error_in_the_trace() {
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    for (status, caller) in [("200", "aaaaaaaaaaaaaaaa"), ("503", "bbbbbbbbbbbbbbbb")] {
        let proxy = Proxy::connect(bench.pointsman.grpc).await;
        let mut exchange = proxy.open().await;
        let traceparent = (Bytes::from_static(b"traceparent"), format!("00-{TRACE}-{caller}-01").into());
        exchange.say(headers("/v1/chat/completions", [traceparent], false)).await;
        exchange.say(body(question(), true)).await;
        assert!(destination(&exchange.answer().await.unwrap().unwrap()).is_some());
        exchange.say(response_headers(status)).await;
        exchange.finish().await;
    }
    let spans = spans(&bench.collected().await);
    let status = |caller: &str| {
        let mut requests = spans.iter().filter(|span| span.name == "gateway.request");
        let request = requests.find(|span| hex(&span.parent) == caller).unwrap();
        request.status.clone().unwrap_or_default()
    };
    assert_eq!(status("aaaaaaaaaaaaaaaa").code, 0);
    let failed = status("bbbbbbbbbbbbbbbb");
    assert_eq!((failed.code, failed.message.as_str()), (2, "ModelServerError"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_span_of_a_request_covers_the_wait_for_its_body() {
    const OTHER: &str = "11111111111111111111111111111111";
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    let proxy = Proxy::connect(bench.pointsman.grpc).await;
    let traceparent = (Bytes::from_static(b"traceparent"), Bytes::from(parent("01")));
    let mut slow = proxy.open().await;
    slow.say(headers("/v1/chat/completions", [traceparent], false)).await;
    let mut first = Bytes::from(question());
    let rest = first.split_off(10);
    slow.say(body(first, false)).await;
    holds("the picker has the first piece", async || {
        bench.pointsman.metric("pointsman_buffered_body_bytes", &[]).await == Some(10.0)
    })
    .await;
    // Another request comes and goes while this one waits for its body.
    bench.ask(&[("traceparent", &format!("00-{OTHER}-{CALLER}-01"))], &question()).await;
    slow.say(body(rest, true)).await;
    assert!(destination(&slow.answer().await.unwrap().unwrap()).is_some());
    slow.finish().await;
    drop(proxy);
    let spans = spans(&bench.collected().await);
    let start = |trace: &str| {
        let mut requests = spans.iter().filter(|span| span.name == "gateway.request");
        requests.find(|span| hex(&span.trace) == trace).unwrap().start
    };
    assert!(start(TRACE) < start(OTHER));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_no_trace_header_is_written() {
    let mut bench = Bench::start(&["--secure-serving=false", "--tracing=false"]).await;
    for further in [Vec::new(), vec![("traceparent", parent("01"))]] {
        let further: Vec<_> = further.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = bench.ask(&further, &question()).await;
        assert!(destination(&answer).is_some(), "{answer:?}");
        assert_eq!(sets(&answer, "traceparent"), [""; 0]);
    }
    assert_eq!(bench.collected().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_the_proxys_call_is_joined_where_the_request_brings_none() {
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    let traceparent = parent("01");
    let call = [("traceparent", traceparent.as_str()), ("tracestate", "vendor=1"), ("baggage", "user=x")];
    let answer = bench.ask_over(&call, &[], &question()).await;
    assert!(sets(&answer, "traceparent")[0].starts_with(&format!("00-{TRACE}-")), "{answer:?}");
    assert_eq!(sets(&answer, "tracestate"), ["vendor=1"]);
    assert_eq!(sets(&answer, "baggage"), ["user=x"]);
    let spans = spans(&bench.collected().await);
    let request = named(&spans, "gateway.request");
    assert_eq!((hex(&request.trace), hex(&request.parent)), (TRACE.to_owned(), CALLER.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_the_request_goes_before_that_of_the_proxys_call() {
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    let own = parent("01");
    let other = own.replace(TRACE, "11111111111111111111111111111111");
    let call = [("traceparent", other.as_str()), ("baggage", "user=x")];
    let answer = bench.ask_over(&call, &[("traceparent", &own)], &question()).await;
    assert_eq!(sets(&answer, "baggage"), Vec::<String>::new(), "the request has a trace and no baggage");
    let spans = spans(&bench.collected().await);
    assert_eq!(hex(&named(&spans, "gateway.request").trace), TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_trace_of_the_proxys_call_begins_a_new_one() {
    let mut bench = Bench::start(&["--secure-serving=false"]).await;
    let long = "z".repeat(4000);
    let call = [("traceparent", "00-no-trace-01"), ("tracestate", long.as_str())];
    let answer = bench.ask_over(&call, &[], &question()).await;
    assert_eq!(sets(&answer, "tracestate"), Vec::<String>::new());
    let spans = spans(&bench.collected().await);
    assert!(named(&spans, "gateway.request").parent.is_empty());
}
