//! A director, and what it is made of.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::Semaphore;

use super::beside::Beside;
use super::bindings::ServerBindings;
use super::hooks::Hook;
use super::objective::UnknownObjectives;
use super::prepare::PrepareStage;
use super::retry::Pace;
use super::{Admission, BodyBudget, DirectorSettings};
use crate::clock;
use crate::decisions::{Decisions, PolicyNames};
use crate::metrics::{
    AnswerMetrics, ExtProcMetrics, InflightMetrics, Metrics, ProcessingMetrics, SchedulerMetrics, TimedParser,
};
use crate::pool::Pool;
use crate::prefix::PrefixMatch;
use crate::request::{MediaEstimate, ParserKind, Parsers};
use crate::scheduling::{
    Column, Entry, InFlightRule, Preparer, Producer, ProfilePlugin, Scheduler, UsageReporter,
};

/// Everything a director works with.
pub struct DirectorParts {
    /// The pool.
    pub pool: Arc<Pool>,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Plugins of the way to the scheduler.
    pub entry: Entry,
    /// Plugins that find something out about a request before it is scheduled, in configuration order.
    pub preparers: Vec<ProfilePlugin<dyn Preparer>>,
    /// How many tokens images and videos are taken to be.
    pub media: MediaEstimate,
    /// How the tokens of requests in flight are counted.
    pub in_flight: InFlightRule,
    /// The column that tells which tokens of a prompt do not count; `None` counts all.
    pub in_flight_matches: Option<Column<PrefixMatch>>,
    /// Data producers in the order they run.
    pub producers: Vec<ProfilePlugin<dyn Producer>>,
    /// Plugins with hooks, in configuration order.
    pub hooks: Vec<Hook>,
    /// Reports on complete responses, in configuration order.
    pub reporters: Vec<ProfilePlugin<dyn UsageReporter>>,
    /// Parsers, in configuration order.
    pub parsers: Vec<TimedParser>,
    /// The column that tells whether a prompt is cached, for conditional requests.
    pub prefix_match: Option<Column<PrefixMatch>>,
    /// The column that records show of what each endpoint holds of a prompt.
    pub shown_matches: Option<Column<PrefixMatch>>,
    /// Holds requests; `None` admits all.
    pub admission: Option<Arc<dyn Admission>>,
    /// Shows requests in flight by endpoint, where a plugin goes by them.
    pub inflight: Option<InflightMetrics>,
    /// The bound of all bodies. What a body becomes when its content-encoding is taken off counts in it.
    pub budget: Arc<BodyBudget>,
    /// Keeps records of decisions; `None` keeps none.
    pub decisions: Option<Decisions>,
    /// What goes on beside decisions; `None` for nothing.
    pub beside: Option<Arc<Beside>>,
    /// Exported series.
    pub metrics: Arc<Metrics>,
    /// Choices of the operator.
    pub settings: DirectorSettings,
}

/// Larger bodies that are decoded at once.
const DECODERS: usize = 4;

/// Decides requests of one pool.
pub struct Director {
    pub(super) parts: DirectorParts,
    /// Which parser reads which path.
    pub(super) paths: Parsers,
    /// Free decoders of larger compressed bodies.
    pub(super) decoders: Arc<Semaphore>,
    /// What is found out about a request before it is scheduled.
    pub(super) prepare: PrepareStage,
    pub(super) hooks: Arc<[Hook]>,
    pub(super) reporters: Arc<[ProfilePlugin<dyn UsageReporter>]>,
    pub(super) profile_names: Arc<[Arc<str>]>,
    /// Names of profiles and plugins, for records.
    pub(super) policy_names: Arc<PolicyNames>,
    /// Requests so far; with the seed it makes the random source of each.
    pub(super) sequence: Arc<AtomicU64>,
    pub(super) scheduler_metrics: SchedulerMetrics,
    pub(super) processing: ProcessingMetrics,
    pub(super) extproc: ExtProcMetrics,
    pub(super) answers: AnswerMetrics,
    pub(super) unknown_objectives: UnknownObjectives,
    /// How fast requests end.
    pub(super) pace: Arc<Pace>,
    /// Which server made which response, where that is remembered.
    pub(super) bindings: Option<Arc<ServerBindings>>,
}

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Director").field("scheduler", &self.parts.scheduler).finish_non_exhaustive()
    }
}

impl Director {
    /// The parser of this kind, with its measures.
    pub(super) fn parser(&self, kind: ParserKind) -> Option<&TimedParser> {
        self.parts.parsers.iter().find(|parser| parser.kind == kind)
    }

    /// A director over these parts that goes on where `former` is: it counts on, knows who made which response, and how
    /// fast requests end. Requests that `former` decided end under it.
    pub fn after(former: &Self, parts: DirectorParts) -> Self {
        let same = parts.settings.response_bindings == former.parts.settings.response_bindings;
        let next = Self::new(parts);
        Self {
            sequence: Arc::clone(&former.sequence),
            decoders: Arc::clone(&former.decoders),
            pace: Arc::clone(&former.pace),
            bindings: if same { former.bindings.clone() } else { next.bindings },
            ..next
        }
    }

    /// A director over these parts.
    pub fn new(parts: DirectorParts) -> Self {
        let hooks = parts.hooks.clone().into();
        let reporters = parts.reporters.clone().into();
        let profile_names = parts.scheduler.profile_names().into();
        let policy_names = Arc::new(PolicyNames::of(&parts.scheduler));
        let (scheduler_metrics, processing, extproc) =
            (parts.metrics.scheduler(), parts.metrics.processing(), parts.metrics.extproc());
        let answers = parts.metrics.answers();
        let limit = parts.settings.response_bindings;
        let bindings = (limit > 0)
            .then(|| Arc::new(ServerBindings::new(limit, parts.settings.seed, parts.metrics.state())));
        let unknown_objectives = UnknownObjectives::new(parts.metrics.state());
        let prepare = PrepareStage::new(&parts.preparers, &parts.budget, &parts.metrics);
        Self {
            paths: Parsers::new(parts.parsers.iter().map(|parser| parser.kind)),
            parts,
            prepare,
            unknown_objectives,
            decoders: Arc::new(Semaphore::new(DECODERS)),
            hooks,
            reporters,
            profile_names,
            policy_names,
            sequence: Arc::default(),
            scheduler_metrics,
            processing,
            extproc,
            answers,
            pace: Arc::new(Pace::new(clock::now())),
            bindings,
        }
    }
}
