//! Serves the followers of this replica.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use http::{Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::own::Cursor;
use super::shared::Shared;
use super::wire::{FOLLOW_PATH, FollowRequest, SERVICE_NAME, Update};

/// The most followers at the same time.
const FOLLOWERS: usize = 64;
/// The largest question in bytes.
const MAX_QUESTION_BYTES: usize = 64 << 10;
/// The time without a message after which this replica sends a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// The gRPC service `pointsman.peers.v1.Replicas`.
#[derive(Clone)]
pub(super) struct Replicas {
    shared: Arc<Shared>,
}

impl Replicas {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn follow(&self, asked: &FollowRequest) -> Result<Updates, Status> {
        let settings = &self.shared.settings;
        let refuse = |reason, status| {
            self.shared.metrics.refused(reason);
            Err(status)
        };
        if asked.version == 0 {
            return refuse("version", Status::failed_precondition("version: got 0, expected 1 or more"));
        }
        if asked.pool != settings.pool {
            let message =
                format!("this replica serves the pool {}, and the follower another one", settings.pool);
            return refuse("pool", Status::failed_precondition(message));
        }
        let Some(place) = Place::take(&self.shared.followers, FOLLOWERS) else {
            return refuse(
                "full",
                Status::resource_exhausted(format!("{FOLLOWERS} followers are the limit")),
            );
        };
        self.shared.followed();
        let follower = Follower {
            changed: self.shared.subscribe(),
            shared: Arc::clone(&self.shared),
            cursor: Cursor::default(),
            spoke: Instant::now(),
            _place: place,
        };
        Ok(follower.updates())
    }
}

/// A place among the followers, given back when dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// One of at most `max` places.
    pub(super) fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let more = |open: usize| (open < max).then_some(open + 1);
        count.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The messages of one stream.
type Updates = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

/// One open stream. A message is made when the connection has room for it, from the changes up to that time.
struct Follower {
    shared: Arc<Shared>,
    cursor: Cursor,
    changed: watch::Receiver<u64>,
    spoke: Instant,
    _place: Place,
}

impl Follower {
    fn updates(self) -> Updates {
        Box::pin(futures_util::stream::unfold(self, |mut follower| async move {
            let update = follower.next().await?;
            Some((Ok(update), follower))
        }))
    }

    async fn next(&mut self) -> Option<Update> {
        let closing = self.shared.closing.clone();
        let update = loop {
            if closing.is_cancelled() {
                return None;
            }
            self.changed.borrow_and_update();
            if let Some(update) = self.shared.update(&mut self.cursor) {
                break update;
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = sleep_until(self.spoke + SIGN_OF_LIFE) => break self.shared.sign_of_life(&mut self.cursor),
                () = closing.cancelled() => return None,
            }
        };
        self.spoke = Instant::now();
        self.shared.metrics.sent(update.encoded_len(), update.snapshot);
        Some(update)
    }
}

impl ServerStreamingService<FollowRequest> for Replicas {
    type Response = Update;
    type ResponseStream = Updates;
    type Future = Ready<Result<Response<Updates>, Status>>;

    fn call(&mut self, request: Request<FollowRequest>) -> Self::Future {
        ready(self.follow(request.get_ref()).map(Response::new))
    }
}

impl NamedService for Replicas {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<HttpRequest<Body>> for Replicas {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let replicas = self.clone();
        match request.uri().path() {
            FOLLOW_PATH => Box::pin(async move {
                let codec: ProstCodec<Update, FollowRequest> = ProstCodec::default();
                let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_QUESTION_BYTES);
                Ok(grpc.server_streaming(replicas, request).await)
            }),
            _ => Box::pin(ready(Ok(Status::unimplemented("no such method").into_http()))),
        }
    }
}
