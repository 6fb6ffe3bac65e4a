//! Data producers: those that must be added, and the order in which all of them run.

use std::collections::HashSet;

use super::instances::Instances;
use crate::document::Problems;
use crate::plugins::ColumnKey;

/// Adds default producers until every required column has one or cannot have one. What stays missing is an error.
pub(super) fn create_missing(instances: &mut Instances<'_>, problems: &mut Problems) {
    let mut told: HashSet<(usize, ColumnKey)> = HashSet::new();
    // Each round adds at least one instance of another type, so the registry's size bounds the rounds.
    loop {
        let mut added = false;
        for (reader, key, default) in missing(instances) {
            // An instance added a moment ago may have settled it.
            let settled = instances.list().iter().any(|instance| instance.produced.contains(&key));
            if settled || told.contains(&(reader, key.clone())) {
                continue;
            }
            let Some(kind) = default.filter(|kind| instances.find(kind).is_none()) else {
                report(reader, &key, instances, problems);
                told.insert((reader, key));
                continue;
            };
            let reason = format!("\"{}\" reads {}", instances.list()[reader].name, key.data_name);
            if instances.ensure(kind, &reason, problems).is_some() {
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

type Missing = (usize, ColumnKey, Option<&'static str>);

fn missing(instances: &Instances<'_>) -> Vec<Missing> {
    let list = instances.list();
    let produced: HashSet<&ColumnKey> = list.iter().flat_map(|instance| &instance.produced).collect();
    let mut missing = Vec::new();
    for (reader, instance) in list.iter().enumerate() {
        for used in &instance.consumed {
            if used.required && !produced.contains(&used.key) {
                missing.push((reader, used.key.clone(), used.default_producer));
            }
        }
    }
    missing
}

fn report(reader: usize, key: &ColumnKey, instances: &Instances<'_>, problems: &mut Problems) {
    let list = instances.list();
    let reader = &list[reader];
    let named = instances.find(&key.producer).map(|index| &list[index]);
    if named.is_some_and(|instance| instance.broken) {
        return;
    }
    if named.is_some_and(|instance| instance.missing.is_some()) {
        let (name, data, from) = (&reader.name, key.data_name, &key.producer);
        let message =
            format!("\"{name}\" reads {data} from \"{from}\", which is not in force: it finds nothing");
        problems.warning(reader.line, &reader.path, message);
        return;
    }
    let makes =
        |instance: &&super::instances::Instance| instance.produced.iter().any(|made| made.data == key.data);
    let others: Vec<String> =
        list.iter().filter(makes).map(|instance| format!("`{}`", instance.name)).collect();
    let hint = match (named, others.as_slice()) {
        (Some(_), _) => ", and the plugin of that name does not produce it".to_owned(),
        (None, []) => ", and there is no such plugin".to_owned(),
        (None, others) => format!(", and there is no such plugin; it is produced by {}", others.join(", ")),
    };
    let message = format!("\"{}\" reads {} from \"{}\"{hint}", reader.name, key.data_name, key.producer);
    problems.error(reader.line, &reader.path, message);
}

/// Indexes of the producers, each after those whose required columns it reads; else in the order of the instances. A
/// cycle is an error. Columns that are read if present, and are not, are noted.
pub(super) fn order(instances: &Instances<'_>, problems: &mut Problems) -> Vec<usize> {
    let list = instances.list();
    for instance in list {
        for used in instance.consumed.iter().filter(|used| !used.required) {
            if !list.iter().any(|other| other.produced.contains(&used.key)) {
                let (name, data, from) = (&instance.name, used.key.data_name, &used.key.producer);
                let message = format!("\"{name}\" would read {data} from \"{from}\", which nothing produces");
                problems.note(instance.line, &instance.path, message);
            }
        }
    }
    let mut left: Vec<usize> =
        (0..list.len()).filter(|index| list[*index].roles.producer.is_some()).collect();
    let waits_for = |reader: usize, writer: usize| {
        let needs =
            |key: &ColumnKey| list[reader].consumed.iter().any(|used| used.required && used.key == *key);
        list[writer].produced.iter().any(needs)
    };
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waits = |reader: usize| left.iter().any(|writer| *writer != reader && waits_for(reader, *writer));
        let ready = left.iter().position(|reader| !waits(*reader));
        let Some(position) = ready else {
            let first = &list[left[0]];
            let names: Vec<String> = left.iter().map(|index| format!("`{}`", list[*index].name)).collect();
            let message = format!("data producers wait for each other: {}", names.join(", "));
            problems.error(first.line, &first.path, message);
            return order;
        };
        order.push(left.remove(position));
    }
    order
}
