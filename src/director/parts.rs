//! What a director is made of.

use std::sync::Arc;

use super::{Admission, BodyBudget, DirectorSettings};
use crate::metrics::{InflightMetrics, Metrics, PluginTimer};
use crate::pool::Pool;
use crate::prefix::PrefixMatch;
use crate::request::{ParserKind, Parsers};
use crate::scheduling::{
    Column, PreRequest, Preparer, Producer, ProfilePlugin, ResponseHeaderHook, Scheduler,
};

/// A plugin with hooks around forwarding. Its pre-request hook's state comes back in its response hook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Acts before forwarding.
    pub before: Option<ProfilePlugin<dyn PreRequest>>,
    /// Acts on response headers.
    pub response: Option<ProfilePlugin<dyn ResponseHeaderHook>>,
}

/// A configured parser and the measure of its calls.
#[derive(Clone, Debug)]
pub struct TimedParser {
    /// Which.
    pub kind: ParserKind,
    /// Measures request parsing.
    pub request_timer: PluginTimer,
    /// Measures response parsing.
    pub response_timer: PluginTimer,
}

/// Everything a director works with.
pub struct DirectorParts {
    /// The pool.
    pub pool: Arc<Pool>,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Plugins that find something out about a request before it is scheduled, in configuration order.
    pub preparers: Vec<ProfilePlugin<dyn Preparer>>,
    /// Data producers in the order they run.
    pub producers: Vec<ProfilePlugin<dyn Producer>>,
    /// Plugins with hooks, in configuration order.
    pub hooks: Vec<Hook>,
    /// Parsers by path.
    pub parsers: Parsers,
    /// The same parsers with their measures.
    pub timed_parsers: Vec<TimedParser>,
    /// The column that tells whether a prompt is cached, for conditional requests.
    pub prefix_match: Option<Column<PrefixMatch>>,
    /// Holds requests; `None` admits all.
    pub admission: Option<Arc<dyn Admission>>,
    /// Shows requests in flight by endpoint, where a plugin goes by them.
    pub inflight: Option<InflightMetrics>,
    /// The bound of all bodies. What a body becomes when its content-encoding is taken off counts in it.
    pub budget: Arc<BodyBudget>,
    /// Exported series.
    pub metrics: Arc<Metrics>,
    /// Choices of the operator.
    pub settings: DirectorSettings,
}
