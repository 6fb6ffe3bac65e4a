//! Reports everything that was configured and does nothing.

use super::instance::Instance;
use super::instances::Instances;
use super::plan::Origin;
use super::resolver::Resolver;
use crate::plugins::PluginType;

impl Resolver<'_> {
    /// Warns about listed plugins that take part in nothing, or in less than their type suggests.
    pub(super) fn report_unused(&mut self) {
        let Self { instances, problems, options } = self;
        let counting = instances.iter().find(|it| it.roles.in_flight.is_some()).map(|it| &it.name);
        let any_broken = instances.iter().any(|instance| instance.broken);
        // Whoever is not in force may have been meant to write what others read.
        let any_missing = instances.iter().any(|instance| instance.missing.is_some() || instance.broken);
        for instance in instances.iter() {
            // Whoever failed to be built may have asked a decider.
            let may_be_asked = any_broken && instance.roles.decider.is_some();
            let said = instance.broken || instance.missing.is_some();
            if said || may_be_asked || instance.origin != Origin::Listed {
                continue;
            }
            let name = &instance.name;
            for key in &instance.attributes_read {
                if !any_missing && !instances.iter().any(|other| other.attributes_written.contains(key)) {
                    let message = format!(
                        "\"{name}\" reads the attribute {key}, which nothing writes: no endpoint has it"
                    );
                    problems.warning(instance.line, &instance.path, message);
                }
            }
            if instance.roles.in_flight.is_some() && counting != Some(&instance.name) {
                let message = format!("\"{name}\" has no effect: requests in flight are counted once");
                problems.warning(instance.line, &instance.path, message);
            } else if instance.schedules() && !instance.used {
                let rest = if is_hook(instance) { "; its hooks run all the same" } else { "" };
                let message =
                    format!("\"{name}\" is in no profile and neither filters, scores nor picks{rest}");
                problems.warning(instance.line, &instance.path, message);
                problems.mend(format!("`- pluginRef: {name}` in a profile, or no such row"));
            } else if is_idle_producer(instance, instances) {
                let data: Vec<&str> = instance.produced.iter().map(|key| key.data_name).collect();
                let message = format!("nobody reads what \"{name}\" produces ({})", data.join(", "));
                problems.warning(instance.line, &instance.path, message);
                let reads = |row: &&&PluginType| instance.produced.iter().any(|key| row.reads(key.data));
                if let Some(reader) = options.registry.iter().find(reads) {
                    problems.mend(format!(
                        "`- type: {}` in `plugins` and its name in a profile, or no row for \"{name}\"",
                        reader.name
                    ));
                }
            } else if !instance.used && !is_hook(instance) && instance.roles.producer.is_none() {
                let message = format!("\"{name}\" has no effect: nothing refers to it");
                problems.warning(instance.line, &instance.path, message);
            }
        }
    }
}

/// Hooks run for every plugin that has them, whether or not a profile names it.
fn is_hook(instance: &Instance) -> bool {
    let roles = &instance.roles;
    let before = roles.flow_namer.is_some() || roles.screener.is_some() || roles.admitter.is_some();
    before
        || roles.pre_request.is_some()
        || roles.response_headers.is_some()
        || roles.response_end.is_some()
        || roles.reporter.is_some()
        || roles.preparer.is_some()
        || roles.media_estimate.is_some()
        || roles.in_flight.is_some()
}

fn is_idle_producer(instance: &Instance, instances: &Instances) -> bool {
    let read = |key| {
        let reads = |other: &Instance| other.consumed.iter().any(|used| used.key == key);
        instances.iter().any(reads)
    };
    instance.roles.producer.is_some()
        && !instance.used
        && !instance.produced.is_empty()
        && !instance.produced.iter().cloned().any(read)
}
