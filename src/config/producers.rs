//! Data producers: those that must be added, and the order in which all of them run.

use std::collections::HashSet;

use super::instance::Instance;
use super::instances::{InstanceId, Instances};
use super::resolver::Resolver;
use crate::plugins::ColumnKey;

impl Resolver<'_> {
    /// Adds default producers until every required column has one or cannot have one. What stays missing is an error.
    pub(super) fn create_missing_producers(&mut self) {
        let mut told: HashSet<(InstanceId, ColumnKey)> = HashSet::new();
        // Each round adds at least one instance of another type, so the registry's size bounds the rounds.
        loop {
            let mut added = false;
            for (reader, key, default) in missing(&self.instances) {
                // An instance added a moment ago may have settled it.
                let settled = self.instances.iter().any(|instance| instance.produced.contains(&key));
                if settled || told.contains(&(reader, key.clone())) {
                    continue;
                }
                let Some(kind) = default.filter(|kind| self.instances.find(kind).is_none()) else {
                    self.report_missing(reader, &key);
                    told.insert((reader, key));
                    continue;
                };
                let reason = format!("\"{}\" reads {}", self.instances[reader].name, key.data_name);
                if self.ensure(kind, &reason).is_some() {
                    added = true;
                } else {
                    told.insert((reader, key));
                }
            }
            if !added {
                return;
            }
        }
    }

    fn report_missing(&mut self, reader: InstanceId, key: &ColumnKey) {
        let list = &self.instances;
        let reader = &list[reader];
        let named = self.instances.find(&key.producer).map(|index| &list[index]);
        if named.is_some_and(|instance| instance.broken) {
            return;
        }
        if named.is_some_and(|instance| instance.missing.is_some()) {
            let (name, data, from) = (&reader.name, key.data_name, &key.producer);
            let message =
                format!("\"{name}\" reads {data} from \"{from}\", which is not in force: it finds nothing");
            self.problems.warning(reader.line, &reader.path, message);
            return;
        }
        let makes = |instance: &&Instance| instance.produced.iter().any(|made| made.data == key.data);
        let others: Vec<String> =
            list.iter().filter(makes).map(|instance| format!("`{}`", instance.name)).collect();
        let hint = match (named, others.as_slice()) {
            (Some(_), _) => ", and the plugin of that name does not produce it".to_owned(),
            (None, []) => ", and there is no such plugin".to_owned(),
            (None, others) => {
                format!(", and there is no such plugin; it is produced by {}", others.join(", "))
            }
        };
        let message = format!("\"{}\" reads {} from \"{}\"{hint}", reader.name, key.data_name, key.producer);
        let maker = self.options.registry.iter().find(|row| row.makes(key.data)).map(|row| row.name);
        self.problems.error(reader.line, &reader.path, message);
        if named.is_none()
            && let Some(maker) = maker
        {
            self.problems.mend(format!("`- type: {maker}` with `name: {}` in `plugins`", key.producer));
        }
    }

    /// The producers, each after those whose required columns it reads; else in the order of the self.instances. A
    /// cycle is an error. Columns that are read if present, and are not, are noted.
    pub(super) fn producer_order(&mut self) -> Vec<InstanceId> {
        let list = &self.instances;
        for instance in list.iter() {
            for used in instance.consumed.iter().filter(|used| !used.required) {
                if !list.iter().any(|other| other.produced.contains(&used.key)) {
                    let (name, data, from) = (&instance.name, used.key.data_name, &used.key.producer);
                    let message =
                        format!("\"{name}\" would read {data} from \"{from}\", which nothing produces");
                    self.problems.note(instance.line, &instance.path, message);
                }
            }
        }
        let mut left = list.which(|instance| instance.roles.producer.is_some());
        let waits_for = |reader: InstanceId, writer: InstanceId| {
            let needs =
                |key: &ColumnKey| list[reader].consumed.iter().any(|used| used.required && used.key == *key);
            list[writer].produced.iter().any(needs)
        };
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let waits = |reader: InstanceId| {
                left.iter().any(|writer| *writer != reader && waits_for(reader, *writer))
            };
            let ready = left.iter().position(|reader| !waits(*reader));
            let Some(position) = ready else {
                let first = &list[left[0]];
                let names: Vec<String> =
                    left.iter().map(|index| format!("`{}`", list[*index].name)).collect();
                let message = format!("data producers wait for each other: {}", names.join(", "));
                self.problems.error(first.line, &first.path, message);
                return order;
            };
            order.push(left.remove(position));
        }
        order
    }
}

type Missing = (InstanceId, ColumnKey, Option<&'static str>);

fn missing(instances: &Instances) -> Vec<Missing> {
    let produced: HashSet<&ColumnKey> = instances.iter().flat_map(|instance| &instance.produced).collect();
    let mut missing = Vec::new();
    for reader in instances.which(|instance| !instance.consumed.is_empty()) {
        for used in &instances[reader].consumed {
            if used.required && !produced.contains(&used.key) {
                missing.push((reader, used.key.clone(), used.default_producer));
            }
        }
    }
    missing
}
