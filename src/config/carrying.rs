//! Carries plugins from one configuration to the next.

use std::sync::Arc;

use super::carry::{Carried, CarriedInstance};
use super::instance::Instance;
use super::instances::Instances;
use super::plan::PlannedInstance;
use crate::plugins::ColumnKey;

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

    /// What a second configuration with these instances shares with the one that leaves this: plugins of one type, name
    /// and parameters that go by the same data. `former` is what the second one had before; what of that it has alone
    /// lives on, too.
    #[must_use]
    pub fn shared_with(&self, instances: &[PlannedInstance], former: Option<&Self>) -> Self {
        let has = |carried: &CarriedInstance| {
            instances.iter().any(|instance| {
                carried.name == instance.name
                    && carried.kind == instance.kind
                    && carried.parameters == instance.parameters
            })
        };
        let mut shared: Vec<&CarriedInstance> = self.instances.iter().filter(|it| has(it)).collect();
        loop {
            let before = shared.len();
            let known: Vec<ColumnKey> = shared.iter().flat_map(|it| &it.produced).cloned().collect();
            // A plugin that learns from data which the second configuration makes otherwise learns something else.
            let nobody_makes = |key: &ColumnKey| {
                !self.instances.iter().any(|it| *it.name == key.producer)
                    && !instances.iter().any(|it| *it.name == key.producer)
            };
            let same = |key: &ColumnKey| known.contains(key) || nobody_makes(key);
            shared.retain(|it| it.consumed.iter().all(|read| same(&read.key)));
            if shared.len() == before {
                break;
            }
        }
        let mut columns = self.columns.clone();
        let mut kept: Vec<CarriedInstance> = shared.into_iter().cloned().collect();
        // Columns are numbers, which mean the same only if both have the same list.
        if let Some(former) = former.filter(|former| former.columns.starts_with(&self.columns)) {
            columns.clone_from(&former.columns);
            let alone = |it: &&CarriedInstance| {
                !self.instances.iter().any(|other| {
                    other.name == it.name && other.kind == it.kind && other.parameters == it.parameters
                })
            };
            kept.extend(former.instances.iter().filter(|it| has(it)).filter(alone).cloned());
        }
        Self { columns, instances: kept }
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
