//! From what was written to what will run. All problems are gathered; a plugin that failed is not blamed twice.

use std::sync::Arc;

use super::instances::Instances;
use super::plan::{Plan, PlannedInstance};
use super::schema::{self, Document};
use super::source::ConfigSource;
use super::{flow_settings, former, producers, profiles, unused, wiring};
use crate::document::{Problems, SyntaxError, parse};
use crate::metrics::Metrics;
use crate::plugins::{Registry, Roles};
use crate::prefix::{DEFAULT_PREFIX_MEMORY_BYTES, PrefixMemory};
use crate::scheduling::{Entry, ProfilePlugin};

/// What the configuration does not say.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Types that may still change are accepted.
    pub allow_experimental: bool,
    /// Types that are not built yet are accepted and do nothing; else they are errors.
    pub allow_missing: bool,
    /// Feature gates as `NAME`, `NAME=true` or `NAME=false`, which count over those of the document.
    pub feature_gates: Vec<String>,
    /// Feeds the random choices of plugins.
    pub seed: u64,
    /// Families that plugins take handles from.
    pub metrics: Arc<Metrics>,
    /// Bound of all prefix indexes together.
    pub prefix_memory: Arc<PrefixMemory>,
    /// Plugin types there are.
    pub registry: Registry,
}

impl LoadOptions {
    /// Options over the built-in plugin types, without experimental ones.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            allow_experimental: false,
            allow_missing: false,
            feature_gates: Vec::new(),
            seed: 0,
            metrics,
            prefix_memory: PrefixMemory::new(DEFAULT_PREFIX_MEMORY_BYTES),
            registry: crate::plugins::REGISTRY,
        }
    }
}

/// Loads a configuration. `Err` holds at least one error, and the warnings beside it; the plan holds only warnings and
/// notes.
pub fn load(source: &ConfigSource, options: &LoadOptions) -> Result<Plan, Problems> {
    let mut problems = Problems::new(&source.name());
    let plan = source.text(&mut problems).and_then(|text| plan(&text, options, &mut problems));
    problems.sort();
    match plan {
        Some(mut plan) if !problems.has_errors() => {
            plan.problems = problems;
            Ok(plan)
        }
        _ => {
            if !problems.has_errors() {
                problems.error(0, "", "gives no usable configuration");
            }
            // What was filled in is of no interest where nothing came of it.
            problems.drop_notes();
            Err(problems)
        }
    }
}

fn plan(text: &str, options: &LoadOptions, problems: &mut Problems) -> Option<Plan> {
    let mut report = |fault: SyntaxError| problems.error(fault.line, "", fault.message);
    let given = parse(text).map_err(&mut report).ok()?;
    let mut root = if let Some(root) = given {
        root
    } else {
        let root = parse(ConfigSource::built_in()).map_err(report).ok()??;
        problems.note(0, "", "is empty; the built-in default holds");
        root
    };
    let is_json = text.trim_start().starts_with('{');
    former::translate(&mut root, problems);
    let mut document = schema::read(&root, is_json, problems);
    for gate in &options.feature_gates {
        document.gates.set(gate, 0, "--feature-gates", problems);
    }
    resolve(&document, options, problems)
}

fn resolve(document: &Document, options: &LoadOptions, problems: &mut Problems) -> Option<Plan> {
    let mut instances = Instances::build(&document.plugins, options, problems);
    let scheduler = profiles::resolve(&document.profiles, &mut instances, problems);
    let parsers = wiring::parsers(&document.parsers, &mut instances, problems);
    let data_layer = wiring::data_layer(&document.data_layer, &mut instances, problems);
    producers::create_missing(&mut instances, problems);
    let order = producers::order(&instances, problems);
    let detector = flow_settings::detector(&document.flow_control, &mut instances, problems);
    let flow = if document.gates.flow_control {
        Some(flow_settings::settings(&document.flow_control, &detector, &mut instances, problems))
    } else {
        flow_settings::check_idle(&document.flow_control, &mut instances, problems);
        None
    };
    let (flow, flow_names) = flow.unzip();
    unused::report(&instances, problems);
    if problems.has_errors() {
        return None;
    }
    let metrics = &options.metrics;
    let list = instances.list();
    Some(Plan {
        scheduler: scheduler?.build(&instances, metrics)?,
        preparers: hooks(&instances, metrics, |roles| roles.preparer.clone()),
        media: list.iter().find_map(|instance| instance.roles.media_estimate).unwrap_or_default(),
        entry: Entry {
            flow_namers: hooks(&instances, metrics, |roles| roles.flow_namer.clone()),
            screeners: hooks(&instances, metrics, |roles| roles.screener.clone()),
            admitters: hooks(&instances, metrics, |roles| roles.admitter.clone()),
        },
        producers: order
            .into_iter()
            .filter_map(|index| list[index].slot(metrics, |roles| roles.producer.clone()))
            .collect(),
        pre_request: hooks(&instances, metrics, |roles| roles.pre_request.clone()),
        response_headers: hooks(&instances, metrics, |roles| roles.response_headers.clone()),
        parsers: parsers.into_iter().filter_map(|index| list[index].parser(metrics)).collect(),
        prefix_match: instances.column(CONDITIONAL_PRODUCER),
        metrics_source: data_layer.source_spec(&instances),
        engines: data_layer.engines(&instances),
        discovery: data_layer.discovery_spec(&instances),
        gates: document.gates,
        flow,
        detector,
        flow_control: document.flow_control.clone(),
        instances: list.iter().map(|instance| planned(instance, &instances)).collect(),
        problems: problems.clone(),
        data_layer: data_layer.names(&instances),
        flow_names,
    })
}

/// The producer that conditional requests (`Prefer: if-available`) go by.
const CONDITIONAL_PRODUCER: &str = "approx-prefix-cache-producer";

/// One role of every instance that has it, in order.
fn hooks<T>(
    instances: &Instances<'_>,
    metrics: &Metrics,
    role: impl Fn(&Roles) -> Option<Arc<T>>,
) -> Vec<ProfilePlugin<T>>
where
    T: ?Sized + super::instances::Slot,
{
    instances.list().iter().filter_map(|instance| instance.slot(metrics, &role)).collect()
}

fn planned(instance: &super::instances::Instance, instances: &Instances<'_>) -> PlannedInstance {
    let readers = |column: &crate::plugins::ColumnKey| {
        let reads =
            |other: &&super::instances::Instance| other.consumed.iter().any(|used| used.key == *column);
        instances.list().iter().filter(reads).map(|other| Arc::clone(&other.name)).collect()
    };
    PlannedInstance {
        name: Arc::clone(&instance.name),
        kind: instance.kind,
        missing: instance.missing.map(|missing| missing.without),
        parameters: instance.parameters.clone(),
        origin: instance.origin.clone(),
        roles: instance.roles.names(),
        produces: instance.produced.iter().map(|key| (key.data_name.to_owned(), readers(key))).collect(),
        state: instance.roles.state.clone(),
    }
}
