//! The shadow, wired: its configuration, what it shares with the running one, and how it stands.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::deciding::hooks;
use super::loading::Loading;
use super::shadow_flags::ShadowWish;
use crate::config::{Carried, ConfigSource, Plan};
use crate::director::{Shadow, ShadowParts};
use crate::document::{Level, Problems};
use crate::kvevents::EventListener;
use crate::metrics::{Metrics, ShadowMetrics};
use crate::prefix::PrefixMemory;
use crate::request::MediaEstimate;
use crate::scheduling::{PreRequest, Producer, ProfilePlugin, ResponseEndHook, ResponseHeaderHook};

/// What a shadow may share with the running configuration.
#[derive(Clone)]
pub(super) struct RunningPlugins {
    producers: Vec<ProfilePlugin<dyn Producer>>,
    pre_request: Vec<ProfilePlugin<dyn PreRequest>>,
    response_headers: Vec<ProfilePlugin<dyn ResponseHeaderHook>>,
    response_ends: Vec<ProfilePlugin<dyn ResponseEndHook>>,
    listeners: Vec<Arc<EventListener>>,
    profiles: Vec<Arc<str>>,
    media: MediaEstimate,
}

impl RunningPlugins {
    /// Those of this plan.
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            producers: plan.producers.clone(),
            pre_request: plan.pre_request.clone(),
            response_headers: plan.response_headers.clone(),
            response_ends: plan.response_ends.clone(),
            listeners: plan.kv_events.clone(),
            profiles: plan.scheduler.profile_names().to_vec(),
            media: plan.media,
        }
    }
}

/// Those of `plugins` that are not in `running`.
fn own<T: ?Sized>(plugins: &[ProfilePlugin<T>], running: &[ProfilePlugin<T>]) -> Vec<ProfilePlugin<T>> {
    let is_shared =
        |plugin: &ProfilePlugin<T>| running.iter().any(|other| Arc::ptr_eq(&plugin.plugin, &other.plugin));
    plugins.iter().filter(|plugin| !is_shared(plugin)).cloned().collect()
}

/// A shadow that was made, and what has to go on beside it.
pub(super) struct Cast {
    /// `None` if its configuration has faults.
    pub(super) shadow: Option<Arc<Shadow>>,
    /// What its own plugins hear of the engines' caches.
    pub(super) listeners: Vec<Arc<EventListener>>,
    /// What is wrong with it, one text each.
    pub(super) problems: Vec<String>,
}

/// Makes shadows of what a file says.
pub(super) struct Shadowing {
    wish: ShadowWish,
    /// Series of the process.
    exported: ShadowMetrics,
    /// Series of the shadow's own plugins, which nobody sees: they would look like those of the running ones.
    hidden: Arc<Metrics>,
    memory: Arc<PrefixMemory>,
    shown: Mutex<Shown>,
}

/// What is to be seen of the shadow.
#[derive(Default)]
struct Shown {
    shadow: Option<Arc<Shadow>>,
    /// What the last shadow leaves to the next one.
    carried: Option<Arc<Carried>>,
    effective: String,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Shadowing {
    /// None was made yet.
    pub(super) fn new(wish: &ShadowWish, metrics: &Metrics) -> Self {
        Self {
            wish: wish.clone(),
            exported: metrics.shadow(),
            hidden: Arc::new(Metrics::new()),
            memory: PrefixMemory::new(wish.prefix_memory),
            shown: Mutex::default(),
        }
    }

    /// Digest of its file; `None` if that cannot be read.
    pub(super) fn digest(&self) -> Option<u64> {
        self.wish.source.digest().ok()
    }

    /// The configuration as text, with every default filled in.
    pub(super) fn effective(&self) -> String {
        self.shown.lock().effective.clone()
    }

    /// The shadow beside the running configuration with this number, which left `carried` to the next one. A file with
    /// faults makes none.
    pub(super) fn cast(
        &self,
        loading: &Loading,
        running: &RunningPlugins,
        carried: &Carried,
        generation: u64,
    ) -> Cast {
        let former = self.shown.lock().carried.clone();
        let loaded = self.load(loading, carried, former.as_deref());
        let (plan, shown) = match loaded {
            Ok(mut plan) => {
                let warnings = plan.problems.of(Level::Warning).map(ToString::to_string).collect();
                let shown = Shown {
                    shadow: None,
                    carried: Some(Arc::new(std::mem::take(&mut plan.carried))),
                    effective: plan.effective_yaml(),
                    problems: Vec::new(),
                    warnings,
                };
                (plan, shown)
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::warn!(problem, "the shadow's configuration has faults: there is no shadow");
                }
                self.exported.active(false);
                *self.shown.lock() = Shown { problems: problems.clone(), ..Shown::default() };
                return Cast { shadow: None, listeners: Vec::new(), problems };
            }
        };
        let heard = |listener: &&Arc<EventListener>| {
            !running.listeners.iter().any(|other| Arc::ptr_eq(listener, other))
        };
        let listeners = plan.kv_events.iter().filter(heard).cloned().collect();
        let shadow = Arc::new(Shadow::new(self.parts(plan, running, generation)));
        *self.shown.lock() = Shown { shadow: Some(Arc::clone(&shadow)), ..shown };
        Cast { shadow: Some(shadow), listeners, problems: Vec::new() }
    }

    /// Reads it twice: the first time says which plugins both have.
    fn load(
        &self,
        loading: &Loading,
        carried: &Carried,
        former: Option<&Carried>,
    ) -> Result<Plan, Vec<String>> {
        let told =
            |problems: Problems| problems.of(Level::Error).map(ToString::to_string).collect::<Vec<String>>();
        let source = &self.wish.source;
        let nobody = (Arc::new(Metrics::new()), PrefixMemory::new(self.wish.prefix_memory));
        let first = loading.load_beside(source, nobody, None).map_err(told)?;
        let shared = Arc::new(carried.shared_with(&first.instances, former));
        let own = (Arc::clone(&self.hidden), Arc::clone(&self.memory));
        let mut plan = loading.load_beside(source, own, Some(shared)).map_err(told)?;
        loading.apply_flags(&mut plan).map_err(|error| vec![format!("{error:#}")])?;
        Ok(plan)
    }

    fn parts(&self, plan: Plan, running: &RunningPlugins, generation: u64) -> ShadowParts {
        let own_hooks = hooks(
            own(&plan.pre_request, &running.pre_request),
            own(&plan.response_headers, &running.response_headers),
            own(&plan.response_ends, &running.response_ends),
        );
        ShadowParts {
            own_producers: own(&plan.producers, &running.producers),
            own_hooks,
            scheduler: plan.scheduler,
            entry: plan.entry,
            producers: plan.producers,
            shares_columns: plan.media == running.media,
            media: plan.media,
            shown_matches: plan.shown_matches,
            running_profiles: running.profiles.clone(),
            generation,
            share: self.wish.share,
            metrics: self.exported.clone(),
        }
    }

    /// How it stands, for the page of the running configuration.
    pub(super) fn page(&self) -> Value {
        let shown = self.shown.lock();
        let digest = ConfigSource::Text(shown.effective.clone()).digest().ok();
        let standing = shown.shadow.as_ref().map(|shadow| shadow.standing());
        let profile = |(name, compared, same): &(Arc<str>, u64, u64)| {
            let share = (*compared > 0).then(|| *same as f64 / *compared as f64);
            json!({ "profile": &**name, "compared": compared, "agree": same, "agreement": share })
        };
        let profiles: Vec<Value> =
            standing.iter().flat_map(|standing| &standing.profiles).map(profile).collect();
        json!({
            "source": self.wish.source.name(),
            "active": standing.as_ref().is_some_and(|standing| standing.active),
            "cpu_share": self.wish.share,
            "panics": standing.as_ref().map_or(0, |standing| standing.panics),
            "profiles": profiles,
            "effective": shown.effective,
            "digest": digest.filter(|_| !shown.effective.is_empty()).map(|digest| format!("{digest:016x}")),
            "problems": shown.problems,
            "warnings": shown.warnings,
        })
    }
}
