//! Parsers and the data layer: references and defaults.

use std::sync::Arc;

use super::data_layer::{DataLayer, Source};
use super::instances::{Instance, Instances};
use super::known::Purpose;
use super::reference::{Reference, near_name};
use crate::datalayer::{EngineTable, SourceSpec};
use crate::document::Problems;
use crate::plugins::FileDiscoverySpec;
use crate::request::ParserKind;

const SOURCE: &str = "metrics-data-source";
const EXTRACTOR: &str = "core-metrics-extractor";

/// The instance that `reference` names, if it `fits`. What is wrong is said; `role` is what was expected.
pub(super) fn lookup(
    reference: &Reference,
    role: &str,
    fits: impl Fn(&Instance) -> bool,
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> Option<usize> {
    let Some(index) = instances.find(&reference.name) else {
        let hint = near_name(&reference.name, instances.names());
        let message = format!("there is no plugin named \"{}\"{hint}", reference.name);
        problems.error(reference.line, &reference.path, message);
        return None;
    };
    instances.mark_used(index);
    let instance = &instances.list()[index];
    if instance.broken || instance.missing.is_some() {
        return None;
    }
    if !fits(instance) {
        let message = format!("\"{}\" is no {role}: {}", reference.name, instance.abilities());
        problems.error(reference.line, &reference.path, message);
        return None;
    }
    Some(index)
}

/// The parsers in order; the default list if none is given.
pub(super) fn parsers(
    references: &[Reference],
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> Vec<usize> {
    let is_parser = |instance: &Instance| instance.roles.parser.is_some();
    if references.is_empty() {
        let mut parsers = Vec::new();
        for kind in ParserKind::ALL {
            let Some(index) = instances.ensure(kind.type_name(), "no parser is listed", problems) else {
                continue;
            };
            instances.mark_used(index);
            let instance = &instances.list()[index];
            if is_parser(instance) {
                parsers.push(index);
            } else if !instance.broken {
                let message = format!("\"{}\" is named like a default parser and is none", instance.name);
                problems.error(instance.line, &instance.path, message);
            }
        }
        return parsers;
    }
    let mut parsers: Vec<usize> = Vec::new();
    for reference in references {
        // A parser that is nowhere declared is added if its name is a parser type.
        if instances.find(&reference.name).is_none() && ParserKind::from_type_name(&reference.name).is_some()
        {
            instances.ensure(&reference.name, "a list of parsers names it", problems);
        }
        let Some(index) = lookup(reference, "parser", is_parser, instances, problems) else { continue };
        let kind = |index: usize| instances.list()[index].roles.parser;
        if parsers.iter().any(|earlier| kind(*earlier) == kind(index)) {
            let message =
                format!("\"{}\" has no effect: a parser of its type is listed already", reference.name);
            problems.warning(reference.line, &reference.path, message);
            continue;
        }
        if parsers.iter().any(|earlier| kind(*earlier) == Some(ParserKind::Passthrough)) {
            let message =
                format!("\"{}\" has no effect: the parser before it takes every path", reference.name);
            problems.warning(reference.line, &reference.path, message);
            continue;
        }
        parsers.push(index);
    }
    parsers
}

/// The data layer with everything resolved to instances.
#[derive(Debug, Default)]
pub(super) struct ResolvedDataLayer {
    source: Option<usize>,
    extractor: Option<usize>,
    discovery: Option<usize>,
}

/// Names in the data layer, for the effective configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DataLayerNames {
    pub(super) source: Option<Arc<str>>,
    pub(super) extractor: Option<Arc<str>>,
    pub(super) discovery: Option<Arc<str>>,
}

/// Resolves `dataLayer`. A metrics source counts by its type, whatever it is called, so it never gets a second one
/// beside it.
pub(super) fn data_layer(
    layer: &DataLayer,
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> ResolvedDataLayer {
    let mut resolved = ResolvedDataLayer::default();
    for source in &layer.sources {
        ensure_default(&source.plugin, SOURCE, instances, problems);
        let fits = |instance: &Instance| instance.roles.metrics_source.is_some() || instance.roles.notifies;
        let index = lookup(&source.plugin, "data source", fits, instances, problems);
        let named = instances.find(&source.plugin.name).map(|index| &instances.list()[index]);
        if named.is_some_and(|instance| instance.missing.is_some()) {
            // Who reads what is never fetched is of no interest; that it is not fetched was said.
            for extractor in &source.extractors {
                if let Some(reader) = instances.find(&extractor.name) {
                    instances.mark_used(reader);
                }
            }
            continue;
        }
        if named.is_some_and(|instance| instance.roles.notifies) {
            followers(source, instances, problems);
            continue;
        }
        if let (Some(index), Some(first)) = (index, resolved.source) {
            let first = &instances.list()[first].name;
            let message = if resolved.source == Some(index) {
                format!("\"{first}\" is listed twice")
            } else {
                format!(
                    "\"{}\" is a second metrics source beside \"{first}\"; there is one",
                    source.plugin.name
                )
            };
            problems.error(source.plugin.line, &source.plugin.path, message);
            continue;
        }
        resolved.source = resolved.source.or(index);
        for extractor in &source.extractors {
            ensure_default(extractor, EXTRACTOR, instances, problems);
            let fits = |instance: &Instance| instance.roles.metrics_extractor.is_some();
            let Some(index) = lookup(extractor, "extractor", fits, instances, problems) else { continue };
            if resolved.extractor.is_some() {
                let message =
                    format!("\"{}\" is a second extractor of its type; a source has one", extractor.name);
                problems.error(extractor.line, &extractor.path, message);
            }
            resolved.extractor = Some(index);
        }
        if source.extractors.is_empty() && index.is_some() {
            let message = format!("\"{}\" has no extractor: what it fetches is not read", source.plugin.name);
            problems.warning(source.plugin.line, &source.plugin.path, message);
        }
    }
    if resolved.source.is_none() && layer.inject_defaults {
        let reason = "no metrics source is listed";
        resolved.source = instances.ensure(SOURCE, reason, problems).filter(|index| {
            check_default(*index, SOURCE, |it| it.roles.metrics_source.is_some(), instances, problems)
        });
        resolved.extractor = instances.ensure(EXTRACTOR, reason, problems).filter(|index| {
            check_default(*index, EXTRACTOR, |it| it.roles.metrics_extractor.is_some(), instances, problems)
        });
    } else if resolved.source.is_none() && layer.sources.is_empty() {
        let message = "no metrics are read: scorers and filters that look at load see nothing";
        problems.warning(0, "dataLayer", message);
    }
    if let Some(reference) = &layer.discovery {
        let fits = |instance: &Instance| instance.roles.discovery.is_some();
        resolved.discovery = lookup(reference, "endpoint discovery", fits, instances, problems);
    }
    resolved
}

/// The extractors of a source that tells of endpoints: they follow endpoints, which they do here without it.
fn followers(source: &Source, instances: &mut Instances<'_>, problems: &mut Problems) {
    for extractor in &source.extractors {
        let fits = |instance: &Instance| {
            instance.roles.follows_endpoints || instance.inactive == Some(Purpose::InFlightCounter)
        };
        let role = "plugin that follows endpoints";
        lookup(extractor, role, fits, instances, problems);
    }
}

/// A reference to a default plugin by its type name needs no row in `plugins`.
fn ensure_default(reference: &Reference, kind: &str, instances: &mut Instances<'_>, problems: &mut Problems) {
    if reference.name == kind && instances.find(kind).is_none() {
        instances.ensure(kind, "the data layer names it", problems);
    }
}

/// A plugin that carries the name of a default one must be able to take its place.
fn check_default(
    index: usize,
    kind: &str,
    fits: impl Fn(&Instance) -> bool,
    instances: &mut Instances<'_>,
    problems: &mut Problems,
) -> bool {
    instances.mark_used(index);
    let instance = &instances.list()[index];
    if !fits(instance) && !instance.broken {
        let message =
            format!("\"{}\" is named like the default \"{kind}\" and cannot stand in for it", instance.name);
        problems.error(instance.line, &instance.path, message);
    }
    fits(instance)
}

impl ResolvedDataLayer {
    /// What to fetch; nothing if nobody reads it.
    pub(super) fn source_spec(&self, instances: &Instances<'_>) -> Option<SourceSpec> {
        self.extractor?;
        instances.list().get(self.source?)?.roles.metrics_source.clone()
    }

    pub(super) fn engines(&self, instances: &Instances<'_>) -> EngineTable {
        let extractor = self.extractor.and_then(|index| instances.list().get(index));
        extractor
            .and_then(|instance| instance.roles.metrics_extractor.clone())
            .unwrap_or_else(EngineTable::builtin)
    }

    pub(super) fn discovery_spec(&self, instances: &Instances<'_>) -> Option<FileDiscoverySpec> {
        instances.list().get(self.discovery?)?.roles.discovery.clone()
    }

    pub(super) fn names(&self, instances: &Instances<'_>) -> DataLayerNames {
        let name = |index: Option<usize>| Some(Arc::clone(&instances.list().get(index?)?.name));
        DataLayerNames {
            source: name(self.source),
            extractor: name(self.extractor),
            discovery: name(self.discovery),
        }
    }
}
