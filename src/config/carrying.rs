//! Carries plugins from one configuration to the next.

use std::sync::Arc;

use super::carry::{Carried, CarriedInstance};
use super::instance::Instance;
use super::instances::Instances;

/// Columns after which nothing is carried over, so that many reloads do not make the table of columns ever longer.
const MOST_COLUMNS: usize = 1024;

impl Carried {
    /// What these instances leave. A plugin that asks another one is made anew: the other one may be another.
    pub(super) fn of(instances: &Instances) -> Self {
        if instances.columns.len() > MOST_COLUMNS {
            return Self::default();
        }
        let lives =
            |instance: &&Instance| !instance.asks_others && !instance.broken && instance.missing.is_none();
        let carried = instances.iter().filter(lives).map(|instance| CarriedInstance {
            name: Arc::clone(&instance.name),
            kind: instance.kind,
            parameters: instance.parameters.clone(),
            roles: instance.roles.clone(),
            produced: instance.produced.clone(),
            consumed: instance.consumed.clone(),
            attributes_written: instance.attributes_written.clone(),
            attributes_read: instance.attributes_read.clone(),
        });
        Self { columns: instances.columns.clone(), instances: carried.collect() }
    }

    /// Gives `instance` the life of the one with its type, name and parameters. False if there is none.
    pub(super) fn give(&self, instance: &mut Instance) -> bool {
        let found = self.instances.iter().find(|carried| {
            carried.name == instance.name
                && carried.kind == instance.kind
                && carried.parameters == instance.parameters
        });
        let Some(carried) = found else { return false };
        instance.roles = carried.roles.clone();
        instance.produced = carried.produced.clone();
        instance.consumed = carried.consumed.clone();
        instance.attributes_written = carried.attributes_written.clone();
        instance.attributes_read = carried.attributes_read.clone();
        true
    }
}
