//! Rows of `plugins` become plugins.

use std::mem::take;
use std::sync::Arc;

use super::instance::Instance;
use super::instances::InstanceId;
use super::known;
use super::missing::{self, MissingType};
use super::reference::{Reference, near_name};
use super::resolver::{Resolver, Role};
use super::schema::PluginEntry;
use crate::plugins::former_filters::decision_tree;
use crate::plugins::{BuildCx, DeciderReference, FilterReference, PluginType, Stability};
use crate::scheduling::{Decider, Filter};

const DECIDER: Role<Arc<dyn Decider>> = Role::new("decider", |instance| instance.roles.decider.clone());

/// A tree may not lead to the tree of another plugin, which might lead back.
const WALKED_FILTER: Role<Arc<dyn Filter>> = Role::new("filter that a tree may have", |instance| {
    let filter = instance.roles.filter.clone();
    filter.filter(|_| instance.kind != decision_tree::TYPE.name)
});

impl Resolver<'_> {
    /// Builds every row of `plugins`.
    pub(super) fn build(&mut self, entries: &[PluginEntry]) {
        for entry in entries {
            self.build_entry(entry);
        }
        self.bind_deciders();
        self.bind_filters();
    }

    /// Hands every plugin the deciders that it asks.
    fn bind_deciders(&mut self) {
        let deciders = self.instances.iter_mut().flat_map(|instance| take(&mut instance.deciders));
        for (reference, slot) in deciders.collect::<Vec<_>>() {
            if let Some((_, decider)) = self.lookup(&reference, &DECIDER) {
                slot.fill(decider);
            }
        }
    }

    /// Hands every plugin the filters that it walks.
    fn bind_filters(&mut self) {
        let filters = self.instances.iter_mut().flat_map(|instance| take(&mut instance.filters));
        for (reference, slot) in filters.collect::<Vec<_>>() {
            if let Some((_, filter)) = self.lookup(&reference, &WALKED_FILTER) {
                slot.fill(filter);
            }
        }
    }

    fn build_entry(&mut self, entry: &PluginEntry) {
        if let Some(first) = self.instances.find(&entry.name) {
            let line = self.instances[first].line;
            let message = format!("the name \"{}\" is taken by the plugin in line {line}", entry.name);
            self.problems.error(entry.line, format!("{}.name", entry.path), message);
            return;
        }
        let mut instance = Instance::listed(entry);
        let line_of = |path: &str| entry.parameters.as_ref().map_or(entry.line, |node| node.line_of(path));
        if let Some(row) = self.row(&entry.kind) {
            self.construct(&mut instance, row, line_of);
        } else if let Some(missing) = missing::find(&entry.kind) {
            self.accept_missing(&mut instance, missing, entry);
        } else {
            instance.broken = true;
            let kind = &entry.kind;
            let message = if known::in_reference(kind) {
                format!("plugin type \"{kind}\" exists in the reference but not in this version")
            } else {
                let names = self.options.registry.iter().map(|row| row.name).chain(missing::names());
                format!("unknown plugin type \"{kind}\"{}", near_name(kind, names))
            };
            self.problems.error(entry.line, format!("{}.type", entry.path), message);
        }
        self.instances.push(instance);
    }

    /// Takes a plugin whose type is not built yet, if that is allowed, and says what is not in force.
    fn accept_missing(
        &mut self,
        instance: &mut Instance,
        missing: &'static MissingType,
        entry: &PluginEntry,
    ) {
        (instance.kind, instance.reports_as) = (missing.name, missing.name);
        let (name, without) = (&instance.name, missing.without);
        let path = format!("{}.type", entry.path);
        if !self.options.allow_missing {
            let message = format!(
                "plugin type \"{}\" is not in this version: {without}; --allow-missing-plugins starts without it",
                missing.name
            );
            self.problems.error(entry.line, path, message);
            instance.broken = true;
            return;
        }
        instance.missing = Some(missing);
        self.problems.warning(entry.line, path, format!("\"{name}\" is not in force: {without}"));
        for parameter in instance.parameters.iter().flat_map(|parameters| missing.unknown(parameters)) {
            let message = format!("\"{}\" has no parameter of this name", missing.name);
            self.problems.warning(entry.line, format!("{}.parameters.{parameter}", entry.path), message);
        }
    }

    /// Builds the plugin of `instance`. `line_of` finds the line of a parameter.
    fn construct(
        &mut self,
        instance: &mut Instance,
        row: &'static PluginType,
        line_of: impl Fn(&str) -> u32,
    ) {
        (instance.kind, instance.reports_as) = (row.name, row.reports_as);
        let at_type =
            if instance.path.is_empty() { String::new() } else { format!("{}.type", instance.path) };
        if row.stability == Stability::Alpha && !self.options.allow_experimental {
            let message = format!(
                "plugin type \"{}\" is experimental; it needs --allow-experimental-plugins",
                row.name
            );
            self.problems.error(instance.line, &at_type, message);
            self.problems.mend("`--allow-experimental-plugins` on the command line");
            instance.broken = true;
            return;
        }
        if self.options.carried.as_ref().is_some_and(|carried| carried.give(instance)) {
            return;
        }
        if let Some(superseded) = row.superseded {
            let message = format!(
                "plugin type \"{}\" is deprecated since {}; use \"{}\"",
                row.name, superseded.since, superseded.replacement
            );
            self.problems.warning(instance.line, &at_type, message);
        }
        let seed = self.options.seed ^ xxhash_rust::xxh64::xxh64(instance.name.as_bytes(), 0);
        let mut cx = BuildCx::new(
            &instance.name,
            instance.parameters.as_ref(),
            &self.options.metrics,
            &mut self.instances.columns,
            seed,
        )
        .with_prefix_memory(Arc::clone(&self.options.prefix_memory));
        let built = (row.build)(&mut cx);
        let filters = take(&mut cx.filters);
        let attributes = (take(&mut cx.attributes_written), take(&mut cx.attributes_read));
        let BuildCx { produced, consumed, deciders, warnings, .. } = cx;
        (instance.attributes_written, instance.attributes_read) = attributes;
        for text in warnings {
            self.problems.warning(instance.line, &instance.path, format!("\"{}\" {text}", instance.name));
        }
        match built {
            Ok(roles) => {
                (instance.roles, instance.produced, instance.consumed) = (roles, produced, consumed);
                let reference = |parameter: &str, name: String| {
                    let path = format!("{}.parameters.{parameter}", instance.path);
                    Reference { name, line: line_of(parameter), path }
                };
                let decider = |it: DeciderReference| (reference(&it.parameter, it.name), it.slot);
                let filter = |it: FilterReference| (reference(&it.parameter, it.name), it.slot);
                let deciders = deciders.into_iter().map(decider).collect();
                let filters = filters.into_iter().map(filter).collect();
                (instance.deciders, instance.filters) = (deciders, filters);
                instance.asks_others = !instance.deciders.is_empty() || !instance.filters.is_empty();
            }
            Err(error) => {
                let (path, message) = instance.blame(&error);
                self.problems.error(line_of(&error.path), path, message);
                instance.broken = true;
            }
        }
    }

    /// The instance named like its type, added without parameters if it does not exist. `None` if that type cannot be
    /// built.
    pub(super) fn ensure(&mut self, kind: &str, reason: &str) -> Option<InstanceId> {
        if let Some(id) = self.instances.find(kind) {
            return Some(id);
        }
        let Some(row) = self.row(kind) else {
            let message = format!("plugin type \"{kind}\" is needed ({reason}) but not in this version");
            self.problems.error(0, "", message);
            return None;
        };
        let mut instance = Instance::added(row, reason);
        self.construct(&mut instance, row, |_| 0);
        Some(self.instances.push(instance))
    }
}
