//! All series of one process, and the way to their handles.

use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, IntCounter, Registry};

use super::answers::AnswerMetrics;
use super::bounds::MetricBounds;
use super::capture::CaptureMetrics;
use super::cardinality::{Gate, Limiter, OTHER, VALUES};
use super::datalayer::DataLayerMetrics;
use super::disaggregation::{DecisionFamilies, DecisionMetrics};
use super::discovery::DiscoveryMetrics;
use super::encode::Format;
use super::encoder_cache::{EncoderCacheFamilies, EncoderCacheMetrics};
use super::extproc::ExtProcMetrics;
use super::family::{Definition, Family};
use super::flow::FlowMetrics;
use super::flow_families::FlowFamilies;
use super::inflight::{InflightFamilies, InflightMetrics};
use super::kubernetes::KubernetesMetrics;
use super::kv_events::{KvEventFamilies, KvEventMetrics};
use super::label_sets::LabelSets;
use super::labels::RequestLabels;
use super::latency::{LatencyFamilies, LatencyMetrics};
use super::lines::LineFamilies;
use super::peers::PeerMetrics;
use super::pool::{PoolCollector, PoolFamilies};
use super::ports::{PortFamilies, PortMetrics};
use super::prefix::{PrefixFamilies, PrefixIndexMetrics};
use super::prepare::{PrepareFamilies, PrepareMetrics};
use super::processing::{DirectFamilies, ProcessingMetrics};
use super::proof::{ProofFamilies, ProofMetrics};
use super::records::{self, RecordMetrics};
use super::request::RequestMetrics;
use super::request_families::RequestFamilies;
use super::scheduler::SchedulerMetrics;
use super::shadow::{ShadowFamilies, ShadowMetrics};
use super::split::SplitMetrics;
use super::state::StateMetrics;
use super::timer::{ExtensionPoint, PluginTimer, TimedParser, TimerFamily};
use crate::pool::{Pool, Snapshot};
use crate::request::ParserKind;

const FOLDED: Definition<1> = Definition::new(
    "pointsman_metric_labels_folded_total",
    "Times that a label value was replaced by \"other\" because the bound of distinct values was reached, by label.",
    ["label"],
);

/// All families of one process. Cheap to clone; clones share the series.
#[derive(Clone)]
pub struct Metrics {
    families: Arc<Families>,
}

struct Families {
    registry: Registry,
    bounds: MetricBounds,
    /// Series that the page had no room for.
    left_out: IntCounter,
    label_sets: LabelSets,
    models: Arc<Limiter>,
    timers: TimerFamily,
    prefix: PrefixFamilies,
    prepare: PrepareFamilies,
    inflight: InflightFamilies,
    rewrite_gate: Gate,
    scheduler: SchedulerMetrics,
    split: SplitMetrics,
    processing: ProcessingMetrics,
    answers: AnswerMetrics,
    state: StateMetrics,
    records: RecordMetrics,
    capture: CaptureMetrics,
    shadow: ShadowFamilies,
    config_generation: Gauge,
    direct: DirectFamilies,
    datalayer: DataLayerMetrics,
    extproc: ExtProcMetrics,
    disaggregation: DecisionFamilies,
    encoder_cache: EncoderCacheFamilies,
    kv_events: KvEventFamilies,
    proof: Arc<ProofFamilies>,
    latency: LatencyFamilies,
    discovery: DiscoveryMetrics,
    kubernetes: KubernetesMetrics,
    lines: LineFamilies,
    peers: PeerMetrics,
    pool: Arc<PoolFamilies>,
    ports: PortFamilies,
    flow: Arc<FlowFamilies>,
}

impl Metrics {
    /// Families with a registry of their own, and the figures of this process (`process_*`).
    pub fn new() -> Self {
        Self::bounded(MetricBounds::default())
    }

    /// The same with these bounds of the page.
    pub fn bounded(bounds: MetricBounds) -> Self {
        let registry = Registry::new();
        // Nothing else registers these names, and a process without them still serves.
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        let folded = Family::<prometheus::IntCounterVec, 1>::register(FOLDED, &registry);
        let folded = |label: &str| folded.child([label]).into_current();
        let models = Arc::new(Limiter::new(VALUES, folded("model_name")));
        let fairness = Arc::new(Limiter::new(bounds.fairness_ids, folded("fairness_id")));
        let gate = |share: usize, label: &str| Gate::new(bounds.series / share, folded(label));
        let request = Arc::new(RequestFamilies::register(&registry, gate(20, "error")));
        let label_sets = LabelSets::new(
            request,
            bounds.sets(),
            Arc::clone(&models),
            Arc::clone(&fairness),
            folded("label_set"),
            folded("histogram"),
        );
        let flow = FlowFamilies::register(
            &registry,
            Arc::clone(&models),
            fairness,
            folded("flow_label_set"),
            bounds.series / 100,
        );
        let families = Families {
            bounds,
            left_out: folded("page"),
            label_sets,
            timers: TimerFamily::register(&registry),
            prefix: PrefixFamilies::register(&registry),
            prepare: PrepareFamilies::register(&registry),
            inflight: InflightFamilies::register(&registry, gate(30, "inflight")),
            rewrite_gate: gate(60, "rewrite"),
            scheduler: SchedulerMetrics::register(&registry, Arc::clone(&models), gate(30, "attempt")),
            split: SplitMetrics::register(&registry),
            processing: ProcessingMetrics::register(&registry),
            answers: AnswerMetrics::register(&registry),
            state: StateMetrics::register(&registry),
            records: RecordMetrics::register(&registry),
            capture: CaptureMetrics::register(&registry),
            shadow: ShadowFamilies::register(&registry),
            config_generation: records::config_generation(&registry),
            direct: DirectFamilies::register(&registry),
            datalayer: DataLayerMetrics::register(&registry),
            extproc: ExtProcMetrics::register(&registry),
            disaggregation: DecisionFamilies::register(
                &registry,
                Arc::clone(&models),
                gate(60, "disaggregation"),
            ),
            encoder_cache: EncoderCacheFamilies::register(&registry),
            kv_events: KvEventFamilies::register(&registry),
            proof: Arc::new(ProofFamilies::register(&registry, Arc::clone(&models))),
            latency: LatencyFamilies::register(&registry, Arc::clone(&models), gate(100, "latency")),
            discovery: DiscoveryMetrics::register(&registry),
            kubernetes: KubernetesMetrics::register(&registry),
            lines: LineFamilies::register(&registry),
            peers: PeerMetrics::register(&registry),
            pool: Arc::new(PoolFamilies::register(&registry)),
            ports: PortFamilies::register(&registry),
            flow: Arc::new(flow),
            models,
            registry,
        };
        Self { families: Arc::new(families) }
    }

    /// The series of a request with these labels. One hash lookup once the labels are known.
    pub fn request(&self, labels: RequestLabels<'_>) -> RequestMetrics {
        RequestMetrics::new(self.families.label_sets.get(labels))
    }

    /// Gives labels of their own to the busiest tenants and models, and takes them from idle ones; `priorities` are
    /// those that objectives have. Call it every few seconds.
    pub fn elect(&self, priorities: &[i32]) {
        self.families.label_sets.elect(priorities);
    }

    #[cfg(test)]
    pub(super) fn label_sets(&mut self) -> &mut LabelSets {
        &mut Arc::get_mut(&mut self.families).unwrap().label_sets
    }

    /// Model names that are never folded into `other`: those of model rewrites. They stay pinned.
    pub fn pin_models<'m>(&self, models: impl IntoIterator<Item = &'m str>) {
        self.families.models.pin(models);
    }

    /// The timer of one plugin at one extension point.
    pub fn plugin_timer(&self, point: ExtensionPoint, kind: &str, name: &str) -> PluginTimer {
        self.families.timers.timer(point, kind, name)
    }

    /// A parser with its timers. `plugin_type` is the type that they carry as a label.
    pub fn timed_parser(&self, kind: ParserKind, plugin_type: &str, name: &Arc<str>) -> TimedParser {
        let timer = |point| self.plugin_timer(point, plugin_type, name);
        TimedParser {
            name: Arc::clone(name),
            kind,
            request_timer: timer(ExtensionPoint::RequestParsing),
            response_timer: timer(ExtensionPoint::ResponseParsing),
        }
    }

    /// Handles of a prefix index plugin.
    pub fn prefix_index(&self, kind: &str, name: &str) -> PrefixIndexMetrics {
        self.families.prefix.index(kind, name)
    }

    /// Handles of a plugin that finds something out about requests before they are scheduled.
    pub fn preparer(&self, kind: &str, name: &str) -> PrepareMetrics {
        self.families.prepare.preparer(kind, name)
    }

    /// Series of split serving, as the sidecars of decode servers report it.
    pub fn split(&self) -> SplitMetrics {
        self.families.split.clone()
    }

    /// Handles of what replicas tell each other.
    pub fn peers(&self) -> PeerMetrics {
        self.families.peers.clone()
    }

    /// Handles of a producer of latency predictions.
    pub fn latency(&self, kind: &str, name: &str) -> LatencyMetrics {
        self.families.latency.producer(kind, name)
    }

    /// Handles of what engines tell of their caches.
    pub fn kv_events(&self) -> KvEventMetrics {
        self.families.kv_events.metrics()
    }

    /// Handles of whether the exact tokens that the plugin `name` uses equal those of the servers.
    pub fn proof(&self, name: &str) -> ProofMetrics {
        ProofMetrics::new(Arc::clone(&self.families.proof), name)
    }

    /// Handles of an index of media embeddings.
    pub fn encoder_cache(&self, kind: &str, name: &str) -> EncoderCacheMetrics {
        self.families.encoder_cache.index(kind, name)
    }

    /// Drops the series of embedding caches of endpoints that are not in `snapshot`. Call it now and then.
    pub fn prune_encoder_caches(&self, snapshot: &Snapshot) {
        self.families.encoder_cache.prune_endpoints(snapshot);
    }

    /// Counter of what the handler `name` of type `disagg-profile-handler` decided.
    pub fn disaggregation(&self, kind: &str, name: &str) -> DecisionMetrics {
        self.families.disaggregation.all_stages(kind, name)
    }

    /// The same for the older type `pd-profile-handler`.
    pub fn prefill_decode(&self, kind: &str, name: &str) -> DecisionMetrics {
        self.families.disaggregation.two_stages(kind, name)
    }

    /// Handles of an in-flight load producer called `producer`.
    pub fn inflight(&self, producer: &str) -> InflightMetrics {
        InflightMetrics::new(self.families.inflight.clone(), producer)
    }

    /// Handles of scheduling.
    pub fn scheduler(&self) -> SchedulerMetrics {
        self.families.scheduler.clone()
    }

    /// Handles of the two phases of a stream.
    pub fn processing(&self) -> ProcessingMetrics {
        self.families.processing.clone()
    }

    /// Handles of how responses end.
    pub fn answers(&self) -> AnswerMetrics {
        self.families.answers.clone()
    }

    /// Handles of the port called `name`: `grpc`, `health`, `metrics` or `scaler`.
    pub fn port(&self, name: &'static str) -> PortMetrics {
        self.families.ports.port(name)
    }

    /// Handles of requests that refer to what a server made.
    pub fn state(&self) -> StateMetrics {
        self.families.state.clone()
    }

    /// Sets the number of the running configuration.
    pub fn config_generation(&self, generation: u64) {
        self.families.config_generation.set(generation as f64);
    }

    /// Handles of the capture of decisions.
    pub fn capture(&self) -> CaptureMetrics {
        self.families.capture.clone()
    }

    /// Handles of the shadow. Its series show from here on.
    pub fn shadow(&self) -> ShadowMetrics {
        self.families.shadow.handles()
    }

    /// Handles of the records of decisions.
    pub fn records(&self) -> RecordMetrics {
        self.families.records.clone()
    }

    /// Says which build runs. Empty texts are fine.
    pub fn info(&self, commit: &str, build_ref: &str) {
        self.families.direct.info.child([commit, build_ref]).set(1);
    }

    /// Says that the plugin `name` is not in force, because its type `kind` is not built yet.
    pub fn missing_plugin(&self, kind: &str, name: &str) {
        self.families.direct.missing.child([kind, name]).set(1);
    }

    /// Counts a request for `model` that the rewrite resource `name` sent to `target`.
    pub fn model_rewrite(&self, name: &str, model: &str, target: &str) {
        let values = [name, self.families.models.admit(model), target];
        let admitted = self.families.rewrite_gate.admits(&values);
        self.families.direct.rewrites.child(if admitted { values } else { [OTHER; 3] }).inc();
    }

    /// Handles of the data layer.
    pub fn datalayer(&self) -> DataLayerMetrics {
        self.families.datalayer.clone()
    }

    /// Handles of the ext_proc server.
    pub fn extproc(&self) -> ExtProcMetrics {
        self.families.extproc.clone()
    }

    /// Adds the stream series of the reference (`llm_d_epp_extproc_*`), which are off by default.
    pub fn enable_grpc_stream_metrics(&self) {
        self.families.extproc.enable_streams(&self.families.registry);
    }

    /// Handles of discovery.
    pub fn discovery(&self) -> DiscoveryMetrics {
        self.families.discovery.clone()
    }

    /// Handles of the Kubernetes side.
    pub fn kubernetes(&self) -> KubernetesMetrics {
        self.families.kubernetes.clone()
    }

    /// Exports from now on how many lines for `stream` were lost: `read` gives those that found no room, and those
    /// whose write failed.
    pub fn watch_lines(&self, stream: &'static str, read: impl Fn() -> (u64, u64) + Send + Sync + 'static) {
        self.families.lines.watch(stream, Box::new(read));
    }

    /// Exports `pool` from now on. The collector keeps its averages; call [`PoolCollector::refresh`] at the refresh
    /// interval.
    pub fn pool_collector(&self, pool: &Arc<Pool>) -> PoolCollector {
        self.families.pool.watch(pool)
    }

    /// Handles of the queues of `pool`, which has these bands from the start. Call it once for each pool.
    pub fn flow(&self, pool: &str, bands: impl IntoIterator<Item = i32>) -> FlowMetrics {
        FlowMetrics::new(Arc::clone(&self.families.flow), pool, bands)
    }

    /// Sets the number of endpoints whose reading is too old for the saturation detector `detector`; for admission
    /// without flow control.
    pub fn stale_endpoints(&self, detector: &str, endpoints: u64) {
        self.families.flow.stale(detector, endpoints);
    }

    /// The metrics page, within its bounds.
    pub fn encode(&self, format: Format) -> String {
        let (page, left_out) = format.encode(&self.families.registry.gather(), self.families.bounds);
        self.families.left_out.inc_by(left_out);
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
