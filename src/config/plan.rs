//! The result of reading a configuration: everything that will run.

use std::sync::Arc;

use serde_json::Value;

use super::carry::Carried;
use super::cross_replica::RedisServer;
use super::names::{DataLayerNames, FlowNames};
use super::{FeatureGates, FlowControl};
use crate::datalayer::{EngineTable, ObjectReading, PageReading, SourceSpec};
use crate::document::Problems;
use crate::flow::detector::Detector;
use crate::flow::settings::FlowSettings;
use crate::kvevents::EventListener;
use crate::metrics::TimedParser;
use crate::plugins::{FileDiscoverySpec, StateReader};
use crate::prefix::{PrefixMatch, SharedIndex};
use crate::request::MediaEstimate;
use crate::scheduling::{
    Column, Entry, InFlightRule, PreRequest, Preparer, Producer, ProfilePlugin, ResponseEndHook,
    ResponseHeaderHook, Scheduler, UsageReporter,
};

/// Why a plugin instance exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration lists it in `plugins`.
    Listed,
    /// It was added. The text says why.
    Injected(String),
}

/// A plugin instance, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedInstance {
    /// Instance name.
    pub name: Arc<str>,
    /// Type string as configured.
    pub kind: &'static str,
    /// The features that are not in force because the type is not built yet; `None` for types that are built.
    pub missing: Option<&'static str>,
    /// Parameters as written.
    pub parameters: Option<Value>,
    /// Why it exists.
    pub origin: Origin,
    /// Names of the roles that it has.
    pub roles: Vec<&'static str>,
    /// Columns it writes, each with the names of those who read it.
    pub produces: Vec<(String, Vec<Arc<str>>)>,
    /// Reads what it keeps; `None` for a plugin that keeps nothing from one request to the next.
    pub state: Option<StateReader>,
    /// Reads what it knows of the engines' caches.
    pub prefix: Option<StateReader>,
}

/// Everything the server needs to run, with all references resolved and all defaults filled in.
#[derive(Debug)]
pub struct Plan {
    /// Chooses endpoints.
    pub scheduler: Scheduler,
    /// Plugins of the way to the scheduler.
    pub entry: Entry,
    /// Plugins that find something out about a request before it is scheduled, in document order.
    pub preparers: Vec<ProfilePlugin<dyn Preparer>>,
    /// The estimate of the tokens of images and videos.
    pub media: MediaEstimate,
    /// How the tokens of requests in flight are counted.
    pub in_flight: InFlightRule,
    /// The column that tells which tokens of a prompt do not count; `None` if all count.
    pub in_flight_matches: Option<Column<PrefixMatch>>,
    /// Data producers, each after those it reads from; else in document order.
    pub producers: Vec<ProfilePlugin<dyn Producer>>,
    /// Pre-request hooks in document order.
    pub pre_request: Vec<ProfilePlugin<dyn PreRequest>>,
    /// Response header hooks in document order. One of a plugin that has a pre-request hook too carries the same name.
    pub response_headers: Vec<ProfilePlugin<dyn ResponseHeaderHook>>,
    /// Hooks at the end of a response in document order, named likewise.
    pub response_ends: Vec<ProfilePlugin<dyn ResponseEndHook>>,
    /// Reports on complete responses, in document order.
    pub reporters: Vec<ProfilePlugin<dyn UsageReporter>>,
    /// Parsers in order.
    pub parsers: Vec<TimedParser>,
    /// The column that tells whether a prompt is cached, for conditional requests; `None` if nobody produces it.
    pub prefix_match: Option<Column<PrefixMatch>>,
    /// The column that records of decisions show: what each endpoint holds of a prompt.
    pub shown_matches: Option<Column<PrefixMatch>>,
    /// The source of metrics pages; `None` if none are read.
    pub metrics_source: Option<SourceSpec>,
    /// Other pages of endpoints that are fetched, and who reads them.
    pub pages: Vec<PageReading>,
    /// Objects of the cluster that are watched, and who hears of them.
    pub objects: Vec<ObjectReading>,
    /// Listeners for the cache events of the engines.
    pub kv_events: Vec<Arc<EventListener>>,
    /// Indexes that replicas fill together.
    pub shared_indexes: Vec<Arc<dyn SharedIndex>>,
    /// The series to read from metrics pages, by engine.
    pub engines: EngineTable,
    /// The source of endpoints without Kubernetes; `None` with Kubernetes.
    pub discovery: Option<FileDiscoverySpec>,
    /// The server over which replicas tell each other what they do.
    pub redis: Option<RedisServer>,
    /// Optional features.
    pub gates: FeatureGates,
    /// The settings by which requests wait; `None` while the gate is off.
    pub flow: Option<FlowSettings>,
    /// Says how full the pool is, also for admission without flow control.
    pub detector: Detector,
    /// The flow-control section as written.
    pub flow_control: FlowControl,
    /// All plugin instances: those listed in document order, then those added.
    pub instances: Vec<PlannedInstance>,
    /// What it leaves to the next configuration.
    pub carried: Carried,
    /// Warnings and notes; no errors.
    pub problems: Problems,
    /// The document as it was read.
    pub text: String,
    /// References of the data layer, for [`Plan::effective_yaml`].
    pub(super) data_layer: DataLayerNames,
    /// References of flow control, for [`Plan::effective_yaml`].
    pub(super) flow_names: Option<FlowNames>,
}
