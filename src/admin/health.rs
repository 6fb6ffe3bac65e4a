//! Health over gRPC: whether requests should be sent here.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tracing::info;

/// Service name of the picker, by which proxies ask.
pub(super) const EXT_PROC: &str = "envoy.service.ext_proc.v3.ExternalProcessor";

/// Service name of liveness probes.
pub(super) const LIVENESS: &str = "liveness";

/// Service name of readiness probes.
pub(super) const READINESS: &str = "readiness";

/// Service name of the readiness probe where a label marks the leader: a replica that stands by is available too.
pub(super) const AVAILABLE: &str = "available";

/// Start of a service name by which replicas ask each other who leads: this, followed by the identity of the replica
/// that is meant.
pub const LEADER_SERVICE: &str = "leader/";

/// Time between two looks at a status that is watched.
const POLL: Duration = Duration::from_millis(500);

/// Watches at a time.
const WATCHES: usize = 64;

/// The facts that health depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthState {
    /// Discovery has delivered the pool, be it empty, and peers have told what they know, or were waited for long enough.
    pub live: bool,
    /// Replicas elect a leader.
    pub leader_election: bool,
    /// This one is it; counts only with an election.
    pub leader: bool,
    /// A replica that stands by knows no pool until it leads.
    pub cold_standby: bool,
    /// Every parser speaks the pool's protocol.
    pub protocol_matches: bool,
    /// Shutting down.
    pub draining: bool,
}

impl HealthState {
    /// Status of the service called `service`. Liveness always holds: a process that waits for its pool is not helped
    /// by a restart. Without an election every other name asks for readiness.
    pub fn status(self, service: &str) -> ServingStatus {
        if service == AVAILABLE && self.leader_election {
            return self.availability();
        }
        let known = matches!(service, "" | READINESS | EXT_PROC);
        if service == LIVENESS {
            return ServingStatus::Serving;
        }
        if self.leader_election && !known {
            return ServingStatus::ServiceUnknown;
        }
        let leads = self.leader || !self.leader_election;
        if self.live && self.protocol_matches && !self.draining && leads {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Serving if this replica could take part, whichever replica leads. A roll-out waits for this.
    fn availability(self) -> ServingStatus {
        let stands_by_cold = self.cold_standby && !self.leader;
        if (self.live || stands_by_cold) && self.protocol_matches && !self.draining {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Services that a listing names.
    pub(super) fn services(self) -> &'static [&'static str] {
        if self.leader_election { &[EXT_PROC, LIVENESS, READINESS] } else { &[EXT_PROC] }
    }
}

/// The health service. Clones share the state.
#[derive(Clone)]
pub struct HealthService {
    read: Arc<dyn Fn() -> HealthState + Send + Sync>,
    identity: Option<Arc<str>>,
    logged: Arc<Mutex<Option<HealthState>>>,
    watches: Arc<Semaphore>,
}

impl HealthService {
    /// A service that asks `read` whenever somebody asks it.
    pub fn new(read: impl Fn() -> HealthState + Send + Sync + 'static) -> Self {
        Self {
            read: Arc::new(read),
            identity: None,
            logged: Arc::default(),
            watches: Arc::new(Semaphore::new(WATCHES)),
        }
    }

    /// The same for a replica that has this name in an election.
    #[must_use]
    pub fn of_replica(self, identity: Option<&str>) -> Self {
        Self { identity: identity.map(Arc::from), ..self }
    }

    /// Status of the service called `service`. Other replicas ask whether the one that they name still leads; a process
    /// that is not that one does not know it.
    fn status(&self, service: &str) -> ServingStatus {
        let state = self.state();
        match service.strip_prefix(LEADER_SERVICE) {
            None => state.status(service),
            Some(meant) if self.identity.as_deref() != Some(meant) => ServingStatus::ServiceUnknown,
            Some(_) if state.leader => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        }
    }

    /// The state now. A change is logged, once: probes come every few seconds.
    pub(super) fn state(&self) -> HealthState {
        let state = (self.read)();
        let mut logged = self.logged.lock();
        if *logged != Some(state) {
            *logged = Some(state);
            drop(logged);
            let ready = state.status("") == ServingStatus::Serving;
            info!(
                ready,
                pool_synced = state.live,
                leader = state.leader || !state.leader_election,
                protocol_matches = state.protocol_matches,
                draining = state.draining,
                "health changed"
            );
        }
        state
    }
}

impl std::fmt::Debug for HealthService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthService").field("logged", &self.logged).finish_non_exhaustive()
    }
}

pub(super) fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.status(&request.get_ref().service);
        Ok(Response::new(response(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(permit) = Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many health watches"));
        };
        let mut timer = interval(POLL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let service = request.into_inner().service;
        let watch = Watch { health: self.clone(), service, timer, sent: None, ended: false, _permit: permit };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

struct Watch {
    health: HealthService,
    service: String,
    timer: Interval,
    sent: Option<ServingStatus>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// The next change. A watch ends after it has told that the process drains, so that it does not hold up the
    /// server's end.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while !self.ended {
            self.timer.tick().await;
            let state = self.health.state();
            let status = self.health.status(&self.service);
            self.ended = state.draining;
            if self.sent != Some(status) {
                self.sent = Some(status);
                return Some((Ok(response(status)), self));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    const READY: HealthState = HealthState {
        live: true,
        leader_election: false,
        leader: false,
        cold_standby: false,
        protocol_matches: true,
        draining: false,
    };

    const NAMES: [&str; 5] = ["", READINESS, EXT_PROC, LIVENESS, "inference-extension"];

    /// `S` serving, `-` not serving, `?` unknown, for each of [`NAMES`].
    fn statuses(state: HealthState) -> String {
        let letter = |status| match status {
            ServingStatus::Serving => 'S',
            ServingStatus::NotServing => '-',
            _ => '?',
        };
        NAMES.map(|name| letter(state.status(name))).iter().collect()
    }

    #[test]
    fn without_an_election_every_name_asks_for_readiness_but_liveness() {
        assert_eq!(statuses(READY), "SSSSS");
        assert_eq!(statuses(HealthState { live: false, ..READY }), "---S-");
        assert_eq!(statuses(HealthState { protocol_matches: false, ..READY }), "---S-");
        assert_eq!(statuses(HealthState { draining: true, ..READY }), "---S-");
    }

    #[test]
    fn with_an_election_only_the_leader_is_ready_and_other_names_are_unknown() {
        let leader = HealthState { leader_election: true, leader: true, ..READY };
        assert_eq!(statuses(leader), "SSSS?");
        assert_eq!(statuses(HealthState { leader: false, ..leader }), "---S?");
        assert_eq!(statuses(HealthState { live: false, ..leader }), "---S?");
    }

    #[test]
    fn a_replica_that_stands_by_is_available_once_it_could_lead() {
        let standby = HealthState { leader_election: true, ..READY };
        let available = |state: HealthState| state.status(AVAILABLE) == ServingStatus::Serving;
        assert!(available(standby) && available(HealthState { leader: true, ..standby }));
        let unsynced = HealthState { live: false, ..standby };
        assert!(!available(unsynced), "it knows no pool yet");
        let cold = HealthState { cold_standby: true, ..unsynced };
        assert!(available(cold), "it knows one when it leads");
        assert!(!available(HealthState { leader: true, ..cold }));
        for broken in
            [HealthState { draining: true, ..standby }, HealthState { protocol_matches: false, ..standby }]
        {
            assert!(!available(broken), "{broken:?}");
        }
        assert!(
            available(READY) && !available(HealthState { live: false, ..READY }),
            "without an election: ready"
        );
    }

    #[test]
    fn replicas_are_told_whether_the_one_that_they_mean_leads() {
        let standby = HealthState { leader_election: true, ..READY };
        let of = |state, identity| HealthService::new(move || state).of_replica(identity);
        let asked = |service: HealthService| service.status("leader/pod_1");
        let leader = HealthState { leader: true, ..standby };
        assert_eq!(asked(of(leader, Some("pod_1"))), ServingStatus::Serving);
        assert_eq!(asked(of(standby, Some("pod_1"))), ServingStatus::NotServing);
        assert_eq!(asked(of(leader, Some("pod_2"))), ServingStatus::ServiceUnknown);
        assert_eq!(asked(of(leader, None)), ServingStatus::ServiceUnknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_tells_each_change_once_and_ends_when_draining() {
        let state = Arc::new(Mutex::new(HealthState { live: false, ..READY }));
        let shared = Arc::clone(&state);
        let service = HealthService::new(move || *shared.lock());
        let request = Request::new(HealthCheckRequest { service: String::new() });
        let mut watch = service.watch(request).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap(), response(ServingStatus::NotServing));
        state.lock().live = true;
        assert_eq!(watch.next().await.unwrap().unwrap(), response(ServingStatus::Serving));
        state.lock().draining = true;
        assert_eq!(watch.next().await.unwrap().unwrap(), response(ServingStatus::NotServing));
        assert!(watch.next().await.is_none());
    }

    #[tokio::test]
    async fn watches_are_bounded() {
        let service = HealthService::new(|| READY);
        let request = || Request::new(HealthCheckRequest::default());
        let mut open = Vec::new();
        for _ in 0..WATCHES {
            open.push(service.watch(request()).await.unwrap());
        }
        let refused = service.watch(request()).await.err().map(|status| status.code());
        assert_eq!(refused, Some(tonic::Code::ResourceExhausted));
        drop(open);
        assert!(service.watch(request()).await.is_ok());
    }
}
