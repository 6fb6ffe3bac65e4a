//! What resolving a document works on: the instances so far, and everything found wrong.

use std::sync::Arc;

use super::instance::Instance;
use super::instances::{InstanceId, Instances};
use super::options::LoadOptions;
use super::reference::{Reference, near_name};
use crate::document::Problems;
use crate::plugins::PluginType;

/// What a reference expects of the plugin that it names.
pub(super) struct Role<T> {
    /// Name of the role, as error texts call it.
    name: &'static str,
    /// The type that stands in for an absent reference, under its own name. It needs no row in `plugins`.
    default_type: Option<&'static str>,
    /// The plugin in this role; `None` if it does not have it.
    pick: fn(&Instance) -> Option<T>,
}

impl<T> Role<T> {
    /// A role of this name, which `pick` takes an instance in.
    pub(super) const fn new(name: &'static str, pick: fn(&Instance) -> Option<T>) -> Self {
        Self { name, default_type: None, pick }
    }

    /// With the type that stands in for an absent reference.
    pub(super) const fn or_default(self, kind: &'static str) -> Self {
        Self { default_type: Some(kind), ..self }
    }
}

/// Resolves one document. The steps stand in the files of their sections.
pub(super) struct Resolver<'o> {
    pub(super) options: &'o LoadOptions,
    pub(super) instances: Instances,
    pub(super) problems: Problems,
}

impl<'o> Resolver<'o> {
    pub(super) fn new(options: &'o LoadOptions, problems: Problems) -> Self {
        let mut instances = Instances::default();
        if let Some(carried) = &options.carried {
            // A plugin that lives on knows its columns by their places, so the table only grows.
            instances.columns.clone_from(&carried.columns);
        }
        Self { options, instances, problems }
    }

    /// The plugin type of this name.
    pub(super) fn row(&self, kind: &str) -> Option<&'static PluginType> {
        self.options.registry.iter().find(|row| row.name == kind).copied()
    }

    /// The instance that `reference` names. That there is none is said.
    pub(super) fn named(&mut self, reference: &Reference) -> Option<InstanceId> {
        let found = self.instances.find(&reference.name);
        if found.is_none() {
            let hint = near_name(&reference.name, self.instances.names());
            self.no_plugin_named(reference, &hint);
        }
        found
    }

    /// The instance that `reference` names, and its plugin in this role. What is wrong is said.
    pub(super) fn lookup<T>(&mut self, reference: &Reference, role: &Role<T>) -> Option<(InstanceId, T)> {
        let id = self.named(reference)?;
        self.instances.mark_used(id);
        if self.instances[id].missing.is_some() {
            return None;
        }
        Some((id, self.in_role(id, role, reference.line, &reference.path)?))
    }

    /// The plugin that `reference` names in this role, and that name. Without a reference, and where something is
    /// wrong, which is said, the default of the role holds.
    pub(super) fn lookup_or_default<T: Default>(
        &mut self,
        reference: Option<&Reference>,
        role: &Role<T>,
    ) -> (T, Arc<str>) {
        let default = role.default_type.unwrap_or_default();
        let name = reference.map_or(default, |reference| &reference.name);
        let value = if let Some(id) = self.instances.find(name) {
            self.instances.mark_used(id);
            let instance = &self.instances[id];
            let (line, path) = (instance.line, instance.path.clone());
            let (line, path) =
                reference.map_or((line, path), |reference| (reference.line, reference.path.clone()));
            self.in_role(id, role, line, &path)
        } else {
            if let Some(reference) = reference.filter(|_| name != default) {
                let hint = if self.row(name).is_some() {
                    format!("; add `- type: {name}` to `plugins`")
                } else {
                    near_name(name, self.instances.names())
                };
                self.no_plugin_named(reference, &hint);
            }
            None
        };
        (value.unwrap_or_default(), name.into())
    }

    /// The plugin in this role. A wrong one is an error at `line` and `path`; one that failed to be built has had its
    /// error.
    fn in_role<T>(&mut self, id: InstanceId, role: &Role<T>, line: u32, path: &str) -> Option<T> {
        let instance = &self.instances[id];
        if instance.broken {
            return None;
        }
        let picked = (role.pick)(instance);
        if picked.is_none() {
            let message = format!("\"{}\" is no {}: {}", instance.name, role.name, instance.abilities());
            self.problems.error(line, path, message);
        }
        picked
    }

    fn no_plugin_named(&mut self, reference: &Reference, hint: &str) {
        let message = format!("there is no plugin named \"{}\"{hint}", reference.name);
        self.problems.error(reference.line, &reference.path, message);
    }
}
