//! A stand-in for KEDA's client of an external scaler, as `pkg/scalers/external_scaler.go` and gRPC for Go behave.
//!
//! One connection for each address is kept for good: when it ends another is made at once, and while none can be made,
//! calls fail at once and attempts come later and later. `StreamIsActive` is opened again two seconds after it ended;
//! after an error, the pause doubles up to a minute.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use pointsman::scaler::wire::{GetMetricsRequest, GetMetricsResponse, IsActiveResponse, ScaledObjectRef};
use pointsman::scaler::{GET_METRICS_PATH, IS_ACTIVE_PATH, STREAM_IS_ACTIVE_PATH};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// First pause before another attempt to connect, and how it grows.
const CONNECT_BACKOFF: (Duration, f64, Duration) = (Duration::from_secs(1), 1.6, Duration::from_mins(2));
/// First pause before another stream, and the longest.
const STREAM_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// Time between questions. KEDA takes 30 s, an HPA 15 s; more often shows better what they might hear.
const POLL: Duration = Duration::from_millis(100);

/// What was heard, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<T> {
    /// When.
    pub(crate) at: Instant,
    /// The answer, or why there is none.
    pub(crate) answer: Result<T, Code>,
}

/// All that a client has heard.
#[derive(Debug, Default)]
pub(crate) struct Ears {
    /// Values of the metric.
    pub(crate) values: Vec<Heard<f64>>,
    /// Answers of `IsActive`.
    pub(crate) active: Vec<Heard<bool>>,
    /// Words of the streams. `Err(Ok)` is an orderly end.
    pub(crate) stream: Vec<Heard<bool>>,
}

/// The client, until it is dropped.
pub(crate) struct Keda {
    ears: Arc<Mutex<Ears>>,
    _tasks: JoinSet<()>,
}

impl Keda {
    /// A client of the scaler at `address` with a trigger of this metadata.
    pub(crate) fn start(address: SocketAddr, metadata: &[(&str, &str)]) -> Self {
        let scaler_metadata =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let asked =
            ScaledObjectRef { name: "pool".to_owned(), namespace: "default".to_owned(), scaler_metadata };
        let ears = Arc::<Mutex<Ears>>::default();
        let state = watch::Sender::new(State::Connecting);
        let mut tasks = JoinSet::new();
        tasks.spawn(stream(Conn(state.subscribe()), asked.clone(), Arc::clone(&ears)));
        tasks.spawn(poll(Conn(state.subscribe()), asked, Arc::clone(&ears)));
        tasks.spawn(keep_connected(address, state));
        Self { ears, _tasks: tasks }
    }

    /// What was heard so far.
    pub(crate) fn ears(&self) -> parking_lot::MutexGuard<'_, Ears> {
        self.ears.lock()
    }
}

impl Ears {
    /// When the metric was first heard to be `value` after `from`.
    pub(crate) fn first_value(&self, value: f64, from: Instant) -> Option<Instant> {
        let heard = self.values.iter().find(|heard| heard.at >= from && heard.answer == Ok(value));
        heard.map(|heard| heard.at)
    }

    /// When the stream first ended after `from`, and how: `Ok` is an orderly end.
    pub(crate) fn first_end(&self, from: Instant) -> Option<(Instant, Code)> {
        let mut later = self.stream.iter().filter(|heard| heard.at >= from);
        later.find_map(|heard| Some((heard.at, heard.answer.err()?)))
    }

    /// When a stream first said that the pool is active after `from`.
    pub(crate) fn first_word(&self, from: Instant) -> Option<Instant> {
        let heard = self.stream.iter().find(|heard| heard.at >= from && heard.answer == Ok(true));
        heard.map(|heard| heard.at)
    }

    /// Fails if the pool was ever said to be idle: no 0, and no "inactive".
    pub(crate) fn assert_always_busy(&self) {
        let idle = self.values.iter().filter(|heard| heard.answer == Ok(0.0)).count();
        assert_eq!(idle, 0, "heard 0 for a busy pool: {:?}", self.values);
        for (how, words) in [("asked", &self.active), ("streamed", &self.stream)] {
            let idle = words.iter().filter(|heard| heard.answer == Ok(false)).count();
            assert_eq!(idle, 0, "{how}: heard that a busy pool is inactive: {words:?}");
        }
    }
}

/// How the one connection is.
#[derive(Clone)]
enum State {
    Connecting,
    Ready(SendRequest<Body>),
    /// The last attempt failed; the next one comes later.
    Failed,
}

async fn keep_connected(address: SocketAddr, state: watch::Sender<State>) {
    let (first, factor, longest) = CONNECT_BACKOFF;
    let mut pause = first;
    loop {
        state.send_replace(State::Connecting);
        if let Some((sender, connection)) = connect(address).await {
            pause = first;
            state.send_replace(State::Ready(sender));
            // A connection that may take no more calls ends when those are over.
            connection.await.ok();
        } else {
            state.send_replace(State::Failed);
            sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
            pause = pause.mul_f64(factor).min(longest);
        }
    }
}

/// A connection counts as made when the server has sent its settings.
async fn connect(
    address: SocketAddr,
) -> Option<(SendRequest<Body>, impl Future<Output = hyper::Result<()>>)> {
    let attempt = async {
        let socket = TcpStream::connect(address).await.ok()?;
        socket.set_nodelay(true).ok()?;
        (socket.peek(&mut [0]).await.ok()? > 0).then_some(socket)
    };
    let socket = timeout(Duration::from_secs(20), attempt).await.ok()??;
    handshake(TokioExecutor::new(), TokioIo::new(socket)).await.ok()
}

/// The connection as calls see it.
#[derive(Clone)]
struct Conn(watch::Receiver<State>);

impl Conn {
    /// A client that calls over the connection. Waits while one is being made, fails while none can be.
    async fn grpc(&mut self) -> Result<Grpc<Calls>, Status> {
        let state = self.0.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.map(|state| state.clone()) {
            Ok(State::Ready(sender)) => {
                let origin = http::Uri::from_static("http://scaler");
                Ok(Grpc::with_origin(Calls(sender), origin))
            }
            _ => Err(Status::unavailable("no connection")),
        }
    }
}

struct Calls(SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Calls {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn call<Asked, Answer>(conn: &mut Conn, path: &'static str, asked: Asked) -> Result<Answer, Status>
where
    Asked: prost::Message + Send + Sync + 'static,
    Answer: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = conn.grpc().await?;
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<Asked, Answer>::default();
    Ok(grpc.unary(tonic::Request::new(asked), path, codec).await?.into_inner())
}

async fn poll(mut conn: Conn, asked: ScaledObjectRef, ears: Arc<Mutex<Ears>>) {
    loop {
        let metric = GetMetricsRequest { scaled_object_ref: Some(asked.clone()), metric_name: String::new() };
        let value: Result<GetMetricsResponse, _> = call(&mut conn, GET_METRICS_PATH, metric).await;
        // KEDA takes the fraction where it is not 0.
        let value = value.map(|all| {
            let one = &all.metric_values[0];
            if one.metric_value_float > 0.0 { one.metric_value_float } else { one.metric_value as f64 }
        });
        let answer = value.map_err(|status| status.code());
        ears.lock().values.push(Heard { at: Instant::now(), answer });
        let active: Result<IsActiveResponse, _> = call(&mut conn, IS_ACTIVE_PATH, asked.clone()).await;
        let answer = active.map(|active| active.result).map_err(|status| status.code());
        ears.lock().active.push(Heard { at: Instant::now(), answer });
        sleep(POLL).await;
    }
}

async fn stream(mut conn: Conn, asked: ScaledObjectRef, ears: Arc<Mutex<Ears>>) {
    let (first, longest) = STREAM_BACKOFF;
    let mut pause = first;
    loop {
        let end = listen(&mut conn, &asked, &ears).await;
        ears.lock().stream.push(Heard { at: Instant::now(), answer: Err(end.code()) });
        // As there, the pause grows before the attempt, and an orderly end sets it back.
        if end.code() == Code::Ok {
            pause = first;
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Listens to one stream until it ends; `Ok` is an orderly end.
async fn listen(conn: &mut Conn, asked: &ScaledObjectRef, ears: &Mutex<Ears>) -> Status {
    let opened = async {
        let mut grpc = conn.grpc().await?;
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(STREAM_IS_ACTIVE_PATH);
        let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::default();
        grpc.server_streaming(tonic::Request::new(asked.clone()), path, codec).await
    };
    let mut words = match opened.await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match words.message().await {
            Ok(Some(word)) => {
                ears.lock().stream.push(Heard { at: Instant::now(), answer: Ok(word.result) });
            }
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}
