//! How an endpoint picker watches the sidecars of its decode servers: their counts of outcomes, on the metrics pages that
//! the picker reads, show whether prompts are really processed by the prefill servers that it picks.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::page::SHOWN;
use crate::metrics::{SIDECAR_OUTCOMES, SplitMetrics, SplitState};
use crate::pool::{AttributeKey, AttributeSeries, DECODE_ROLES, Endpoint, EndpointId, ROLE_LABEL, Snapshot};

/// The writer in the keys of the attributes.
const PRODUCER: &str = "sidecar-outcomes";
/// Prompts after which an endpoint is judged.
const ENOUGH: u64 = 10;
/// Least time between two warnings about one server.
const PAUSE: Duration = Duration::from_mins(10);
/// The series that a picker reads to see what sidecars did.
pub fn series_of_outcomes() -> [AttributeSeries; 3] {
    SHOWN.map(|outcome| AttributeSeries {
        attribute: key(outcome),
        metric: SIDECAR_OUTCOMES,
        label: Some(("reason", outcome.reason())),
    })
}

fn key(outcome: Outcome) -> AttributeKey {
    AttributeKey::new(outcome.reason(), PRODUCER)
}

/// The counts of one sidecar: transferred, no parameters, prefill failed.
type Counts = [u64; 3];

/// What the watch remembers of one pod. The ranks of a pod share a sidecar.
#[derive(Debug)]
struct Server {
    last: Counts,
    /// Prompts since the last judgement.
    since: Counts,
    state: SplitState,
    warned: Option<Instant>,
}

/// Watches the sidecars of a pool.
#[derive(Debug)]
pub struct SidecarWatch {
    keys: [AttributeKey; 3],
    servers: HashMap<EndpointId, Server>,
    metrics: SplitMetrics,
}

impl SidecarWatch {
    /// A watch that writes what it sees to `metrics`.
    pub fn new(metrics: SplitMetrics) -> Self {
        Self { keys: SHOWN.map(key), servers: HashMap::new(), metrics }
    }

    /// Looks at the endpoints of `snapshot`. Writes the counts since the last look and the states of the servers to the
    /// metrics, and a warning for each server in a bad state, at most one in ten minutes.
    pub fn look(&mut self, snapshot: &Snapshot, now: Instant) {
        let shown: Vec<(&Endpoint, Option<Counts>)> =
            snapshot.endpoints().iter().map(|endpoint| (&**endpoint, self.counts(endpoint))).collect();
        let pods: HashSet<EndpointId> = shown.iter().map(|(endpoint, _)| pod_of(endpoint)).collect();
        self.servers.retain(|pod, _| pods.contains(pod));
        if shown.iter().all(|(_, counts)| counts.is_none()) {
            // No sidecar of the pool writes counts: nothing is known, and nothing is said.
            self.metrics.states(&[]);
            return;
        }
        let mut seen: HashSet<EndpointId> = HashSet::new();
        for (endpoint, counts) in shown {
            let pod = pod_of(endpoint);
            if seen.contains(&pod) || counts.is_none() && !decodes(endpoint) {
                continue;
            }
            seen.insert(pod.clone());
            let server = self.servers.entry(pod).or_insert_with(|| Server::new(counts));
            match counts {
                Some(counts) => {
                    let new = server.heard(counts);
                    self.metrics.prompts(SHOWN.map(Outcome::reason), new);
                }
                None if endpoint.load().is_reachable() => server.state = SplitState::Silent,
                None => {}
            }
            server.warn(endpoint, now);
        }
        let states: Vec<SplitState> =
            seen.iter().filter_map(|pod| Some(self.servers.get(pod)?.state)).collect();
        self.metrics.states(&states);
    }

    /// The counts on an endpoint's page; none without the series.
    fn counts(&self, endpoint: &Endpoint) -> Option<Counts> {
        let values = self.keys.each_ref().map(|key| endpoint.load().attribute(key));
        values.iter().any(Option::is_some).then(|| values.map(|value| count(value.unwrap_or(0.0))))
    }
}

/// The name of the endpoint's pod.
fn pod_of(endpoint: &Endpoint) -> EndpointId {
    EndpointId::new(endpoint.id().namespace(), &endpoint.spec().pod)
}

/// A counter's value as a whole number. Values that no counter has become 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is within the bounds")]
fn count(value: f64) -> u64 {
    if (0.0..9e15).contains(&value) { value as u64 } else { 0 }
}

/// True if the server's label says that it works on the decode stage.
fn decodes(endpoint: &Endpoint) -> bool {
    endpoint.label(ROLE_LABEL).is_some_and(|role| DECODE_ROLES.contains(&role))
}

impl Server {
    fn new(counts: Option<Counts>) -> Self {
        Self { last: counts.unwrap_or_default(), since: [0; 3], state: SplitState::Unknown, warned: None }
    }

    /// Takes counts in, and returns how many are new. Counts that fell are those of another process.
    fn heard(&mut self, counts: Counts) -> Counts {
        let restarted = counts.iter().zip(&self.last).any(|(now, before)| now < before);
        let mut new = counts;
        if !restarted {
            for (new, before) in new.iter_mut().zip(&self.last) {
                *new -= before;
            }
        }
        self.last = counts;
        for (since, new) in self.since.iter_mut().zip(&new) {
            *since = since.saturating_add(*new);
        }
        let [transferred, bare, failed] = self.since;
        let all = transferred.saturating_add(bare).saturating_add(failed);
        if all >= ENOUGH {
            let again = bare.saturating_add(failed);
            self.state = match (again.saturating_mul(2) >= all, bare >= failed) {
                (false, _) => SplitState::Transferring,
                (true, true) => SplitState::NoTransfer,
                (true, false) => SplitState::PrefillFails,
            };
            self.since = [0; 3];
        } else if self.state == SplitState::Silent {
            self.state = SplitState::Unknown;
        }
        new
    }

    fn warn(&mut self, endpoint: &Endpoint, now: Instant) {
        let endpoint = endpoint.id();
        if self.warned.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return;
        }
        let why = match self.state {
            SplitState::Unknown | SplitState::Transferring => return,
            SplitState::NoTransfer => {
                "it processes prompts again: answers of prefill servers hold no transfer parameters; \
                 check the KV connector of the prefill engines"
            }
            SplitState::PrefillFails => {
                "it processes prompts itself: the prefill servers that were picked fail"
            }
            SplitState::Silent => {
                "it shows no outcomes as other decode servers do: it lacks the sidecar, or the sidecar lacks \
                 --outcomes-in-metrics"
            }
        };
        self.warned = Some(now);
        tracing::warn!(%endpoint, why, "decode server does not take prompts over from prefill servers");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::pool::{EndpointId, EndpointSpec, Pool};

    struct Fleet {
        pool: Arc<Pool>,
        metrics: SplitMetrics,
        watch: SidecarWatch,
        now: Instant,
    }

    impl Fleet {
        fn new(roles: &[&str]) -> Self {
            let now = Instant::now();
            let pool = Arc::new(Pool::new("ns", "pool", now));
            let specs = roles.iter().zip(1..).map(|(role, index)| {
                let address = SocketAddr::from(([10, 0, 0, index], 8000));
                let id = EndpointId::new("ns", &format!("pod-{index}"));
                EndpointSpec::new(id, address).with_labels([(ROLE_LABEL, *role)])
            });
            pool.replace_endpoints(specs.collect());
            let metrics = Metrics::new().split();
            Self { pool, watch: SidecarWatch::new(metrics.clone()), metrics, now }
        }

        fn shows(&self, pod: usize, counts: [f64; 3]) {
            for (outcome, value) in SHOWN.into_iter().zip(counts) {
                self.pool.snapshot().endpoints()[pod].load().set_attribute(&key(outcome), value);
            }
        }

        fn states(&mut self) -> Vec<(&'static str, i64)> {
            self.now += Duration::from_secs(5);
            self.watch.look(&self.pool.snapshot(), self.now);
            let states = SplitState::ALL.map(|state| (state.name(), self.metrics.servers(state)));
            states.into_iter().filter(|(_, count)| *count > 0).collect()
        }
    }

    #[test]
    fn a_pool_whose_sidecars_show_nothing_is_not_judged() {
        let mut fleet = Fleet::new(&["decode", "prefill"]);
        assert_eq!(fleet.states(), []);
    }

    #[test]
    fn a_decode_server_without_counts_beside_one_with_counts_is_silent_and_a_prefill_server_is_not() {
        let mut fleet = Fleet::new(&["decode", "decode", "prefill"]);
        fleet.shows(0, [0.0; 3]);
        assert_eq!(fleet.states(), [("unknown", 1), ("silent", 1)]);
        fleet.shows(1, [0.0; 3]);
        assert_eq!(fleet.states(), [("unknown", 2)]);
    }

    #[test]
    fn servers_are_judged_by_the_prompts_since_the_last_judgement() {
        let mut fleet = Fleet::new(&["decode"]);
        fleet.shows(0, [5.0, 1.0, 0.0]);
        // Counts from before the first look say nothing of now.
        assert_eq!(fleet.states(), [("unknown", 1)]);
        fleet.shows(0, [14.0, 2.0, 0.0]);
        assert_eq!(fleet.states(), [("transferring", 1)]);
        fleet.shows(0, [19.0, 7.0, 0.0]);
        assert_eq!(fleet.states(), [("no_transfer", 1)]);
        fleet.shows(0, [19.0, 7.0, 10.0]);
        assert_eq!(fleet.states(), [("prefill_fails", 1)]);
        // A new process counts from 0.
        fleet.shows(0, [12.0, 0.0, 0.0]);
        assert_eq!(fleet.states(), [("transferring", 1)]);
        assert_eq!(fleet.metrics.counted("transferred"), 9 + 5 + 12);
        assert_eq!(fleet.metrics.counted("prefill_failed"), 10);
    }

    #[test]
    fn values_that_no_counter_has_are_none() {
        assert_eq!([-1.0, 1e300, f64::NAN, 2.5].map(count), [0, 0, 0, 2]);
    }
}
