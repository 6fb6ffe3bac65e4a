//! Leader election: keeps the Lease if we hold it, and waits for it otherwise.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::holder::{self, ANNOTATION, Reach};
use super::lease::{Elector, Record, Step};
use super::{Failure, told};
use crate::metrics::KubernetesMetrics;
use crate::telemetry::Repeat;

/// Length of a watch call.
const WATCH_SECONDS: u32 = 25;
/// Least time between looks because of changes: whoever changes the Lease all the time must not make us ask all the
/// time.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// Longest time for giving the lease back at the end; who does not get it back takes it when it runs out.
const RELEASE: Duration = Duration::from_secs(2);

/// The settings by which replicas share the lease.
#[derive(Clone, Debug)]
pub struct ElectionSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Our name in it, unlike that of any other replica and of our own former lives.
    pub identity: String,
    /// Time after which a lease that was not renewed may be taken by another; whole seconds, as the Lease has them.
    pub duration: Duration,
    /// The address at which standbys ask whether this replica still leads. With `None` they wait until the lease runs
    /// out.
    pub health: Option<SocketAddr>,
}

impl ElectionSettings {
    /// A leader that could not renew for this long stops leading: two thirds of the duration, 10 s of 15 s.
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Time between renewals, and between looks of those who wait: 2 s of 15 s.
    fn retry(&self) -> Duration {
        self.duration * 2 / 15
    }
}

/// Says whether this replica leads. Asking and waiting for a change are cheap.
#[derive(Clone, Debug)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    elected: bool,
}

impl Leadership {
    /// Without an election everyone leads.
    pub fn everyone() -> Self {
        // A receiver goes on showing the last value when its sender is gone.
        Self { leads: watch::Sender::new(true).subscribe(), elected: false }
    }

    /// As `leads` says, for tests.
    #[cfg(test)]
    pub(super) fn shown_by(leads: &watch::Sender<bool>) -> Self {
        Self { leads: leads.subscribe(), elected: true }
    }

    /// True if there is an election at all.
    pub fn is_elected(&self) -> bool {
        self.elected
    }

    /// True while this replica leads.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// Waits until this replica leads, or does not any more. Never resolves once that can't change.
    pub async fn until(&mut self, leads: bool) {
        if self.leads.wait_for(|now| *now == leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The election as one replica takes part in it.
#[derive(Debug)]
pub struct Election {
    settings: ElectionSettings,
    metrics: KubernetesMetrics,
    leads: watch::Sender<bool>,
}

impl Election {
    /// Nobody leads yet.
    pub fn new(settings: ElectionSettings, metrics: KubernetesMetrics) -> Self {
        metrics.set_leader(false);
        Self { settings, metrics, leads: watch::Sender::new(false) }
    }

    /// Our name in the lease.
    pub fn identity(&self) -> &str {
        &self.settings.identity
    }

    /// Others ask there whether we still lead; `None`: nowhere.
    pub fn reached_at(&mut self, health: Option<SocketAddr>) {
        self.settings.health = health;
    }

    /// A handle that says whether this replica leads.
    pub fn leadership(&self) -> Leadership {
        Leadership { leads: self.leads.subscribe(), elected: true }
    }

    /// Takes part until `stop`, then gives the lease back and returns.
    pub async fn run(self, client: Client, stop: CancellationToken) {
        let lease = self.settings.name.clone();
        tracing::info!(lease, identity = self.settings.identity, "taking part in the election of a leader");
        let api: Api<Lease> = Api::namespaced(client, &self.settings.namespace);
        let mut elector = Elector::new(self.settings.identity.clone(), self.settings.renew_deadline());
        let mut held = None;
        let failures = Repeat::every(Duration::from_mins(1));
        let only =
            watcher::Config::default().fields(&format!("metadata.name={lease}")).timeout(WATCH_SECONDS);
        let mut changes = std::pin::pin!(watcher(api.clone(), only.clone()));
        let mut deaf_until = now();
        let mut led = false;
        let mut holder = HolderWatch::default();
        while !stop.is_cancelled() {
            let start = now();
            let leads_until = elector.leads_until();
            let attempt = self.attempt(&api, &mut elector, &mut held, &mut holder);
            // An answer that does not come at all leaves time for a second attempt, over another connection.
            let attempt = tokio::time::timeout(self.settings.renew_deadline() / 2, attempt);
            // However long an answer takes, the right to lead ends when it ends.
            let Some(attempt) = self.in_time(attempt, leads_until, &stop).await else { break };
            let wake = match attempt {
                Ok(Ok(wake)) => {
                    failures.reset();
                    wake
                }
                Ok(Err(error)) => {
                    if Failure::from(&error) != Failure::Expired
                        && let Some(suppressed) = failures.due(start)
                    {
                        tracing::warn!(
                            error = told(&error),
                            lease,
                            suppressed,
                            "the lease cannot be read or written"
                        );
                    }
                    None
                }
                Err(_) => None,
            };
            self.show(elector.leads(now()));
            let waiting = !elector.leads(now());
            if std::mem::replace(&mut led, !waiting) && waiting {
                // It was not listened to while we led, and would begin with what happened then.
                changes.set(watcher(api.clone(), only.clone()));
            }
            let pause = self.settings.retry().mul_f64(0.8 + 0.4 * fastrand::f64());
            // Next: at the usual pace, when another's lease runs out, and when our own does.
            let own = elector.leads_until().filter(|_| !waiting);
            let wake = [wake, own].into_iter().flatten().fold(start + pause, Instant::min);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(wake.into()) => {}
                // A lease that is given back is taken at once. A watch that fails is let rest; looking goes on without
                // it.
                change = heard(&mut changes, deaf_until), if waiting => {
                    let rest = if matches!(change, Some(Ok(_))) { LEAST_PAUSE } else { pause };
                    deaf_until = now() + rest;
                }
                () = holder.ended(), if waiting => elector.ended(),
            }
            self.show(elector.leads(now()));
        }
        self.show(false);
        match tokio::time::timeout(RELEASE, self.release(&api)).await {
            Ok(Ok(true)) => tracing::info!(lease, "lease given back"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    error = told(&error),
                    lease,
                    "lease not given back; if it is ours it runs out by itself"
                );
            }
            Err(_) => {
                tracing::warn!(lease, "lease not given back in time; if it is ours it runs out by itself");
            }
        }
    }

    /// Waits for `work`, showing when the right to lead ends before it does. `None` when told to stop.
    async fn in_time<F: Future>(
        &self,
        work: F,
        leads_until: Option<Instant>,
        stop: &CancellationToken,
    ) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        let mut leads_until = leads_until;
        loop {
            let end = async {
                match leads_until {
                    Some(end) => tokio::time::sleep_until(end.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                done = &mut work => return Some(done),
                () = stop.cancelled() => return None,
                () = end => {
                    self.show(false);
                    leads_until = None;
                }
            }
        }
    }

    /// One look at the lease, and what follows from it. Gives the time at which another's lease runs out. While we
    /// lead, `held` is the lease as we wrote it, and is renewed without a look: if it has changed since, the server
    /// refuses.
    async fn attempt(
        &self,
        api: &Api<Lease>,
        elector: &mut Elector,
        held: &mut Option<Lease>,
        holder: &mut HolderWatch,
    ) -> kube::Result<Option<Instant>> {
        if let Some(lease) = held.take() {
            match self.attempt_on(api, elector, held, Some(lease)).await {
                // Somebody has changed or deleted it: it is looked at now.
                Err(error) if matches!(Failure::from(&error), Failure::Expired | Failure::Absent) => {}
                done => return done,
            }
        }
        let found = api.get_opt(&self.settings.name).await?;
        holder.look_at(found.as_ref(), &self.settings.identity);
        self.attempt_on(api, elector, held, found).await
    }

    async fn attempt_on(
        &self,
        api: &Api<Lease>,
        elector: &mut Elector,
        held: &mut Option<Lease>,
        found: Option<Lease>,
    ) -> kube::Result<Option<Instant>> {
        // The right to lead counts from before the request: the server may have written it any time after.
        let now = now();
        let me = &self.settings.identity;
        let written = match elector.step(found.as_ref().map(record), now) {
            Step::Create => {
                let mut fresh = Lease {
                    metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
                    spec: Some(self.spec(me, None, 0)),
                };
                self.sign(&mut fresh);
                api.create(&PostParams::default(), &fresh).await
            }
            Step::Take { transitions } => {
                self.replace(api, found, |_| self.spec(me, None, transitions)).await
            }
            Step::Renew => {
                let renewed = |old: &LeaseSpec| {
                    self.spec(me, old.acquire_time.clone(), old.lease_transitions.unwrap_or(0))
                };
                self.replace(api, found, renewed).await
            }
            Step::Wait(until) => {
                elector.gave_up();
                return Ok(Some(until));
            }
        };
        *held = Some(written?);
        elector.wrote(now);
        Ok(None)
    }

    async fn replace(
        &self,
        api: &Api<Lease>,
        found: Option<Lease>,
        change: impl FnOnce(&LeaseSpec) -> LeaseSpec,
    ) -> kube::Result<Lease> {
        // The version goes with it: if another was faster, this is refused.
        let mut lease = found.unwrap_or_default();
        lease.spec = Some(change(&lease.spec.take().unwrap_or_default()));
        self.sign(&mut lease);
        api.replace(&self.settings.name, &PostParams::default(), &lease).await
    }

    /// Writes down where our health is asked.
    fn sign(&self, lease: &mut Lease) {
        let Some(address) = self.settings.health else { return };
        let reach = Reach { identity: self.settings.identity.clone(), address };
        lease.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), reach.text());
    }

    /// Gives the lease back if it is ours, also if we do not know that: the answer to a write may have been lost. True
    /// if it was.
    async fn release(&self, api: &Api<Lease>) -> kube::Result<bool> {
        loop {
            let Some(found) = api.get_opt(&self.settings.name).await? else { return Ok(false) };
            if record(&found).holder != self.settings.identity {
                return Ok(false);
            }
            let empty = |old: &LeaseSpec| LeaseSpec {
                lease_duration_seconds: Some(1),
                ..self.spec("", None, old.lease_transitions.unwrap_or(0))
            };
            match self.replace(api, Some(found), empty).await {
                // A renewal that was under way has come in between.
                Err(error) if Failure::from(&error) == Failure::Expired => {}
                done => return done.map(|_| true),
            }
        }
    }

    fn spec(&self, holder: &str, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(self.settings.duration.as_secs().max(1) as i32),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Tells everybody who asks, once for each change.
    fn show(&self, leads: bool) {
        let changed = self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads);
        if changed {
            self.metrics.leader_changed(leads);
            let lease = &self.settings.name;
            if leads {
                tracing::info!(lease, "this replica leads");
            } else {
                tracing::info!(lease, "this replica does not lead any more");
            }
        }
    }
}

/// The time by the runtime's clock, which tests may set.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Asks whoever holds the lease whether it still leads, as long as the same one holds it.
#[derive(Default)]
struct HolderWatch {
    reach: Option<Reach>,
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HolderWatch {
    /// The lease was read by `me`.
    fn look_at(&mut self, lease: Option<&Lease>, me: &str) {
        let reach = lease.and_then(|lease| {
            let text = lease.metadata.annotations.as_ref()?.get(ANNOTATION)?;
            Reach::read(text, lease.spec.as_ref()?.holder_identity.as_deref()?)
        });
        let reach = reach.filter(|reach| reach.identity != me);
        if reach != self.reach || self.ended.is_none() {
            self.ended = reach.clone().map(|reach| Box::pin(holder::ended(reach)) as _);
            self.reach = reach;
        }
    }

    /// Resolves, once after each look, when the holder has certainly stopped leading.
    async fn ended(&mut self) {
        match &mut self.ended {
            Some(ended) => ended.await,
            None => std::future::pending().await,
        }
        self.ended = None;
    }
}

/// The next change, not before `from`.
async fn heard<T>(changes: &mut (impl Stream<Item = T> + Unpin), from: Instant) -> Option<T> {
    tokio::time::sleep_until(from.into()).await;
    changes.next().await
}

impl Drop for Election {
    /// A replica that does not take part any more, for whatever reason, does not lead.
    fn drop(&mut self) {
        self.show(false);
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0)),
        transitions: spec.lease_transitions.unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
