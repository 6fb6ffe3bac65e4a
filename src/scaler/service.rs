//! The gRPC service: questions answered from the numbers of now.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use http::{Request as HttpRequest, Response as HttpResponse};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::codec::{
    GET_METRIC_SPEC_PATH, GET_METRICS_PATH, IS_ACTIVE_PATH, MAX_MESSAGE_BYTES, SERVICE_NAME,
    STREAM_IS_ACTIVE_PATH,
};
use super::shared::{BREATH, LOOK_AGAIN, ScalerSettings, Shared};
use super::stream::{Answers, OpenStream, Streamed};
use super::unary::Unary;
use super::wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use super::{Role, ScalerSource, Trigger};

/// `externalscaler.ExternalScaler`.
#[derive(Clone)]
pub struct KedaScaler {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for KedaScaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KedaScaler").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl KedaScaler {
    /// A service that reads `source`, and answers.
    pub fn new(source: Arc<dyn ScalerSource>, settings: ScalerSettings) -> Self {
        let shared = Shared {
            source,
            settings,
            activity: Mutex::default(),
            streams: Arc::default(),
            role: watch::Sender::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Streams open now.
    pub fn open_streams(&self) -> usize {
        self.shared.streams.load(Relaxed)
    }

    /// Takes another role, unless it is closed. Streams and connections follow.
    pub fn set_role(&self, role: Role) {
        self.shared.role.send_if_modified(|now| {
            let changes = *now != role && *now != Role::Closed;
            if changes {
                *now = role;
            }
            changes
        });
    }

    /// Ends all streams, and those that are opened from now on.
    pub fn close(&self) {
        self.set_role(Role::Closed);
    }

    /// The role, and its changes.
    pub(super) fn role(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    /// Remembers work that nobody asked about while it was there, until the source or the service ends.
    /// [`serve`](super::serve) runs it.
    pub async fn remember(&self) {
        let mut waiting = self.shared.source.subscribe();
        let mut role = self.role();
        while *role.borrow_and_update() != Role::Closed {
            let Ok(stirred) = waiting.has_changed() else { return };
            waiting.borrow_and_update();
            let look = self.shared.look(stirred);
            self.shared.activity.lock().note(look);
            sleep(BREATH).await;
            tokio::select! {
                // Seen again above, and there taken in.
                _ = waiting.changed() => waiting.mark_changed(),
                () = sleep_until(look.at + LOOK_AGAIN) => {}
                _ = role.changed() => {}
            }
        }
    }

    pub(super) fn is_active(&self, asked: &ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        self.answers()?;
        let trigger = self.trigger(asked)?;
        let look = self.shared.look(false);
        let verdict = self.shared.activity.lock().judge(trigger.activation, trigger.cool_down, look);
        Ok(IsActiveResponse { result: verdict.is_active() })
    }

    fn metric_spec(&self, asked: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        self.answers()?;
        let trigger = self.trigger(asked)?;
        let spec = MetricSpec {
            metric_name: trigger.metric.name().to_owned(),
            target_size: trigger.target.ceil() as i64,
            target_size_float: trigger.target,
        };
        Ok(GetMetricSpecResponse { metric_specs: vec![spec] })
    }

    fn metrics(&self, asked: &GetMetricsRequest) -> Result<GetMetricsResponse, Status> {
        self.answers()?;
        let Some(object) = &asked.scaled_object_ref else {
            return Err(Status::invalid_argument("scaledObjectRef is missing"));
        };
        let metric = self.trigger(object)?.metric;
        let name = metric.name();
        if !asked.metric_name.is_empty() && asked.metric_name != name {
            let got: String = asked.metric_name.chars().take(64).collect();
            return Err(Status::invalid_argument(format!(
                "metricName: got `{}`, expected `{name}`, which the trigger's metadata selects",
                got.escape_debug()
            )));
        }
        // Without a value the autoscaler leaves things as they are; a made-up one would move them.
        let Some(value) = metric.value(self.shared.source.as_ref()) else {
            return Err(Status::unavailable(format!("{name} is not known now")));
        };
        let value = MetricValue {
            metric_name: name.to_owned(),
            metric_value: value.ceil() as i64,
            metric_value_float: value,
        };
        Ok(GetMetricsResponse { metric_values: vec![value] })
    }

    /// Opens a stream of verdicts.
    pub(super) fn stream(&self, asked: &ScaledObjectRef) -> Result<Answers, Status> {
        let trigger = self.trigger(asked)?;
        let max = self.shared.settings.max_streams;
        let place = OpenStream::take(&self.shared.streams, max).ok_or_else(|| {
            tracing::warn!(max, name = %asked.name.escape_debug(), "too many scaler streams");
            Status::resource_exhausted(format!("{max} streams are open, which is the limit"))
        })?;
        Ok(Streamed::new(Arc::clone(&self.shared), trigger, place).answers())
    }

    /// `Err` while another replica knows better.
    fn answers(&self) -> Result<(), Status> {
        let reason = match *self.shared.role.borrow() {
            Role::Answering => return Ok(()),
            Role::Standby => {
                "this replica does not know the pool's demand: it does not lead, or has just begun to"
            }
            Role::Closed => "this replica is shutting down",
        };
        Err(Status::unavailable(reason))
    }

    fn trigger(&self, asked: &ScaledObjectRef) -> Result<Trigger, Status> {
        Trigger::read(&asked.scaler_metadata, &self.shared.settings.pool).map_err(|error| {
            tracing::debug!(%error, name = %asked.name.escape_debug(), "scaler trigger refused");
            Status::invalid_argument(error.to_string())
        })
    }
}

impl ServerStreamingService<ScaledObjectRef> for KedaScaler {
    type Response = IsActiveResponse;
    type ResponseStream = Answers;
    type Future = Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<ScaledObjectRef>) -> Self::Future {
        ready(self.stream(request.get_ref()).map(Response::new))
    }
}

impl NamedService for KedaScaler {
    const NAME: &'static str = SERVICE_NAME;
}

fn grpc<Answer, Asked>() -> Grpc<ProstCodec<Answer, Asked>>
where
    Answer: prost::Message + Send + 'static,
    Asked: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

impl Service<HttpRequest<Body>> for KedaScaler {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let scaler = self.clone();
        match request.uri().path() {
            IS_ACTIVE_PATH => Box::pin(async move {
                Ok(grpc().unary(Unary(|asked: ScaledObjectRef| scaler.is_active(&asked)), request).await)
            }),
            GET_METRIC_SPEC_PATH => Box::pin(async move {
                Ok(grpc().unary(Unary(|asked: ScaledObjectRef| scaler.metric_spec(&asked)), request).await)
            }),
            GET_METRICS_PATH => Box::pin(async move {
                Ok(grpc().unary(Unary(|asked: GetMetricsRequest| scaler.metrics(&asked)), request).await)
            }),
            STREAM_IS_ACTIVE_PATH => {
                Box::pin(async move { Ok(grpc().server_streaming(scaler, request).await) })
            }
            // KEDA also tries StreamMetricSpec, and takes this answer for "targets do not change".
            _ => Box::pin(ready(Ok(Status::unimplemented("no such method").into_http()))),
        }
    }
}
