//! The Kubernetes side, wired: discovery, the election of a leader, and who may read metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::ServeFlags;
use super::settings::Settings;
use crate::admin::Access;
use crate::discovery::{Discovery, KubernetesDiscovery, Scope, without_repeats};
use crate::document::{check_selector, is_label_key, is_label_value};
use crate::kubernetes::{
    Connection, Election, ElectionSettings, LabelSettings, LeaderLabel, Leadership, TokenReviews,
};
use crate::metrics::Metrics;
use crate::pool::Pool;

/// Ports of a pod, at most; an InferencePool has no more either.
const MAX_PORTS: usize = 8;

/// Longest wait for the addresses of the API server's name.
const LOOKUP: Duration = Duration::from_secs(2);

/// Pause before discovery begins again.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// The pods that the flags ask for. `Err` says which flags are missing or wrong.
pub(super) fn scope(flags: &ServeFlags, pod_name: Option<&str>) -> anyhow::Result<Scope> {
    if flags.endpoint_selector.is_empty() {
        if flags.pool_name.is_empty() {
            bail!(
                "either --pool-name (an InferencePool) or --endpoint-selector (a label selector of pods) must be set; without Kubernetes, list a \
                 file-discovery plugin in the configuration and name it in dataLayer.discovery.pluginRef"
            );
        }
        if !flags.pool_group.contains('.') {
            bail!(
                "--pool-group: got {:?}, expected an API group such as inference.networking.k8s.io",
                flags.pool_group
            );
        }
        return Ok(Scope::Pool { group: flags.pool_group.clone() });
    }
    if let Err(problem) = check_selector(&flags.endpoint_selector) {
        bail!("--endpoint-selector {:?}: {problem}", flags.endpoint_selector);
    }
    let ports = without_repeats(flags.endpoint_target_ports.clone());
    if ports.is_empty() || ports.len() > MAX_PORTS || ports.contains(&0) {
        bail!(
            "--endpoint-target-ports: got {:?}, expected 1 to {MAX_PORTS} ports from 1 to 65535, with commas; --endpoint-selector needs them",
            flags.endpoint_target_ports
        );
    }
    if pod_name.is_none() {
        bail!(
            "--endpoint-selector needs the environment variable POD_NAME (fieldRef metadata.name): the pool is named after it"
        );
    }
    Ok(Scope::Selector { selector: flags.endpoint_selector.clone(), ports })
}

/// The label that marks the leader's pod, if one is asked for. `Err` says what is missing or wrong.
fn leader_label(flags: &ServeFlags, settings: &Settings) -> anyhow::Result<Option<LabelSettings>> {
    if flags.ha_leader_label.is_empty() {
        return Ok(None);
    }
    let Some((key, value)) = flags
        .ha_leader_label
        .split_once('=')
        .filter(|(key, value)| is_label_key(key) && is_label_value(value) && !value.is_empty())
    else {
        bail!(
            "--ha-leader-label: got {:?}, expected a label KEY=VALUE such as pointsman/leader=my-epp",
            flags.ha_leader_label
        );
    };
    if !flags.ha_enable_leader_election {
        bail!("--ha-leader-label needs --ha-enable-leader-election: without it nobody leads");
    }
    let Some(pod) = settings.pod_name.clone() else {
        bail!(
            "--ha-leader-label needs the environment variable POD_NAME (fieldRef metadata.name): the leader labels its own pod"
        );
    };
    Ok(Some(LabelSettings {
        namespace: settings.pool_namespace.clone(),
        pod,
        key: key.to_owned(),
        value: value.to_owned(),
    }))
}

/// Everything that needs the API server.
pub(super) struct Cluster {
    connection: Connection,
    scope: Scope,
    election: Option<Election>,
    label: Option<LeaderLabel>,
    leadership: Leadership,
    /// Replicas that do not lead know the pool as well.
    warm: bool,
    auth: bool,
    metrics: Arc<Metrics>,
}

impl Cluster {
    /// Finds the API server. Nothing is asked of it yet: it may be away while we start.
    pub(super) async fn connect(
        flags: &ServeFlags,
        settings: &Settings,
        scope: Scope,
        warm: bool,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let label = leader_label(flags, settings)?.map(|label| LeaderLabel::new(label, metrics.kubernetes()));
        let connection = match flags.kubeconfig.as_str() {
            "" => Connection::from_environment().await?,
            path => Connection::from_file(path).await?,
        };
        // That a client can be made of it is found out here, and not by a thread that has begun.
        connection.client()?;
        let election = flags.ha_enable_leader_election.then(|| {
            let settings = ElectionSettings {
                name: format!("epp-{}-{}.llm-d.ai", settings.pool_namespace, settings.pool_name),
                namespace: settings.pool_namespace.clone(),
                identity: format!("{}_{:016x}", settings.host(), fastrand::u64(..)),
                duration: flags.ha_lease_duration,
                health: None,
            };
            Election::new(settings, metrics.kubernetes())
        });
        let leadership = election.as_ref().map_or_else(
            || {
                metrics.kubernetes().set_leader(true);
                Leadership::everyone()
            },
            Election::leadership,
        );
        Ok(Self {
            connection,
            scope,
            election,
            label,
            leadership,
            warm,
            auth: flags.metrics_endpoint_auth,
            metrics: Arc::clone(metrics),
        })
    }

    /// A handle that says whether this replica leads.
    pub(super) fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// The way to the API server.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Makes the judge of the metrics port's callers; `None` if everyone may read it. Call it in the runtime of the
    /// metrics port.
    pub(super) fn access(&self) -> Option<impl FnOnce() -> anyhow::Result<Arc<dyn Access>> + Send + 'static> {
        let (connection, metrics) = (self.connection.clone(), self.metrics.kubernetes());
        self.auth.then_some(move || {
            let access: Arc<dyn Access> = Arc::new(TokenReviews::new(connection.client()?, metrics));
            Ok(access)
        })
    }

    /// This replica's name in the election; `None` without one.
    pub(super) fn identity(&self) -> Option<&str> {
        self.election.as_ref().map(Election::identity)
    }

    /// This replica's part in the election until `resign`, and the label of the leader's pod; `None` without an
    /// election. It wants a thread of its own: renewals may not wait until a page of pods is read. The health port
    /// listens at `health`.
    pub(super) fn electing(
        &mut self,
        health: SocketAddr,
        resign: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (mut election, label) = (self.election.take()?, self.label.take());
        let (connection, leadership) = (self.connection.clone(), self.leadership.clone());
        Some(async move {
            let client = match connection.client().context("election") {
                Ok(client) => client,
                Err(error) => {
                    return tracing::error!(error = format!("{error:#}"), "no part in the election");
                }
            };
            election.reached_at(reachable(&connection, health).await);
            let labelling = async {
                if let Some(label) = label {
                    label.run(client.clone(), leadership, resign.clone()).await;
                }
            };
            tokio::join!(election.run(client.clone(), resign.clone()), labelling);
        })
    }

    /// Fills the pool until `stop`. `resign` says that leadership is being given up.
    pub(super) async fn run(self, pool: Arc<Pool>, stop: CancellationToken, resign: CancellationToken) {
        let Self { connection, scope, leadership, warm, metrics, .. } = self;
        while !stop.is_cancelled() {
            if !warm {
                let mut leads = leadership.clone();
                tokio::select! {
                    () = leads.until(true) => {}
                    () = stop.cancelled() => return,
                }
            }
            let discovery = KubernetesDiscovery {
                connection: connection.clone(),
                scope: scope.clone(),
                leadership: leadership.clone(),
                metrics: Arc::clone(&metrics),
            };
            tokio::select! {
                ended = discovery.run(Arc::clone(&pool), stop.clone()) => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "discovery ended; the last good state stays in force");
                    }
                }
                () = lost(&leadership, &resign), if !warm => pool.forget_endpoints(),
            }
            tokio::select! {
                () = tokio::time::sleep(BEGIN_AGAIN) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Where other replicas reach a port that listens at `bound`: a port that listens everywhere has the address from which
/// this machine speaks to the API server. Nothing is sent. `None` if there is no such address.
async fn reachable(connection: &Connection, bound: SocketAddr) -> Option<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return Some(bound);
    }
    let (host, port) = connection.host()?;
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
    for server in found {
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        if bound.is_ipv4() && server.is_ipv6() {
            continue;
        }
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(server).await.is_ok()
            && let Ok(own) = socket.local_addr()
        {
            return Some(SocketAddr::new(own.ip(), bound.port()));
        }
    }
    None
}

/// Resolves when another may lead. Not when this replica gave the lease back itself: it ends, and serves until then.
async fn lost(leadership: &Leadership, resign: &CancellationToken) {
    leadership.clone().until(false).await;
    if resign.is_cancelled() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn scope_of(line: &str, pod: Option<&str>) -> Result<Scope, String> {
        let words = std::iter::once("pointsman").chain(line.split('\t').filter(|word| !word.is_empty()));
        let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
        scope(&ServeFlags::from_arg_matches(&matches).unwrap(), pod).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pool_or_a_selector_is_needed() {
        assert!(scope_of("", None).unwrap_err().contains("--pool-name"));
        let pool = scope_of("--pool-name\tp", None).unwrap();
        assert_eq!(pool, Scope::Pool { group: "inference.networking.k8s.io".into() });
        assert!(
            scope_of("--pool-name\tp\t--pool-group\tx", None)
                .unwrap_err()
                .contains("--pool-group: got \"x\"")
        );
    }

    #[test]
    fn a_selector_needs_ports_and_the_name_of_the_pod() {
        let line = "--endpoint-selector\tapp in (a,b)\t--endpoint-target-ports\t8000,8001,8000";
        let expected = Scope::Selector { selector: "app in (a,b)".into(), ports: vec![8000, 8001] };
        assert_eq!(scope_of(line, Some("epp-1")), Ok(expected));
        assert!(scope_of(line, None).unwrap_err().contains("POD_NAME"));
        assert!(
            scope_of("--endpoint-selector\tapp=a", Some("p"))
                .unwrap_err()
                .contains("--endpoint-target-ports")
        );
        assert!(scope_of("--endpoint-selector\tapp=a b", Some("p")).unwrap_err().contains("\"a b\""));
        let many = "--endpoint-selector\tapp=a\t--endpoint-target-ports\t1,2,3,4,5,6,7,8,9";
        assert!(scope_of(many, Some("p")).unwrap_err().contains("1 to 8 ports"));
    }

    #[test]
    fn the_label_of_the_leader_needs_an_election_a_pod_and_a_label() {
        let label = |line: &str, pod: Option<&str>| {
            let words = std::iter::once("pointsman").chain(line.split(' '));
            let matches = ServeFlags::augment_args(Command::new("pointsman")).get_matches_from(words);
            let flags = ServeFlags::from_arg_matches(&matches).unwrap();
            let name = |name: &str| pod.filter(|_| name == "POD_NAME").map(str::to_owned);
            let settings = Settings::new(&flags, name).unwrap();
            leader_label(&flags, &settings).map_err(|error| error.to_string())
        };
        let line = "--ha-enable-leader-election --pool-namespace ns --ha-leader-label pointsman/leader=a-epp";
        let expected = LabelSettings {
            namespace: "ns".into(),
            pod: "a-epp-1".into(),
            key: "pointsman/leader".into(),
            value: "a-epp".into(),
        };
        assert_eq!(label(line, Some("a-epp-1")), Ok(Some(expected)));
        assert_eq!(label("--ha-enable-leader-election", None), Ok(None));
        assert!(label(line, None).unwrap_err().contains("POD_NAME"));
        assert!(
            label("--ha-leader-label a=b", Some("p")).unwrap_err().contains("--ha-enable-leader-election")
        );
        for wrong in ["leader", "leader=", "=a", "a=b,c=d", "a b=c", "a/b/c=d", "a!=b", "a==b"] {
            let line =
                format!("--ha-enable-leader-election --ha-leader-label={}", wrong.replace(' ', "\u{a0}"));
            let problem = label(&line, Some("p")).unwrap_err();
            assert!(problem.contains("expected a label KEY=VALUE"), "{wrong}: {problem}");
        }
    }
}
