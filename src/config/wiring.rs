//! Parsers and the data layer: references and defaults.

use std::sync::Arc;

use super::data_layer::{DataLayer, Source};
use super::instance::Instance;
use super::instances::{InstanceId, Instances};
use super::names::DataLayerNames;
use super::reference::Reference;
use super::resolver::{Resolver, Role};
use crate::datalayer::{
    EngineTable, ObjectListener, ObjectReading, ObjectSource, PageExtractor, PageReading, PageSource,
    SourceSpec,
};
use crate::plugins::{FileDiscoverySpec, sources};
use crate::request::ParserKind;

const SOURCE: &str = sources::METRICS_DATA_SOURCE.name;
const EXTRACTOR: &str = sources::CORE_METRICS_EXTRACTOR.name;

const PARSER: Role<ParserKind> = Role::new("parser", |instance| instance.roles.parser);
const DATA_SOURCE: Role<()> = Role::new("data source", |instance| {
    let roles = &instance.roles;
    let tells = roles.notifies || roles.object_source.is_some();
    (roles.metrics_source.is_some() || roles.page_source.is_some() || tells).then_some(())
});
const PAGE_READER: Role<Arc<dyn PageExtractor>> =
    Role::new("extractor of such pages", |instance| instance.roles.page_extractor.clone());

/// Types of sources of other pages, and of their extractors: a reference to one needs no row in `plugins`.
const PAGE_TYPES: [&str; 6] = [
    sources::DCGM_DATA_SOURCE.name,
    sources::DCGM_EXTRACTOR.name,
    sources::MODELS_DATA_SOURCE.name,
    sources::MODELS_DATA_EXTRACTOR.name,
    sources::MULTICLUSTER_METRICS_DATA_SOURCE.name,
    sources::MULTICLUSTER_METRICS_EXTRACTOR.name,
];
const READER: Role<()> =
    Role::new("extractor", |instance| instance.roles.metrics_extractor.is_some().then_some(()));
const DISCOVERY: Role<()> =
    Role::new("endpoint discovery", |instance| instance.roles.discovery.is_some().then_some(()));
const LISTENER: Role<Arc<dyn ObjectListener>> =
    Role::new("plugin that listens to objects", |instance| instance.roles.object_listener.clone());
const FOLLOWER: Role<()> =
    Role::new("plugin that follows endpoints", |instance| instance.roles.follows_endpoints.then_some(()));

impl Resolver<'_> {
    /// The parsers in order; the default list if none is given.
    pub(super) fn parsers(&mut self, references: &[Reference]) -> Vec<InstanceId> {
        if references.is_empty() {
            let mut parsers = Vec::new();
            for kind in ParserKind::DEFAULT {
                let Some(index) = self.ensure(kind.type_name(), "no parser is listed") else {
                    continue;
                };
                self.instances.mark_used(index);
                let instance = &self.instances[index];
                if instance.roles.parser.is_some() {
                    parsers.push(index);
                } else if !instance.broken {
                    let message = format!("\"{}\" is named like a default parser and is none", instance.name);
                    self.problems.error(instance.line, &instance.path, message);
                }
            }
            return parsers;
        }
        let mut parsers: Vec<InstanceId> = Vec::new();
        for reference in references {
            // A parser that is nowhere declared is added if its name is a parser type.
            if self.instances.find(&reference.name).is_none()
                && ParserKind::from_type_name(&reference.name).is_some()
            {
                self.ensure(&reference.name, "a list of parsers names it");
            }
            let Some((index, _)) = self.lookup(reference, &PARSER) else { continue };
            let kind = |index: InstanceId| self.instances[index].roles.parser;
            if parsers.iter().any(|earlier| kind(*earlier) == kind(index)) {
                let message =
                    format!("\"{}\" has no effect: a parser of its type is listed already", reference.name);
                self.problems.warning(reference.line, &reference.path, message);
                continue;
            }
            if parsers.iter().any(|earlier| kind(*earlier) == Some(ParserKind::Passthrough)) {
                let message =
                    format!("\"{}\" has no effect: the parser before it takes every path", reference.name);
                self.problems.warning(reference.line, &reference.path, message);
                continue;
            }
            parsers.push(index);
        }
        parsers
    }

    /// Resolves `dataLayer`. A metrics source counts by its type, whatever it is called, so it never gets a second one
    /// beside it.
    pub(super) fn data_layer(&mut self, layer: &DataLayer) -> ResolvedDataLayer {
        let mut resolved = ResolvedDataLayer::default();
        for source in &layer.sources {
            self.ensure_default(&source.plugin, SOURCE);
            for kind in PAGE_TYPES {
                self.ensure_default(&source.plugin, kind);
            }
            let index = self.lookup(&source.plugin, &DATA_SOURCE).map(|(index, ())| index);
            let named = self.instances.find(&source.plugin.name).map(|index| &self.instances[index]);
            if named.is_some_and(|instance| instance.missing.is_some()) {
                // Who reads what is never fetched is of no interest; that it is not fetched was said.
                for extractor in &source.extractors {
                    if let Some(reader) = self.instances.find(&extractor.name) {
                        self.instances.mark_used(reader);
                    }
                }
                continue;
            }
            if named.is_some_and(|instance| instance.roles.notifies) {
                self.followers(source);
                continue;
            }
            if let Some(object) = named.and_then(|instance| instance.roles.object_source.clone()) {
                let listeners = self.object_listeners(&object, source);
                self.check_objects(&object, source, layer, &resolved);
                resolved
                    .objects
                    .extend(index.map(|index| ResolvedPages { source: index, extractors: listeners }));
                continue;
            }
            if let Some(page) = named.and_then(|instance| instance.roles.page_source.clone()) {
                resolved.pages.extend(index.map(|index| self.page_readers(index, &page, source)));
                continue;
            }
            if let (Some(index), Some(first)) = (index, resolved.source) {
                let first = &self.instances[first].name;
                let message = if resolved.source == Some(index) {
                    format!("\"{first}\" is listed twice")
                } else {
                    format!(
                        "\"{}\" is a second metrics source beside \"{first}\"; there is one",
                        source.plugin.name
                    )
                };
                self.problems.error(source.plugin.line, &source.plugin.path, message);
                continue;
            }
            resolved.source = resolved.source.or(index);
            for extractor in &source.extractors {
                self.ensure_default(extractor, EXTRACTOR);
                let Some((index, ())) = self.lookup(extractor, &READER) else { continue };
                if resolved.extractor.is_some() {
                    let message =
                        format!("\"{}\" is a second extractor of its type; a source has one", extractor.name);
                    self.problems.error(extractor.line, &extractor.path, message);
                }
                resolved.extractor = Some(index);
            }
            if source.extractors.is_empty() && index.is_some() {
                let message =
                    format!("\"{}\" has no extractor: what it fetches is not read", source.plugin.name);
                self.problems.warning(source.plugin.line, &source.plugin.path, message);
            }
        }
        if resolved.source.is_none() && layer.inject_defaults {
            let reason = "no metrics source is listed";
            resolved.source = self
                .ensure(SOURCE, reason)
                .filter(|index| self.check_default(*index, SOURCE, |it| it.roles.metrics_source.is_some()));
            resolved.extractor = self.ensure(EXTRACTOR, reason).filter(|index| {
                self.check_default(*index, EXTRACTOR, |it| it.roles.metrics_extractor.is_some())
            });
        } else if resolved.source.is_none() && layer.sources.is_empty() {
            let message = "no metrics are read: scorers and filters that look at load see nothing";
            self.problems.warning(0, "dataLayer", message);
        }
        self.subscriptions(layer);
        if let Some(reference) = &layer.discovery {
            resolved.discovery = self.lookup(reference, &DISCOVERY).map(|(index, ())| index);
        }
        resolved
    }

    /// Plugins that follow the engines' caches, which the reference lets do so only where a source tells them of
    /// endpoints.
    fn subscriptions(&mut self, layer: &DataLayer) {
        let told = |name: &str| {
            let listed = layer.sources.iter().flat_map(|source| &source.extractors);
            listed.into_iter().any(|extractor| extractor.name == name)
        };
        let Self { instances, problems, .. } = self;
        for instance in instances.iter().filter(|it| it.roles.kv_events.is_some() && !told(&it.name)) {
            let (name, source) = (&instance.name, sources::ENDPOINT_NOTIFICATION_SOURCE.name);
            let message = format!(
                "\"{name}\" follows the engines' caches here in any case; the reference does that only where \
                 `{source}` lists it as an extractor"
            );
            problems.note(instance.line, &instance.path, message);
            problems.mend(format!(
                "`- pluginRef: {source}` with `extractors: [{{pluginRef: {name}}}]` in `dataLayer.sources`"
            ));
        }
    }

    /// The extractors of a source that tells of endpoints: they follow endpoints, which they do here without it.
    fn followers(&mut self, source: &Source) {
        if source.extractors.is_empty() {
            let message =
                format!("\"{}\" has no extractor: it tells nobody of endpoints", source.plugin.name);
            self.problems.warning(source.plugin.line, &source.plugin.path, message);
            let listeners = self.instances.which(|instance| instance.roles.kv_events.is_some());
            let names: Vec<&str> = listeners.iter().map(|index| &*self.instances[*index].name).collect();
            let name = names.first().copied().unwrap_or("NAME").to_owned();
            self.problems.mend(format!("`extractors: [{{pluginRef: {name}}}]` beside it, or no such source"));
        }
        for extractor in &source.extractors {
            self.lookup(extractor, &FOLLOWER);
        }
    }

    /// The extractors of a source that watches objects.
    fn object_listeners(&mut self, object: &ObjectSource, source: &Source) -> Vec<InstanceId> {
        let mut listeners = Vec::new();
        for reference in &source.extractors {
            let Some((index, listener)) = self.lookup(reference, &LISTENER) else { continue };
            let kind = listener.listens_to();
            if kind == object.kind {
                listeners.push(index);
            } else {
                let (name, source) = (&reference.name, &source.plugin.name);
                let message =
                    format!("\"{name}\" listens to {kind}, and \"{source}\" watches {}", object.kind);
                self.problems.error(reference.line, &reference.path, message);
            }
        }
        listeners
    }

    /// The faults of watching these objects here.
    fn check_objects(
        &mut self,
        object: &ObjectSource,
        source: &Source,
        layer: &DataLayer,
        resolved: &ResolvedDataLayer,
    ) {
        let Reference { name, line, path, .. } = &source.plugin;
        let earlier = resolved.objects.iter().map(|earlier| &self.instances[earlier.source]);
        let same =
            earlier.filter_map(|it| it.roles.object_source.as_deref()).find(|it| it.kind == object.kind);
        if let Some(same) = same {
            let message = format!(
                "\"{name}\" watches {}, as \"{}\" does; one source does that",
                object.kind, same.name
            );
            self.problems.error(*line, path, message);
        }
        if layer.discovery.is_some() {
            let message =
                format!("\"{name}\" watches nothing: with `dataLayer.discovery` there is no Kubernetes API");
            self.problems.warning(*line, path, message);
        } else if source.extractors.is_empty() {
            let message = format!("\"{name}\" has no extractor: it watches {} for nobody", object.kind);
            self.problems.warning(*line, path, message);
        }
    }

    /// The extractors that read the pages of the source `index`.
    fn page_readers(&mut self, index: InstanceId, page: &PageSource, source: &Source) -> ResolvedPages {
        let mut extractors = Vec::new();
        for reference in &source.extractors {
            for kind in PAGE_TYPES {
                self.ensure_default(reference, kind);
            }
            let Some((reader, extractor)) = self.lookup(reference, &PAGE_READER) else { continue };
            if extractor.reads() == page.kind {
                extractors.push(reader);
            } else {
                let message = format!(
                    "\"{}\" reads the pages of a `{}`, and \"{}\" is a `{}`",
                    reference.name,
                    extractor.reads(),
                    source.plugin.name,
                    page.kind
                );
                self.problems.error(reference.line, &reference.path, message);
            }
        }
        if source.extractors.is_empty() {
            let message = format!("\"{}\" has no extractor: it is not asked", source.plugin.name);
            self.problems.warning(source.plugin.line, &source.plugin.path, message);
        }
        ResolvedPages { source: index, extractors }
    }

    /// A reference to a default plugin by its type name needs no row in `plugins`.
    fn ensure_default(&mut self, reference: &Reference, kind: &str) {
        if reference.name == kind && self.instances.find(kind).is_none() {
            self.ensure(kind, "the data layer names it");
        }
    }

    /// A plugin that carries the name of a default one must be able to take its place.
    fn check_default(&mut self, index: InstanceId, kind: &str, fits: impl Fn(&Instance) -> bool) -> bool {
        self.instances.mark_used(index);
        let instance = &self.instances[index];
        if !fits(instance) && !instance.broken {
            let message = format!(
                "\"{}\" is named like the default \"{kind}\" and cannot stand in for it",
                instance.name
            );
            self.problems.error(instance.line, &instance.path, message);
        }
        fits(instance)
    }
}

/// The data layer with everything resolved to instances.
#[derive(Debug, Default)]
pub(super) struct ResolvedDataLayer {
    source: Option<InstanceId>,
    extractor: Option<InstanceId>,
    discovery: Option<InstanceId>,
    pages: Vec<ResolvedPages>,
    /// Sources that watch objects.
    objects: Vec<ResolvedPages>,
}

/// A source of other pages, and its extractors.
#[derive(Debug)]
struct ResolvedPages {
    source: InstanceId,
    extractors: Vec<InstanceId>,
}

impl ResolvedDataLayer {
    /// The pages to fetch; `None` if nobody reads them.
    pub(super) fn source_spec(&self, instances: &Instances) -> Option<SourceSpec> {
        self.extractor?;
        instances[self.source?].roles.metrics_source.clone()
    }

    pub(super) fn engines(&self, instances: &Instances) -> EngineTable {
        let extractor = self.extractor.map(|index| &instances[index]);
        extractor
            .and_then(|instance| instance.roles.metrics_extractor.clone())
            .unwrap_or_else(EngineTable::builtin)
    }

    pub(super) fn discovery_spec(&self, instances: &Instances) -> Option<FileDiscoverySpec> {
        instances[self.discovery?].roles.discovery.clone()
    }

    /// The other pages that are fetched: those that somebody reads.
    pub(super) fn pages(&self, instances: &Instances) -> Vec<PageReading> {
        let reading = |pages: &ResolvedPages| {
            let readers = pages.extractors.iter();
            let extractors: Vec<_> =
                readers.filter_map(|index| instances[*index].roles.page_extractor.clone()).collect();
            let source = instances[pages.source].roles.page_source.clone()?;
            (!extractors.is_empty()).then_some(PageReading { source, extractors })
        };
        self.pages.iter().filter_map(reading).collect()
    }

    /// The objects that are watched.
    pub(super) fn objects(&self, instances: &Instances) -> Vec<ObjectReading> {
        let reading = |objects: &ResolvedPages| {
            let listeners = objects.extractors.iter();
            let listeners = listeners.filter_map(|index| instances[*index].roles.object_listener.clone());
            let source = instances[objects.source].roles.object_source.clone()?;
            Some(ObjectReading { source, listeners: listeners.collect() })
        };
        self.objects.iter().filter_map(reading).collect()
    }

    pub(super) fn names(&self, instances: &Instances) -> DataLayerNames {
        let name = |index: Option<InstanceId>| Some(Arc::clone(&instances[index?].name));
        DataLayerNames {
            source: name(self.source),
            extractor: name(self.extractor),
            discovery: name(self.discovery),
            pages: self
                .pages
                .iter()
                .chain(&self.objects)
                .map(|pages| {
                    let readers = pages.extractors.iter();
                    let readers = readers.map(|index| Arc::clone(&instances[*index].name)).collect();
                    (Arc::clone(&instances[pages.source].name), readers)
                })
                .collect(),
        }
    }
}
