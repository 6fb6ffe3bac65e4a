//! From what was written to what will run. All problems are gathered; a plugin that failed is not blamed twice.

use std::sync::Arc;

use super::carry::Carried;
use super::config_map;
use super::former;
use super::instance::{ExtensionPlugin, Instance};
use super::instances::Instances;
use super::options::LoadOptions;
use super::plan::{Plan, PlannedInstance};
use super::resolver::Resolver;
use super::schema::{self, Document};
use super::source::ConfigSource;
use crate::document::{Node, Problems, SyntaxError, parse};
use crate::metrics::Metrics;
use crate::plugins::Roles;
use crate::scheduling::{Entry, ProfilePlugin};

/// Loads a configuration. `Err` holds at least one error, and the warnings beside it; the plan holds only warnings and
/// notes.
pub fn load(source: &ConfigSource, options: &LoadOptions) -> Result<Plan, Problems> {
    let mut problems = Problems::new(&source.name());
    let text = source.text(&mut problems);
    let document = text.as_deref().and_then(|text| document(text, &options.feature_gates, &mut problems));
    let (plan, mut problems) = match document {
        Some(document) => {
            let mut resolver = Resolver::new(options, problems);
            (resolver.plan(&document), resolver.problems)
        }
        None => (None, problems),
    };
    problems.sort();
    match plan {
        Some(mut plan) if !problems.has_errors() => {
            plan.problems = problems;
            plan.text = text.unwrap_or_default();
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

/// The document that `text` holds, with these gates set over its own.
fn document(text: &str, feature_gates: &[String], problems: &mut Problems) -> Option<Document> {
    let text = ConfigSource::first_document(text, problems);
    let mut report = |fault: SyntaxError| problems.error(fault.line, "", fault.message);
    let given = parse(text).map_err(&mut report).ok()?;
    let Some(mut root) = given else {
        let root = parse(ConfigSource::built_in()).map_err(report).ok()??;
        problems.note(0, "", "is empty; the built-in default holds");
        return Some(read(root, false, feature_gates, problems));
    };
    let mut is_json = text.trim_start().starts_with('{');
    if let Some(inner) = config_map::inside(&root, problems) {
        let inner = inner.ok()?;
        is_json = inner.trim_start().starts_with('{');
        root = parse(&inner).map_err(|fault| problems.error(fault.line, "", fault.message)).ok()??;
    }
    Some(read(root, is_json, feature_gates, problems))
}

fn read(mut root: Node, is_json: bool, feature_gates: &[String], problems: &mut Problems) -> Document {
    former::translate(&mut root, problems);
    let mut document = schema::read(&root, is_json, problems);
    for gate in feature_gates {
        document.gates.set(gate, 0, "--feature-gates", problems);
    }
    document
}

impl Resolver<'_> {
    /// The steps, in the order they happen.
    fn plan(&mut self, document: &Document) -> Option<Plan> {
        self.build(&document.plugins);
        let scheduler = self.profiles(&document.profiles);
        let parsers = self.parsers(&document.parsers);
        let data_layer = self.data_layer(&document.data_layer);
        self.create_missing_producers();
        let order = self.producer_order();
        let detector = self.detector(&document.flow_control);
        let flow = if document.gates.flow_control {
            Some(self.flow_settings(&document.flow_control, &detector))
        } else {
            self.check_idle_flow(&document.flow_control);
            None
        };
        let (flow, flow_names) = flow.unzip();
        self.report_unused();
        if self.problems.has_errors() {
            return None;
        }
        let Self { options: LoadOptions { metrics, .. }, instances, problems } = self;
        Some(Plan {
            scheduler: scheduler?.build(instances, metrics)?,
            producers: order
                .into_iter()
                .filter_map(|id| instances[id].slot(metrics, |roles| roles.producer.clone()))
                .collect(),
            preparers: hooks(instances, metrics, |roles| roles.preparer.clone()),
            pre_request: hooks(instances, metrics, |roles| roles.pre_request.clone()),
            response_headers: hooks(instances, metrics, |roles| roles.response_headers.clone()),
            response_ends: hooks(instances, metrics, |roles| roles.response_end.clone()),
            reporters: hooks(instances, metrics, |roles| roles.reporter.clone()),
            parsers: parsers.into_iter().filter_map(|id| instances[id].parser(metrics)).collect(),
            media: instances.iter().find_map(|instance| instance.roles.media_estimate).unwrap_or_default(),
            in_flight: instances.iter().find_map(|instance| instance.roles.in_flight).unwrap_or_default(),
            in_flight_matches: instances.iter().find_map(|instance| instance.roles.in_flight_matches),
            entry: Entry {
                flow_namers: hooks(instances, metrics, |roles| roles.flow_namer.clone()),
                screeners: hooks(instances, metrics, |roles| roles.screener.clone()),
                admitters: hooks(instances, metrics, |roles| roles.admitter.clone()),
            },
            prefix_match: instances.column(CONDITIONAL_PRODUCER),
            shown_matches: instances.any_column(),
            kv_events: instances.iter().filter_map(|instance| instance.roles.kv_events.clone()).collect(),
            shared_indexes: instances.iter().filter_map(|it| it.roles.shared_index.clone()).collect(),
            metrics_source: data_layer.source_spec(instances),
            engines: data_layer.engines(instances),
            pages: data_layer.pages(instances),
            objects: data_layer.objects(instances),
            discovery: data_layer.discovery_spec(instances),
            redis: document.data_layer.redis.clone(),
            gates: document.gates,
            flow,
            detector,
            flow_control: document.flow_control.clone(),
            instances: instances.iter().map(|instance| planned(instance, instances)).collect(),
            carried: Carried::of(instances),
            problems: problems.clone(),
            text: String::new(),
            data_layer: data_layer.names(instances),
            flow_names,
        })
    }
}

/// The producer that conditional requests (`Prefer: if-available`) go by.
const CONDITIONAL_PRODUCER: &str = crate::plugins::producers::approx_prefix_cache::TYPE.name;

/// One role of every instance that has it, in order.
fn hooks<T>(
    instances: &Instances,
    metrics: &Metrics,
    role: impl Fn(&Roles) -> Option<Arc<T>>,
) -> Vec<ProfilePlugin<T>>
where
    T: ?Sized + ExtensionPlugin,
{
    instances.iter().filter_map(|instance| instance.slot(metrics, &role)).collect()
}

fn planned(instance: &Instance, instances: &Instances) -> PlannedInstance {
    let readers = |column: &crate::plugins::ColumnKey| {
        let reads = |other: &&Instance| other.consumed.iter().any(|used| used.key == *column);
        instances.iter().filter(reads).map(|other| Arc::clone(&other.name)).collect()
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
        prefix: instance.roles.prefix.clone(),
    }
}
