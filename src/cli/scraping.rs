//! What runs beside serving and follows the configuration: reading metrics pages, and hearing cache events.

use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::queueing::Queueing;
use super::scrape_series::{Counting, EXTRACTOR, SOURCE};
use super::settings::ScrapeSettings;
use crate::config::Plan;
use crate::datalayer::{
    self, DataLayer, EngineSpecs, EngineTable, MetricSpec, ObjectReading, OnPageFault, PageFault, Pages,
    SourceSpec,
};
use crate::discovery::ObjectWatches;
use crate::kvevents::{EventListener, series_of_life};
use crate::metrics::{DataLayerMetrics, Metrics};
use crate::pool::{AttributeSeries, Pool};
use crate::sidecar::series_of_outcomes;

/// What the running configuration has beside serving.
#[derive(Clone)]
pub(super) struct Beside {
    read_by: Option<(SourceSpec, EngineTable)>,
    /// Reads metrics pages; `None` if none are read.
    pub(super) layer: Option<Arc<DataLayer>>,
    listeners: Vec<Arc<EventListener>>,
    /// Those of the shadow.
    of_shadow: Vec<Arc<EventListener>>,
    /// Objects of the cluster that are watched.
    objects: Vec<ObjectReading>,
    /// Other pages of endpoints that are fetched.
    pages: Vec<Arc<Pages>>,
}

impl Beside {
    /// These listeners of the shadow hear cache events, too.
    pub(super) fn shadow_hears(&mut self, listeners: Vec<Arc<EventListener>>) {
        self.of_shadow = listeners;
    }
}

/// Makes it.
pub(super) struct Scraping {
    settings: ScrapeSettings,
    metrics: Arc<Metrics>,
    pool: Arc<Pool>,
    queueing: Arc<Queueing>,
}

impl Scraping {
    /// For endpoints of `pool`, by these settings.
    pub(super) fn new(
        settings: ScrapeSettings,
        metrics: &Arc<Metrics>,
        pool: &Arc<Pool>,
        queueing: &Arc<Queueing>,
    ) -> Self {
        Self {
            settings,
            metrics: Arc::clone(metrics),
            pool: Arc::clone(pool),
            queueing: Arc::clone(queueing),
        }
    }

    /// What this plan has; what `former` has goes on where it is the same. Fails if the files of a scraping certificate
    /// cannot be used.
    pub(super) fn beside(&self, plan: &Plan, former: Option<&Beside>) -> anyhow::Result<Beside> {
        let (listeners, objects) = (plan.kv_events.clone(), plan.objects.clone());
        let mut engines = plan.engines.clone();
        if !listeners.is_empty() {
            for (name, specs) in &mut engines.engines {
                show(specs, series_of_life(name));
            }
        }
        if plan.pre_request.iter().any(|hook| hook.plugin.names_prefill_servers()) {
            engines.engines.values_mut().for_each(|specs| show(specs, series_of_outcomes()));
        }
        let pages = self.pages(plan, former)?;
        let read_by = plan.metrics_source.clone().map(|source| (source, engines));
        if let Some(former) = former
            && former.read_by == read_by
        {
            return Ok(Beside { listeners, objects, pages, ..former.clone() });
        }
        let layer = read_by.clone().map(|(source, engines)| self.layer(source, engines)).transpose()?;
        Ok(Beside { read_by, layer, listeners, of_shadow: Vec::new(), objects, pages })
    }

    /// The pages that this plan fetches. Those that `former` fetches, too, go on.
    fn pages(&self, plan: &Plan, former: Option<&Beside>) -> anyhow::Result<Vec<Arc<Pages>>> {
        let pages = plan.pages.iter().map(|reading| {
            let goes_on = former.and_then(|former| former.pages.iter().find(|pages| pages.reads(reading)));
            if let Some(pages) = goes_on {
                return Ok(Arc::clone(pages));
            }
            for extractor in &reading.extractors {
                self.metrics.datalayer().polls(reading.source.kind, extractor.kind());
            }
            let kind = reading.source.kind;
            let faults = count_faults(self.metrics.datalayer());
            Pages::new(Arc::clone(&self.pool), reading.clone(), faults).map(Arc::new).context(kind)
        });
        pages.collect()
    }

    fn layer(&self, source: SourceSpec, engines: EngineTable) -> anyhow::Result<Arc<DataLayer>> {
        let scraping = datalayer::Settings {
            source,
            engines,
            interval: self.settings.interval,
            filtered: self.settings.filtered,
            body_limit: self.settings.page_bytes,
            ..datalayer::Settings::default()
        };
        self.metrics.datalayer().polls(SOURCE, EXTRACTOR);
        let queueing = Arc::clone(&self.queueing);
        let observer = Arc::new(Counting { metrics: self.metrics.datalayer(), queueing });
        DataLayer::new(Arc::clone(&self.pool), scraping, observer).context("metrics-data-source")
    }
}

/// Has pages of the engines in `specs` read for `series` as well, where they have them.
fn show(specs: &mut EngineSpecs, series: impl IntoIterator<Item = AttributeSeries>) {
    for AttributeSeries { attribute, metric, label } in series {
        let spec = MetricSpec::named(metric);
        let spec = label.iter().fold(spec, |spec, (name, value)| spec.with_label(name, value));
        specs.optional.push((attribute, spec));
    }
}

/// Reads metrics pages as the running configuration says, until told to stop.
pub(super) async fn scrape(mut beside: watch::Receiver<Beside>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let layer = beside.borrow_and_update().layer.clone();
        let ended = stop.child_token();
        let mut running = pin!(async {
            match layer.clone() {
                Some(layer) => layer.run(ended.clone()).await,
                None => ended.cancelled().await,
            }
        });
        tokio::select! {
            () = &mut running => return,
            () = another(&mut beside, layer.as_ref()) => {}
        }
        ended.cancel();
        running.await;
    }
}

/// Resolves when something else than `layer` is to read pages.
async fn another(beside: &mut watch::Receiver<Beside>, layer: Option<&Arc<DataLayer>>) {
    while beside.changed().await.is_ok() {
        let next = beside.borrow_and_update().layer.clone();
        if next.as_ref().map(Arc::as_ptr) != layer.map(Arc::as_ptr) {
            return;
        }
    }
    // Nobody changes the configuration any more.
    std::future::pending::<()>().await;
}

/// Hears the cache events that the running configuration listens for, until told to stop.
pub(super) async fn listen(mut beside: watch::Receiver<Beside>, pool: Arc<Pool>, stop: CancellationToken) {
    let mut heard: Vec<(Arc<EventListener>, CancellationToken)> = Vec::new();
    loop {
        let wanted = {
            let beside = beside.borrow_and_update();
            [&beside.listeners[..], &beside.of_shadow].concat()
        };
        heard.retain(|(listener, ended)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, listener));
            if !stays {
                ended.cancel();
            }
            stays
        });
        for listener in wanted {
            if !heard.iter().any(|(heard, _)| Arc::ptr_eq(heard, &listener)) {
                let ended = stop.child_token();
                tokio::spawn(Arc::clone(&listener).run(Arc::clone(&pool), ended.clone()));
                heard.push((listener, ended));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = beside.changed() => if changed.is_err() { return stop.cancelled().await },
        }
    }
}

/// Fetches the other pages that the running configuration reads, until told to stop.
pub(super) async fn fetch_pages(mut beside: watch::Receiver<Beside>, stop: CancellationToken) {
    let mut fetched: Vec<(Arc<Pages>, CancellationToken)> = Vec::new();
    loop {
        let wanted = beside.borrow_and_update().pages.clone();
        fetched.retain(|(pages, ended)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, pages));
            if !stays {
                ended.cancel();
            }
            stays
        });
        for pages in wanted {
            if !fetched.iter().any(|(fetched, _)| Arc::ptr_eq(fetched, &pages)) {
                let ended = stop.child_token();
                tokio::spawn(Arc::clone(&pages).run(ended.clone()));
                fetched.push((pages, ended));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = beside.changed() => if changed.is_err() { return stop.cancelled().await },
        }
    }
}

/// Counts pages that could not be fetched or used.
fn count_faults(metrics: DataLayerMetrics) -> OnPageFault {
    Arc::new(move |source, endpoint, fault| match fault {
        PageFault::Fetch(error) => {
            metrics.poll_error(source);
            tracing::debug!(endpoint = %endpoint.id(), source, %error, "page was not fetched");
        }
        PageFault::Extract(extractor, error) => {
            metrics.extract_error(source, extractor);
            tracing::debug!(endpoint = %endpoint.id(), source, extractor, error, "page was not used");
        }
    })
}

/// Watches the objects that the running configuration asks for, until told to stop. Another configuration has plugins of
/// its own, which hear everything anew.
pub(super) async fn watch_objects(
    mut beside: watch::Receiver<Beside>,
    watches: Option<ObjectWatches>,
    stop: CancellationToken,
) {
    let Some(watches) = watches else { return };
    while !stop.is_cancelled() {
        let wanted = beside.borrow_and_update().objects.clone();
        let ended = stop.child_token();
        let running = wanted.into_iter().map(|reading| watches.clone().run(reading, ended.clone()));
        let mut running = pin!(futures_util::future::join_all(running));
        tokio::select! {
            () = stop.cancelled() => {}
            changed = beside.changed() => if changed.is_err() { stop.cancelled().await },
            () = async { running.as_mut().await; std::future::pending::<()>().await } => {}
        }
        ended.cancel();
    }
}
