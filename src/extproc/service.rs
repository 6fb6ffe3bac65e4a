//! The gRPC service on top of the streams.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use http::{Request as HttpRequest, Response as HttpResponse};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use super::codec::{PROCESS_PATH, SERVICE_NAME, ServerCodec};
use super::inbound::Messages;
use super::machine::to_headers;
use super::refusal::{self, Caller};
use super::settings::ExtProcSettings;
use super::stream::{Conversation, Shared};
use super::stream_count::StreamCount;
use super::wire::{ProcessingRequest, ProcessingResponse, Request as RequestMessage};
use arc_swap::ArcSwap;

use crate::director::{DEFAULT_FLOW, Director, Reason, Refusal};
use crate::metrics::{Metrics, RequestLabels};
use crate::request::Headers;
use crate::telemetry::Tracing;

/// `envoy.service.ext_proc.v3.ExternalProcessor`.
#[derive(Clone)]
pub struct ExtProc {
    shared: Arc<Shared>,
    open: Arc<AtomicU64>,
}

impl std::fmt::Debug for ExtProc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExtProc").field("open", &self.open).finish_non_exhaustive()
    }
}

impl ExtProc {
    /// A service that asks `director`. Each request is decided by the one that is there when it begins.
    pub fn new(
        director: Arc<ArcSwap<Director>>,
        metrics: &Metrics,
        tracing: Tracing,
        settings: ExtProcSettings,
    ) -> Self {
        let unknown = metrics.request(RequestLabels {
            model: "",
            target_model: "",
            fairness_id: DEFAULT_FLOW,
            priority: 0,
        });
        let metrics = metrics.extproc();
        metrics.serves(Reason::ALL.map(|reason| (reason.label(), reason.code().status())));
        let shared = Arc::new(Shared { director, metrics, unknown, tracing, settings });
        Self { shared, open: Arc::default() }
    }

    /// Streams that may be open at once; 0 without a bound.
    pub(super) fn max_streams(&self) -> u64 {
        self.shared.settings.max_streams
    }

    /// Bytes that all bodies may take together; 0 without a bound.
    pub(super) fn budget_limit(&self) -> u64 {
        self.shared.settings.machine.budget.limit()
    }

    /// Streams open now.
    pub fn open_streams(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.open)
    }

    fn converse(&self, inbound: Messages<Body>, carried: Headers) -> Answers {
        let (before, count) = StreamCount::begin(&self.open, &self.shared.metrics);
        let limit = self.shared.settings.max_streams;
        if limit != 0 && before >= limit {
            let refusal = Refusal::new(Reason::TooManyStreams, format!("more than {limit} streams are open"));
            self.shared.count_refusal(refusal.reason);
            return Answers::Refused(Box::new(Turned {
                inbound,
                refusal: Some(refusal),
                patience: None,
                count,
            }));
        }
        Answers::Conversation(Box::new(Conversation::new(Arc::clone(&self.shared), inbound, carried, count)))
    }
}

/// The answers of one stream.
enum Answers {
    Conversation(Box<Conversation>),
    /// Too many streams: one answer and out.
    Refused(Box<Turned>),
}

/// Time that a stream which is turned away has for its first message.
const PATIENCE: Duration = Duration::from_secs(1);

/// A stream that is turned away. Its first message says who asks and so in which form the answer is.
struct Turned {
    inbound: Messages<Body>,
    refusal: Option<Refusal>,
    patience: Option<Pin<Box<Sleep>>>,
    #[expect(dead_code, reason = "held until the stream ends")]
    count: StreamCount,
}

impl Turned {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        if self.refusal.is_none() {
            return Poll::Ready(None);
        }
        let caller = match Pin::new(&mut self.inbound).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => match message.request {
                Some(RequestMessage::RequestHeaders(headers)) => {
                    Caller::of(&to_headers(headers.headers.unwrap_or_default()))
                }
                _ => Caller::default(),
            },
            Poll::Ready(_) => Caller::default(),
            Poll::Pending => {
                let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
                ready!(patience.as_mut().poll(cx));
                Caller::default()
            }
        };
        let answer = self.refusal.take().map(|refusal| refusal::immediate(&refusal, caller));
        Poll::Ready(answer.map(Ok))
    }
}

impl Stream for Answers {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Conversation(conversation) => Pin::new(&mut **conversation).poll_next(cx),
            Self::Refused(turned) => turned.poll_answer(cx),
        }
    }
}

/// The one method, called once. It reads the messages itself; the library gets a request without any.
struct Process {
    service: ExtProc,
    messages: Option<(Messages<Body>, Headers)>,
}

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, _: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let answers = self.messages.take();
        let answers =
            answers.map(|(messages, carried)| Response::new(self.service.converse(messages, carried)));
        ready(answers.ok_or_else(|| Status::internal("the method was called twice on one stream")))
    }
}

impl NamedService for ExtProc {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<HttpRequest<Body>> for ExtProc {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        if request.uri().path() != PROCESS_PATH {
            return Box::pin(ready(Ok(
                Status::unimplemented("the service has one method, Process").into_http()
            )));
        }
        let settings = &self.shared.settings;
        let (parts, body) = request.into_parts();
        let gzip = parts.headers.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
        let budget = Arc::clone(&settings.machine.budget);
        let messages = Messages::new(body, gzip, settings.max_receive_bytes, budget);
        let carried = self.shared.tracing.carried(&parts.headers);
        let service = Process { service: self.clone(), messages: Some((messages, carried)) };
        let request = HttpRequest::from_parts(parts, Body::empty());
        let mut grpc = Grpc::new(ServerCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(settings.max_receive_bytes)
            .max_encoding_message_size(settings.max_send_bytes);
        Box::pin(async move { Ok(grpc.streaming(service, request).await) })
    }
}
