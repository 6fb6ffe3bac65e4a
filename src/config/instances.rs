//! Plugin instances: one per row of `plugins`, and those that are added.

use std::any::TypeId;
use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use serde_json::Value;

use super::known::{self, Purpose};
use super::missing::{self, MissingType};
use super::plan::{Origin, PlannedParser};
use super::reference::{Reference, near_name};
use super::resolve::LoadOptions;
use super::schema::PluginEntry;
use crate::document::Problems;
use crate::metrics::{ExtensionPoint, Metrics};
use crate::plugins::{
    BuildCx, BuildError, ColumnKey, Consumption, DeciderReference, DeciderSlot, PluginType, Roles, Stability,
};
use crate::pool::AttributeKey;
use crate::scheduling::{
    Admitter, Column, Filter, FlowNamer, Picker, PreRequest, Preparer, Producer, ProfileHandler,
    ProfilePlugin, ResponseHeaderHook, Scorer, Screener,
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
    deciders: Vec<(Reference, DeciderSlot)>,
    /// Set for a type that is accepted without effect.
    pub(super) inactive: Option<Purpose>,
    /// Set for a type that is not built yet and was accepted.
    pub(super) missing: Option<&'static MissingType>,
    /// It could not be built, which has been said; nothing that follows from it needs saying.
    pub(super) broken: bool,
    /// Something refers to it in a role it has.
    pub(super) used: bool,
}

/// A trait that has an extension point of its own.
pub(super) trait Slot {
    const POINT: ExtensionPoint;
}

macro_rules! slots {
    ($($role:ident at $point:ident;)*) => {$(
        impl Slot for dyn $role {
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
}

impl Instance {
    /// The plugin in one role, with its name and timer.
    pub(super) fn slot<T: ?Sized + Slot>(
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
    pub(super) fn parser(&self, metrics: &Metrics) -> Option<PlannedParser> {
        let timer = |point| metrics.plugin_timer(point, self.reports_as, &self.name);
        Some(PlannedParser {
            name: Arc::clone(&self.name),
            kind: self.roles.parser?,
            request_timer: timer(ExtensionPoint::RequestParsing),
            response_timer: timer(ExtensionPoint::ResponseParsing),
        })
    }

    /// Path and text of a fault found while building it.
    fn blame(&self, error: &BuildError) -> (String, String) {
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
        match (self.inactive, self.roles.names().as_slice()) {
            (Some(purpose), _) => format!("it is a {}", purpose.name()),
            (None, []) => "it has no role at all".to_owned(),
            (None, names) => format!("it is a {}", names.join(", ")),
        }
    }

    /// True if a profile has a use for it.
    pub(super) fn schedules(&self) -> bool {
        self.roles.filter.is_some() || self.roles.scorer.is_some() || self.roles.picker.is_some()
    }
}

/// All plugin instances: the listed ones in document order, then those added.
#[derive(Debug)]
pub(super) struct Instances<'o> {
    options: &'o LoadOptions,
    list: Vec<Instance>,
    by_name: HashMap<Arc<str>, usize>,
    columns: Vec<ColumnKey>,
}

impl<'o> Instances<'o> {
    /// Builds every row of `plugins`.
    pub(super) fn build(entries: &[PluginEntry], options: &'o LoadOptions, problems: &mut Problems) -> Self {
        let mut instances = Self { options, list: Vec::new(), by_name: HashMap::new(), columns: Vec::new() };
        for entry in entries {
            instances.build_entry(entry, problems);
        }
        instances.bind_deciders(problems);
        instances
    }

    /// Hands every plugin the deciders that it asks.
    fn bind_deciders(&mut self, problems: &mut Problems) {
        let wanted: Vec<_> =
            self.list.iter_mut().flat_map(|instance| std::mem::take(&mut instance.deciders)).collect();
        for (reference, slot) in wanted {
            let fits = |instance: &Instance| instance.roles.decider.is_some();
            let found = super::wiring::lookup(&reference, "decider", fits, self, problems);
            if let Some(decider) = found.and_then(|index| self.list[index].roles.decider.clone()) {
                slot.fill(decider);
            }
        }
    }

    pub(super) fn list(&self) -> &[Instance] {
        &self.list
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// True if there is a plugin type of that name.
    pub(super) fn has_type(&self, kind: &str) -> bool {
        self.row(kind).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|instance| &*instance.name)
    }

    /// The column of `T` that the instance `producer` writes, if there is one.
    pub(super) fn column<T: 'static>(&self, producer: &str) -> Option<Column<T>> {
        let written = |key: &ColumnKey| key.data == TypeId::of::<T>() && key.producer == producer;
        let exists = self.list.iter().any(|instance| instance.produced.iter().any(written));
        let index = self.columns.iter().position(written).filter(|_| exists)?;
        Some(Column::new(index as u16))
    }

    pub(super) fn mark_used(&mut self, index: usize) {
        if let Some(instance) = self.list.get_mut(index) {
            instance.used = true;
        }
    }

    fn build_entry(&mut self, entry: &PluginEntry, problems: &mut Problems) {
        if let Some(first) = self.find(&entry.name) {
            let line = self.list[first].line;
            let message = format!("the name \"{}\" is taken by the plugin in line {line}", entry.name);
            problems.error(entry.line, format!("{}.name", entry.path), message);
            return;
        }
        let mut instance = Instance {
            name: entry.name.as_str().into(),
            kind: "",
            reports_as: "",
            parameters: entry.parameters.as_ref().map(crate::document::Node::to_json),
            origin: Origin::Listed,
            line: entry.line,
            path: entry.path.clone(),
            roles: Roles::default(),
            produced: Vec::new(),
            consumed: Vec::new(),
            attributes_written: Vec::new(),
            attributes_read: Vec::new(),
            deciders: Vec::new(),
            inactive: None,
            missing: None,
            broken: false,
            used: false,
        };
        let line_of = |path: &str| entry.parameters.as_ref().map_or(entry.line, |node| node.line_of(path));
        if let Some(row) = self.row(&entry.kind) {
            self.construct(&mut instance, row, line_of, problems);
        } else if let Some(missing) = missing::find(&entry.kind) {
            self.accept_missing(&mut instance, missing, entry, problems);
        } else if let Some((kind, purpose)) = known::inactive(&entry.kind) {
            (instance.kind, instance.reports_as) = (kind, kind);
            instance.inactive = Some(purpose);
        } else {
            instance.broken = true;
            let kind = &entry.kind;
            let message = if known::in_reference(kind) {
                format!("plugin type \"{kind}\" exists in the reference but not in this version")
            } else {
                let names = self
                    .options
                    .registry
                    .iter()
                    .map(|row| row.name)
                    .chain(known::inactive_names())
                    .chain(missing::names());
                format!("unknown plugin type \"{kind}\"{}", near_name(kind, names))
            };
            problems.error(entry.line, format!("{}.type", entry.path), message);
        }
        self.push(instance);
    }

    /// Takes a plugin whose type is not built yet, if that is allowed, and says what is not in force.
    fn accept_missing(
        &self,
        instance: &mut Instance,
        missing: &'static MissingType,
        entry: &PluginEntry,
        problems: &mut Problems,
    ) {
        (instance.kind, instance.reports_as) = (missing.name, missing.name);
        let (name, without) = (&instance.name, missing.without);
        let path = format!("{}.type", entry.path);
        if !self.options.allow_missing {
            let message = format!(
                "plugin type \"{}\" is not in this version: {without}; --allow-missing-plugins starts without it",
                missing.name
            );
            problems.error(entry.line, path, message);
            instance.broken = true;
            return;
        }
        instance.missing = Some(missing);
        problems.warning(entry.line, path, format!("\"{name}\" is not in force: {without}"));
        for parameter in instance.parameters.iter().flat_map(|parameters| missing.unknown(parameters)) {
            let message = format!("\"{}\" has no parameter of this name", missing.name);
            problems.warning(entry.line, format!("{}.parameters.{parameter}", entry.path), message);
        }
    }

    fn row(&self, kind: &str) -> Option<&'static PluginType> {
        self.options.registry.iter().find(|row| row.name == kind).copied()
    }

    fn push(&mut self, instance: Instance) -> usize {
        let index = self.list.len();
        self.by_name.insert(Arc::clone(&instance.name), index);
        self.list.push(instance);
        index
    }

    /// Builds the plugin of `instance`. `line_of` finds the line of a parameter.
    fn construct(
        &mut self,
        instance: &mut Instance,
        row: &'static PluginType,
        line_of: impl Fn(&str) -> u32,
        problems: &mut Problems,
    ) {
        (instance.kind, instance.reports_as) = (row.name, row.reports_as);
        let at_type =
            if instance.path.is_empty() { String::new() } else { format!("{}.type", instance.path) };
        if row.stability == Stability::Alpha && !self.options.allow_experimental {
            let message = format!(
                "plugin type \"{}\" is experimental; it needs --allow-experimental-plugins",
                row.name
            );
            problems.error(instance.line, &at_type, message);
            instance.broken = true;
            return;
        }
        if let Some(superseded) = row.superseded {
            let message = format!(
                "plugin type \"{}\" is deprecated since {}; use \"{}\"",
                row.name, superseded.since, superseded.replacement
            );
            problems.warning(instance.line, &at_type, message);
        }
        let seed = self.options.seed ^ xxhash_rust::xxh64::xxh64(instance.name.as_bytes(), 0);
        let mut cx = BuildCx::new(
            &instance.name,
            instance.parameters.as_ref(),
            &self.options.metrics,
            &mut self.columns,
            seed,
        )
        .with_prefix_memory(Arc::clone(&self.options.prefix_memory));
        let built = (row.build)(&mut cx);
        let attributes = (take(&mut cx.attributes_written), take(&mut cx.attributes_read));
        let BuildCx { produced, consumed, deciders, warnings, .. } = cx;
        (instance.attributes_written, instance.attributes_read) = attributes;
        for text in warnings {
            problems.warning(instance.line, &instance.path, format!("\"{}\" {text}", instance.name));
        }
        match built {
            Ok(roles) => {
                (instance.roles, instance.produced, instance.consumed) = (roles, produced, consumed);
                let at = |wanted: DeciderReference| {
                    let line = line_of(&wanted.parameter);
                    let path = format!("{}.parameters.{}", instance.path, wanted.parameter);
                    (Reference { name: wanted.name, line, path }, wanted.slot)
                };
                instance.deciders = deciders.into_iter().map(at).collect();
            }
            Err(error) => {
                let (path, message) = instance.blame(&error);
                problems.error(line_of(&error.path), path, message);
                instance.broken = true;
            }
        }
    }

    /// The instance named like its type, added without parameters if it does not exist. `None` if that type cannot be
    /// built.
    pub(super) fn ensure(&mut self, kind: &str, reason: &str, problems: &mut Problems) -> Option<usize> {
        if let Some(index) = self.find(kind) {
            return Some(index);
        }
        let Some(row) = self.row(kind) else {
            let message = format!("plugin type \"{kind}\" is needed ({reason}) but not in this version");
            problems.error(0, "", message);
            return None;
        };
        let mut instance = Instance {
            name: row.name.into(),
            kind: row.name,
            reports_as: row.reports_as,
            parameters: None,
            origin: Origin::Injected(reason.to_owned()),
            line: 0,
            path: String::new(),
            roles: Roles::default(),
            produced: Vec::new(),
            consumed: Vec::new(),
            attributes_written: Vec::new(),
            attributes_read: Vec::new(),
            deciders: Vec::new(),
            inactive: None,
            missing: None,
            broken: false,
            used: true,
        };
        self.construct(&mut instance, row, |_| 0, problems);
        Some(self.push(instance))
    }
}
