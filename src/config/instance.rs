//! One plugin instance.

use std::sync::Arc;

use serde_json::Value;

use super::missing::MissingType;
use super::plan::Origin;
use super::reference::Reference;
use super::schema::PluginEntry;
use crate::document::Node;
use crate::metrics::{ExtensionPoint, Metrics, TimedParser};
use crate::plugins::{BuildError, ColumnKey, Consumption, DeciderSlot, FilterSlot, PluginType, Roles};
use crate::pool::AttributeKey;
use crate::scheduling::{
    Admitter, Filter, FlowNamer, Picker, PreRequest, Preparer, Producer, ProfileHandler, ProfilePlugin,
    ResponseEndHook, ResponseHeaderHook, Scorer, Screener, UsageReporter,
};

/// A plugin instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: Arc<str>,
    /// Type string as configured.
    pub(super) kind: &'static str,
    /// Type string in metrics and traces.
    pub(super) reports_as: &'static str,
    pub(super) parameters: Option<Value>,
    pub(super) origin: Origin,
    pub(super) line: u32,
    pub(super) path: String,
    pub(super) roles: Roles,
    pub(super) produced: Vec<ColumnKey>,
    pub(super) consumed: Vec<Consumption>,
    pub(super) attributes_written: Vec<AttributeKey>,
    pub(super) attributes_read: Vec<AttributeKey>,
    /// Deciders it asks, each with the line and path of the parameter that names it.
    pub(super) deciders: Vec<(Reference, DeciderSlot)>,
    /// Filters it walks, in the same way.
    pub(super) filters: Vec<(Reference, FilterSlot)>,
    /// Set for a type that is not built yet and was accepted.
    pub(super) missing: Option<&'static MissingType>,
    /// It asks deciders or walks filters that are plugins of their own.
    pub(super) asks_others: bool,
    /// It could not be built, which has been said; nothing that follows from it needs saying.
    pub(super) broken: bool,
    /// Something refers to it in a role it has.
    pub(super) used: bool,
}

/// A trait that has an extension point of its own.
pub(super) trait ExtensionPlugin {
    const POINT: ExtensionPoint;
}

macro_rules! slots {
    ($($role:ident at $point:ident;)*) => {$(
        impl ExtensionPlugin for dyn $role {
            const POINT: ExtensionPoint = ExtensionPoint::$point;
        }
    )*};
}

slots! {
    FlowNamer at RequestHeader;
    Screener at Screener;
    Admitter at Admission;
    Filter at Filter;
    Scorer at Scorer;
    Picker at Picker;
    ProfileHandler at ProfilePicker;
    Preparer at DataProducer;
    Producer at DataProducer;
    PreRequest at PreRequest;
    ResponseHeaderHook at ResponseReceived;
    ResponseEndHook at ResponseComplete;
    UsageReporter at ResponseComplete;
}

impl Instance {
    /// An instance of a type that is still to be found.
    pub(super) fn listed(entry: &PluginEntry) -> Self {
        Self {
            name: entry.name.as_str().into(),
            kind: "",
            reports_as: "",
            parameters: entry.parameters.as_ref().map(Node::to_json),
            origin: Origin::Listed,
            line: entry.line,
            path: entry.path.clone(),
            roles: Roles::default(),
            produced: Vec::new(),
            consumed: Vec::new(),
            attributes_written: Vec::new(),
            attributes_read: Vec::new(),
            deciders: Vec::new(),
            filters: Vec::new(),
            missing: None,
            asks_others: false,
            broken: false,
            used: false,
        }
    }

    /// An instance that nobody listed, named like its type.
    pub(super) fn added(row: &'static PluginType, reason: &str) -> Self {
        let entry = PluginEntry {
            name: row.name.to_owned(),
            kind: row.name.to_owned(),
            parameters: None,
            line: 0,
            path: String::new(),
        };
        Self { origin: Origin::Injected(reason.to_owned()), used: true, ..Self::listed(&entry) }
    }

    /// The plugin in one role, with its name and timer.
    pub(super) fn slot<T: ?Sized + ExtensionPlugin>(
        &self,
        metrics: &Metrics,
        role: impl Fn(&Roles) -> Option<Arc<T>>,
    ) -> Option<ProfilePlugin<T>> {
        let plugin = role(&self.roles)?;
        let timer = metrics.plugin_timer(T::POINT, self.reports_as, &self.name);
        Some(ProfilePlugin {
            name: Arc::clone(&self.name),
            kind: self.reports_as,
            timer: Some(Arc::new(timer)),
            plugin,
        })
    }

    /// The parser, with its timers.
    pub(super) fn parser(&self, metrics: &Metrics) -> Option<TimedParser> {
        Some(metrics.timed_parser(self.roles.parser?, self.reports_as, &self.name))
    }

    /// Path and text of a fault found while building it.
    pub(super) fn blame(&self, error: &BuildError) -> (String, String) {
        let (name, message) = (&self.name, &error.message);
        match (self.path.as_str(), error.path.as_str()) {
            (at, "") => (at.to_owned(), format!("\"{name}\" cannot be built: {message}")),
            ("", parameter) => (String::new(), format!("\"{name}\" cannot be built: {parameter}: {message}")),
            (at, parameter) if parameter.starts_with('[') => {
                (format!("{at}.parameters{parameter}"), message.clone())
            }
            (at, parameter) => (format!("{at}.parameters.{parameter}"), message.clone()),
        }
    }

    /// What it can be, for error texts.
    pub(super) fn abilities(&self) -> String {
        if let Some(missing) = self.missing {
            return format!("it is a {} that is not in this version", missing.role);
        }
        match self.roles.names().as_slice() {
            [] => "it has no role at all".to_owned(),
            names => format!("it is a {}", names.join(", ")),
        }
    }

    /// True if a profile has a use for it.
    pub(super) fn schedules(&self) -> bool {
        self.roles.filter.is_some() || self.roles.scorer.is_some() || self.roles.picker.is_some()
    }
}
