use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::stream::Answers;
use super::wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, ScaledObjectRef,
};
use super::*;
use crate::metrics::Metrics;
use crate::transport::{FEW_CLIENTS, Keepalive, Port};

struct Pool {
    waiting: watch::Sender<u64>,
    running: AtomicU64,
    saturation: Mutex<f64>,
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: watch::Sender::new(0),
            running: AtomicU64::new(0),
            saturation: Mutex::new(1.0),
        })
    }

    fn set(&self, waiting: u64, running: u64) {
        self.running.store(running, Relaxed);
        self.waiting.send_if_modified(|now| std::mem::replace(now, waiting) != waiting);
    }
}

impl ScalerSource for Pool {
    fn queue_depth(&self) -> u64 {
        *self.waiting.borrow()
    }
    fn queued_bytes(&self) -> u64 {
        self.queue_depth() * 1000
    }
    fn queued_tokens(&self) -> u64 {
        self.queue_depth() * 250
    }
    fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }
    fn saturation(&self) -> f64 {
        *self.saturation.lock()
    }
    fn subscribe(&self) -> watch::Receiver<u64> {
        self.waiting.subscribe()
    }
}

fn scaler(pool: &Arc<Pool>) -> KedaScaler {
    let settings =
        ScalerSettings { pool: "llama".to_owned(), max_streams: 2, keepalive: Duration::from_secs(20) };
    KedaScaler::new(Arc::clone(pool) as Arc<dyn ScalerSource>, settings)
}

fn object(pairs: &[(&str, &str)]) -> ScaledObjectRef {
    let usual = [("scalerAddress", "epp:9004"), ("targetValue", "250"), ("coolDown", "10s")];
    let scaler_metadata: HashMap<_, _> =
        usual.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ScaledObjectRef { name: "vllm".to_owned(), namespace: "default".to_owned(), scaler_metadata }
}

async fn said(stream: &mut Answers) -> Option<bool> {
    Some(stream.next().await?.unwrap().result)
}

/// Lets this much of the paused clock's time pass, and all that is due in it happen.
async fn pass(time: Duration) {
    timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

async fn silent_for(stream: &mut Answers, time: Duration) {
    assert!(timeout(time, stream.next()).await.is_err(), "nothing is to be said");
}

#[tokio::test(start_paused = true)]
async fn the_first_waiting_request_is_told_without_delay_and_the_end_after_the_cool_down() {
    let pool = Pool::new();
    let mut stream = scaler(&pool).stream(&object(&[])).unwrap();
    assert_eq!(said(&mut stream).await, Some(false));
    silent_for(&mut stream, Duration::from_secs(5)).await;

    pool.set(1, 0);
    let asked = Instant::now();
    assert_eq!(said(&mut stream).await, Some(true));
    assert_eq!(asked.elapsed(), Duration::ZERO);

    pool.set(0, 1);
    silent_for(&mut stream, Duration::from_secs(15)).await;
    pool.set(0, 0);
    let ended = Instant::now();
    assert_eq!(said(&mut stream).await, Some(true), "the last word is repeated");
    assert_eq!(said(&mut stream).await, Some(false));
    let took = ended.elapsed();
    assert!(took > Duration::from_secs(8) && took <= Duration::from_secs(10), "{took:?}");
    silent_for(&mut stream, Duration::from_secs(15)).await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_in_the_middle_of_the_cool_down_starts_it_again() {
    let pool = Pool::new();
    let scaler = scaler(&pool);
    tokio::spawn({
        let scaler = scaler.clone();
        async move { scaler.remember().await }
    });
    let mut stream = scaler.stream(&object(&[])).unwrap();
    pool.set(1, 0);
    assert_eq!(said(&mut stream).await, Some(true));
    pool.set(0, 0);
    silent_for(&mut stream, Duration::from_secs(7)).await;
    pool.set(3, 0);
    tokio::task::yield_now().await;
    pool.set(0, 0);
    let burst = Instant::now();
    silent_for(&mut stream, Duration::from_millis(9_900)).await;
    assert_eq!(said(&mut stream).await, Some(false));
    assert!(burst.elapsed() < Duration::from_millis(11_100), "{:?}", burst.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_and_went_between_two_looks_is_told() {
    let pool = Pool::new();
    let mut stream = scaler(&pool).stream(&object(&[])).unwrap();
    assert_eq!(said(&mut stream).await, Some(false));
    pool.set(1, 0);
    pool.set(0, 0);
    let asked = Instant::now();
    assert_eq!(said(&mut stream).await, Some(true));
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn running_requests_that_never_waited_are_seen_within_a_second() {
    let pool = Pool::new();
    let mut stream = scaler(&pool).stream(&object(&[])).unwrap();
    assert_eq!(said(&mut stream).await, Some(false));
    pool.set(0, 1);
    let started = Instant::now();
    assert_eq!(said(&mut stream).await, Some(true));
    assert!(started.elapsed() <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn few_requests_do_not_wake_a_pool_that_asks_for_more() {
    let pool = Pool::new();
    let mut stream = scaler(&pool).stream(&object(&[("activationValue", "3")])).unwrap();
    assert_eq!(said(&mut stream).await, Some(false));
    pool.set(3, 0);
    silent_for(&mut stream, Duration::from_secs(19)).await;
    pool.set(4, 0);
    let asked = Instant::now();
    assert_eq!(said(&mut stream).await, Some(true));
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn streams_have_a_bound_and_give_their_place_back() {
    let pool = Pool::new();
    let scaler = scaler(&pool);
    let first = scaler.stream(&object(&[])).unwrap();
    let _second = scaler.stream(&object(&[])).unwrap();
    assert_eq!(scaler.stream(&object(&[])).err().unwrap().code(), Code::ResourceExhausted);
    drop(first);
    assert!(scaler.stream(&object(&[])).is_ok());
    assert_eq!(scaler.open_streams(), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_end_at_shutdown_those_opened_later_too() {
    let pool = Pool::new();
    let closed = scaler(&pool);
    let mut stream = closed.stream(&object(&[])).unwrap();
    assert_eq!(said(&mut stream).await, Some(false));
    closed.close();
    assert_eq!(said(&mut stream).await, None);
    let mut late = closed.stream(&object(&[])).unwrap();
    assert_eq!(said(&mut late).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_between_streams_remembers_what_waited() {
    let pool = Pool::new();
    let scaler = scaler(&pool);
    tokio::spawn({
        let scaler = scaler.clone();
        async move { scaler.remember().await }
    });
    let active = || scaler.is_active(&object(&[])).unwrap().result;
    assert!(!active());
    pass(Duration::from_secs(1)).await;
    pool.set(1, 0);
    pool.set(0, 0);
    pass(Duration::from_secs(1)).await;
    assert!(active(), "cooling down from what nobody asked about");
    pass(Duration::from_secs(8)).await;
    assert!(active());
    pass(Duration::from_secs(3)).await;
    assert!(!active());
}

/// A real client of the service.
struct Client(Channel);

impl Client {
    async fn call<Asked, Answer>(&self, path: &'static str, asked: Asked) -> Result<Answer, Status>
    where
        Asked: prost::Message + Send + Sync + 'static,
        Answer: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<Asked, Answer>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(Request::new(asked), path, codec).await?.into_inner())
    }

    async fn is_active(&self, asked: ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        self.call(IS_ACTIVE_PATH, asked).await
    }

    async fn metric(&self, name: &str, asked: ScaledObjectRef) -> Result<GetMetricsResponse, Status> {
        let asked = GetMetricsRequest { scaled_object_ref: Some(asked), metric_name: name.to_owned() };
        self.call(GET_METRICS_PATH, asked).await
    }

    async fn stream(&self, asked: ScaledObjectRef) -> tonic::Streaming<IsActiveResponse> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::default();
        let path = PathAndQuery::from_static(STREAM_IS_ACTIVE_PATH);
        grpc.server_streaming(Request::new(asked), path, codec).await.unwrap().into_inner()
    }
}

async fn served(pool: &Arc<Pool>) -> (Client, oneshot::Sender<()>) {
    let (address, _, shutdown) = listening(pool).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (Client(channel), shutdown)
}

/// A service that listens.
async fn listening(pool: &Arc<Pool>) -> (SocketAddr, KedaScaler, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, ends) = oneshot::channel::<()>();
    let service = scaler(pool);
    let port = Port::new("scaler", listener, FEW_CLIENTS, Keepalive::default(), &Metrics::new());
    tokio::spawn(serve(port, service.clone(), async {
        ends.await.ok();
    }));
    (address, service, shutdown)
}

#[tokio::test]
async fn a_client_on_the_wire_gets_specs_and_values() {
    let pool = Pool::new();
    let (client, _shutdown) = served(&pool).await;
    pool.set(7, 3);
    *pool.saturation.lock() = 0.4;

    for (metric, name, value) in [
        ("queueDepth", "pointsman-queue-depth", 7.0),
        ("runningRequests", "pointsman-running-requests", 3.0),
        ("queuedTokens", "pointsman-queued-tokens", 1750.0),
        ("saturation", "pointsman-saturation", 0.4),
    ] {
        let asked = object(&[("metric", metric), ("targetValue", "0.8"), ("pool", "llama")]);
        let specs: GetMetricSpecResponse = client.call(GET_METRIC_SPEC_PATH, asked.clone()).await.unwrap();
        let spec = &specs.metric_specs[0];
        assert_eq!((spec.metric_name.as_str(), spec.target_size), (name, 1));
        assert!((spec.target_size_float - 0.8).abs() < 1e-9);
        let values = client.metric(name, asked).await.unwrap().metric_values;
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].metric_name, name);
        assert!((values[0].metric_value_float - value).abs() < 1e-9, "{values:?}");
    }
}

#[tokio::test]
async fn a_client_on_the_wire_is_told_what_is_wrong() {
    let pool = Pool::new();
    let (client, _shutdown) = served(&pool).await;
    let status = client.is_active(object(&[("metric", "queue")])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("metadata key `metric`: got `queue`"), "{status}");

    let status = client.metric("pointsman-saturation", object(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("expected `pointsman-queue-depth`"), "{status}");

    *pool.saturation.lock() = f64::NAN;
    let status = client.metric("", object(&[("metric", "saturation")])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    let status = client
        .call::<_, GetMetricsResponse>(GET_METRICS_PATH, GetMetricsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let path = "/externalscaler.ExternalScaler/StreamMetricSpec";
    let status = client.call::<_, GetMetricSpecResponse>(path, object(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "KEDA then asks for the spec again instead");

    let huge = "x".repeat(1 << 20);
    assert!(client.is_active(object(&[("pool", &huge)])).await.is_err());
}

#[tokio::test]
async fn a_client_on_the_wire_is_told_of_the_first_waiting_request_within_a_tenth_of_a_second() {
    let pool = Pool::new();
    let (client, shutdown) = served(&pool).await;
    let mut stream = client.stream(object(&[("coolDown", "200ms")])).await;
    assert_eq!(stream.message().await.unwrap(), Some(IsActiveResponse { result: false }));

    let asked = std::time::Instant::now();
    pool.set(1, 0);
    assert_eq!(stream.message().await.unwrap(), Some(IsActiveResponse { result: true }));
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");

    pool.set(0, 0);
    assert_eq!(stream.message().await.unwrap(), Some(IsActiveResponse { result: false }));
    shutdown.send(()).unwrap();
    assert_eq!(stream.message().await.unwrap(), None, "an orderly end");
}

#[tokio::test(start_paused = true)]
async fn on_standby_streams_end_in_order_and_questions_are_told_to_come_again() {
    let pool = Pool::new();
    pool.set(0, 3);
    let scaler = scaler(&pool);
    let mut stream = scaler.stream(&object(&[])).unwrap();
    assert_eq!(said(&mut stream).await, Some(true));
    scaler.set_role(Role::Standby);
    assert_eq!(said(&mut stream).await, None, "no false, and no error");
    let mut later = scaler.stream(&object(&[])).unwrap();
    assert_eq!(said(&mut later).await, None);
    assert_eq!(scaler.is_active(&object(&[])).unwrap_err().code(), Code::Unavailable);

    scaler.set_role(Role::Answering);
    assert!(scaler.is_active(&object(&[])).unwrap().result);
    let mut again = scaler.stream(&object(&[])).unwrap();
    assert_eq!(said(&mut again).await, Some(true));
    scaler.close();
    scaler.set_role(Role::Answering);
    assert_eq!(scaler.is_active(&object(&[])).unwrap_err().code(), Code::Unavailable, "closed for good");
}

/// Opens a connection and gives what resolves when the server closes it.
async fn connection(address: SocketAddr) -> impl Future<Output = ()> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(socket);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, tonic::body::Body>(executor, io).await.unwrap();
    async move {
        let _open = sender;
        connection.await.ok();
    }
}

#[tokio::test]
async fn a_replica_that_stops_answering_closes_its_connections_and_takes_new_ones_for_a_while() {
    let pool = Pool::new();
    let (address, service, _shutdown) = listening(&pool).await;
    let mut old = std::pin::pin!(connection(address).await);
    let least = super::connection::LEAST_LIFE;
    assert!(timeout(least * 2, &mut old).await.is_err(), "open while the replica answers");
    let stepped_down = Instant::now();
    service.set_role(Role::Standby);
    timeout(Duration::from_secs(5), old).await.expect("the connection is closed");
    assert!(stepped_down.elapsed() < least, "{:?}: at once", stepped_down.elapsed());

    let opened = Instant::now();
    let new = connection(address).await;
    timeout(Duration::from_secs(5), new).await.expect("a connection to a standby is closed too");
    assert!(opened.elapsed() >= least, "{:?}: clients come again at once", opened.elapsed());

    // One that is there when the replica answers again stays.
    let mut lucky = std::pin::pin!(connection(address).await);
    service.set_role(Role::Answering);
    assert!(timeout(least * 2, &mut lucky).await.is_err());
}

#[tokio::test]
async fn a_standby_answers_every_question_with_unavailable_and_every_stream_with_its_end() {
    let pool = Pool::new();
    pool.set(0, 3);
    let (address, service, _shutdown) = listening(&pool).await;
    service.set_role(Role::Standby);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let client = Client(channel);
    assert_eq!(client.is_active(object(&[])).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(client.metric("", object(&[])).await.unwrap_err().code(), Code::Unavailable);
    let spec = client.call::<_, GetMetricSpecResponse>(GET_METRIC_SPEC_PATH, object(&[])).await;
    assert_eq!(spec.unwrap_err().code(), Code::Unavailable);
    let mut stream = client.stream(object(&[])).await;
    assert_eq!(stream.message().await.unwrap(), None, "an orderly end");
}

#[tokio::test]
async fn a_client_that_does_not_let_go_is_cut_off_at_shutdown() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let pool = Pool::new();
    let (address, _, shutdown) = listening(&pool).await;
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    silent.read_exact(&mut settings).await.unwrap();
    shutdown.send(()).unwrap();
    let rest = async { while silent.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
    timeout(super::connection::GOODBYE * 3, rest).await.expect("it is cut off");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn connections_have_a_bound() {
    use tokio::io::AsyncReadExt as _;
    let pool = Pool::new();
    let (address, _, _shutdown) = listening(&pool).await;
    let mut open = Vec::new();
    for _ in 0..=FEW_CLIENTS.strangers {
        open.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    // None of them says a word, so the first one goes for the last one.
    let closed = timeout(Duration::from_secs(5), async {
        while open[0].read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
    });
    closed.await.expect("the oldest is closed");
    let mut bytes = [0; 64];
    let greeting = timeout(Duration::from_secs(5), open[FEW_CLIENTS.strangers].read(&mut bytes));
    assert!(greeting.await.unwrap().is_ok_and(|bytes| bytes > 0), "the newest is greeted");
}
