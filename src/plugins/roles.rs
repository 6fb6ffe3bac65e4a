//! The extension points in which a configured plugin takes part.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::flow::detector::DetectorKind;
use crate::flow::settings::{Fairness, Ordering, UsageLimit};
use crate::kvevents::EventListener;
use crate::prefix::{PrefixMatch, SharedIndex};
use crate::request::{MediaEstimate, ParserKind};
use crate::scheduling::{
    Admitter, Column, Decider, Filter, FlowNamer, InFlightRule, Picker, PreRequest, Preparer, Producer,
    ProfileHandler, ResponseEndHook, ResponseHeaderHook, Scorer, Screener, UsageReporter,
};

/// Where endpoints come from without Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscoverySpec {
    /// The endpoints file.
    pub path: PathBuf,
    /// Reload it when it changes.
    pub watch: bool,
    /// Its endpoints are clusters, whose labels say where they are scraped.
    pub clusters: bool,
}

/// Reads what a plugin keeps, for people who look at the pages below `/debug/`.
#[derive(Clone)]
pub struct StateReader(Arc<dyn Fn() -> Value + Send + Sync>);

impl StateReader {
    /// A reader that calls `read` for each page. `read` must be cheap: it counts, and lists nothing.
    pub fn new(read: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The state now.
    pub fn read(&self) -> Value {
        (self.0)()
    }
}

impl PartialEq for StateReader {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for StateReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateReader")
    }
}

/// The extension points one configured plugin takes part in. A clone is the same plugin.
#[derive(Clone, Default)]
pub struct Roles {
    /// Rules candidates out.
    pub filter: Option<Arc<dyn Filter>>,
    /// Prefers candidates.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// Chooses.
    pub picker: Option<Arc<dyn Picker>>,
    /// Runs profiles.
    pub profile_handler: Option<Arc<dyn ProfileHandler>>,
    /// Says whether a stage goes to a server of its own.
    pub decider: Option<Arc<dyn Decider>>,
    /// Names the flow of a request that names none.
    pub flow_namer: Option<Arc<dyn FlowNamer>>,
    /// Rules candidates out for all profiles.
    pub screener: Option<Arc<dyn Screener>>,
    /// Says whether a request is served now.
    pub admitter: Option<Arc<dyn Admitter>>,
    /// Finds out about a request what takes time, before it is scheduled.
    pub preparer: Option<Arc<dyn Preparer>>,
    /// Says how many tokens images and videos are taken to be.
    pub media_estimate: Option<MediaEstimate>,
    /// Says how tokens in flight are counted.
    pub in_flight: Option<InFlightRule>,
    /// The matches by which tokens in flight are counted, where that rule has some.
    pub in_flight_matches: Option<Column<PrefixMatch>>,
    /// Gathers data before scheduling.
    pub producer: Option<Arc<dyn Producer>>,
    /// Acts before forwarding.
    pub pre_request: Option<Arc<dyn PreRequest>>,
    /// Acts on response headers.
    pub response_headers: Option<Arc<dyn ResponseHeaderHook>>,
    /// Acts on the end of a response.
    pub response_end: Option<Arc<dyn ResponseEndHook>>,
    /// Tells the proxy of complete responses.
    pub reporter: Option<Arc<dyn UsageReporter>>,
    /// Reads request bodies.
    pub parser: Option<ParserKind>,
    /// Fetches metrics pages.
    pub metrics_source: Option<crate::datalayer::SourceSpec>,
    /// Reads metrics pages.
    pub metrics_extractor: Option<crate::datalayer::EngineTable>,
    /// Fetches other pages of endpoints.
    pub page_source: Option<crate::datalayer::PageSource>,
    /// Reads those pages.
    pub page_extractor: Option<Arc<dyn crate::datalayer::PageExtractor>>,
    /// Tells of endpoints that come and go.
    pub notifies: bool,
    /// Watches objects of the cluster.
    pub object_source: Option<Arc<crate::datalayer::ObjectSource>>,
    /// Hears of them.
    pub object_listener: Option<Arc<dyn crate::datalayer::ObjectListener>>,
    /// Follows endpoints that come and go, so that a notification source may list it.
    pub follows_endpoints: bool,
    /// Hears what engines tell of their caches.
    pub kv_events: Option<Arc<EventListener>>,
    /// Remembers where requests went, together with the same plugin of other replicas.
    pub shared_index: Option<Arc<dyn SharedIndex>>,
    /// Finds endpoints.
    pub discovery: Option<FileDiscoverySpec>,
    /// Says how full the pool is.
    pub detector: Option<DetectorKind>,
    /// Orders the requests of a flow.
    pub ordering: Option<Ordering>,
    /// Chooses among the flows of a band.
    pub fairness: Option<Fairness>,
    /// Says how full the pool may be for each band.
    pub usage_limit: Option<UsageLimit>,
    /// The state that the plugin keeps, where people may want to see it.
    pub state: Option<StateReader>,
    /// Its knowledge of the engines' caches, for `/debug/prefix`.
    pub prefix: Option<StateReader>,
}

impl std::fmt::Debug for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Roles {
    /// Names of the roles it has, for error texts.
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.flow_namer.is_some(), "request header"),
            (self.screener.is_some(), "screener"),
            (self.admitter.is_some(), "admitter"),
            (self.filter.is_some(), "filter"),
            (self.scorer.is_some(), "scorer"),
            (self.picker.is_some(), "picker"),
            (self.profile_handler.is_some(), "profile handler"),
            (self.decider.is_some(), "decider"),
            (self.produces_data(), "data producer"),
            (self.pre_request.is_some(), "pre-request"),
            (self.response_headers.is_some(), "response header"),
            (self.response_end.is_some(), "response end"),
            (self.reporter.is_some(), "response report"),
            (self.parser.is_some(), "parser"),
            (self.metrics_source.is_some() || self.page_source.is_some(), "data source"),
            (self.notifies || self.object_source.is_some(), "notification source"),
            (self.metrics_extractor.is_some() || self.page_extractor.is_some(), "extractor"),
            (self.discovery.is_some(), "endpoint discovery"),
            (self.detector.is_some(), "saturation detector"),
            (self.ordering.is_some(), "ordering policy"),
            (self.fairness.is_some(), "fairness policy"),
            (self.usage_limit.is_some(), "usage limit policy"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }

    fn produces_data(&self) -> bool {
        let counts = self.in_flight.is_some();
        counts || self.producer.is_some() || self.preparer.is_some() || self.media_estimate.is_some()
    }

    /// With this filter.
    #[must_use]
    pub fn filter(mut self, plugin: Arc<dyn Filter>) -> Self {
        self.filter = Some(plugin);
        self
    }

    /// With this scorer.
    #[must_use]
    pub fn scorer(mut self, plugin: Arc<dyn Scorer>) -> Self {
        self.scorer = Some(plugin);
        self
    }

    /// With this picker.
    #[must_use]
    pub fn picker(mut self, plugin: Arc<dyn Picker>) -> Self {
        self.picker = Some(plugin);
        self
    }

    /// With this profile handler.
    #[must_use]
    pub fn profile_handler(mut self, plugin: Arc<dyn ProfileHandler>) -> Self {
        self.profile_handler = Some(plugin);
        self
    }

    /// With this decider.
    #[must_use]
    pub fn decider(mut self, plugin: Arc<dyn Decider>) -> Self {
        self.decider = Some(plugin);
        self
    }

    /// With this data producer.
    #[must_use]
    pub fn producer(mut self, plugin: Arc<dyn Producer>) -> Self {
        self.producer = Some(plugin);
        self
    }

    /// With this plugin for what takes time.
    #[must_use]
    pub fn preparer(mut self, plugin: Arc<dyn Preparer>) -> Self {
        self.preparer = Some(plugin);
        self
    }

    /// With this pre-request hook.
    #[must_use]
    pub fn pre_request(mut self, plugin: Arc<dyn PreRequest>) -> Self {
        self.pre_request = Some(plugin);
        self
    }

    /// With what the plugin keeps.
    #[must_use]
    pub fn state(mut self, read: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.state = Some(StateReader::new(read));
        self
    }

    /// With this hook at the end of a response.
    #[must_use]
    pub fn response_end(mut self, plugin: Arc<dyn ResponseEndHook>) -> Self {
        self.response_end = Some(plugin);
        self
    }

    /// With this response header hook.
    #[must_use]
    pub fn response_headers(mut self, plugin: Arc<dyn ResponseHeaderHook>) -> Self {
        self.response_headers = Some(plugin);
        self
    }
}
