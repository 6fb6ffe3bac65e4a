//! Takes over a changed configuration while requests are served: it is read, built and checked beside the running one,
//! and put in its place between two requests. A faulty one changes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::autoscaling::Demand;
use super::capturing::Capturing;
use super::deciding::Deciding;
use super::live::Live;
use super::loading::Loading;
use super::scraping::{Beside, Scraping};
use super::shadowing::{Cast, RunningPlugins, Shadowing};
use crate::admin::{Reloaded, Reloading};
use crate::config::{Carried, ConfigSource, Plan, RedisServer, line_changes};
use crate::director::Director;
use crate::document::{Level, Problems};
use crate::prefix::SharedIndex;
use crate::telemetry::rfc3339;

/// Time between two looks at the configuration file. A change counts once two looks have found the same.
const LOOK: Duration = Duration::from_millis(500);
/// Name of the configuration in metrics.
const CONFIGURATION: &str = "configuration";

/// What follows the running configuration beside the director.
pub(super) struct Following {
    pub(super) scraping: Scraping,
    pub(super) beside: watch::Sender<Beside>,
    pub(super) demand: Arc<Demand>,
    pub(super) live: Arc<ArcSwap<Live>>,
    /// Replicas share indexes, which each plugin offers once.
    pub(super) peers: bool,
}

/// The running configuration, and all that has to follow when it changes.
pub(super) struct Reloader {
    loading: Loading,
    deciding: Deciding,
    director: Arc<ArcSwap<Director>>,
    /// The configuration that decides in the shadow, if there is one.
    shadowing: Option<Shadowing>,
    following: Following,
    /// Where what a director starts shall run.
    runtime: Handle,
    /// Held for as long as a reload takes.
    applied: Mutex<Applied>,
    /// What pages and the loop look at; held for no longer than that.
    shown: Mutex<Shown>,
}

impl Reloader {
    /// Begins with this plan. Needs a runtime.
    pub(super) fn start(
        plan: Plan,
        loading: Loading,
        deciding: Deciding,
        following: Following,
        applied: Applied,
        shadowing: Option<Shadowing>,
    ) -> Arc<Self> {
        deciding.announce(&plan, applied.generation);
        if let Some(capturing) = &deciding.capturing {
            capturing.begin();
        }
        let director = Director::new(deciding.parts(plan, applied.generation));
        director.warm_up();
        let director = Arc::new(ArcSwap::from_pointee(director));
        let shown = Mutex::new(applied.shown());
        let reloader = Self {
            loading,
            deciding,
            director,
            shadowing,
            following,
            runtime: Handle::current(),
            applied: Mutex::new(applied),
            shown,
        };
        reloader.recast(&mut reloader.applied.lock());
        Arc::new(reloader)
    }

    /// The capture, if there is a folder for it.
    pub(super) fn capturing(&self) -> Option<&Capturing> {
        self.deciding.capturing.as_ref()
    }

    /// The director that serves, as it is replaced.
    pub(super) fn director(&self) -> Arc<ArcSwap<Director>> {
        Arc::clone(&self.director)
    }
}

/// What is in force.
pub(super) struct Applied {
    /// Digest of the text that was read last.
    digest: Option<u64>,
    /// Digest of the text that is in force.
    running: Option<u64>,
    generation: u64,
    since: SystemTime,
    fixed: Fixed,
    carried: Arc<Carried>,
    /// What a shadow may share with it.
    plugins: RunningPlugins,
    /// Digest of the shadow's text that was read last.
    shadow: Option<u64>,
    /// The last reload.
    last: Value,
}

/// What can be seen of it while a reload is under way.
#[derive(Clone)]
struct Shown {
    digest: Option<u64>,
    shadow: Option<u64>,
    generation: u64,
    since: SystemTime,
    last: Value,
}

/// The parts of a configuration that hold until the next start.
#[derive(Clone, PartialEq)]
struct Fixed {
    discovery: String,
    redis: Option<RedisServer>,
    warm: bool,
    waits: bool,
    /// Names of the indexes that peers share, and where they are: one that was made anew is another one.
    indexes: Vec<(String, usize)>,
}

impl Fixed {
    fn of(plan: &Plan) -> Self {
        let place = |index: &Arc<dyn SharedIndex>| Arc::as_ptr(index).cast::<()>() as usize;
        Self {
            discovery: format!("{:?}", plan.discovery),
            redis: plan.redis.clone(),
            warm: plan.gates.ha_populate_non_leader_datastore,
            waits: plan.flow.is_some(),
            indexes: plan.shared_indexes.iter().map(|it| (it.name().to_owned(), place(it))).collect(),
        }
    }

    /// What would need a restart, in the words of the configuration. Peers know from the start what this replica shares
    /// with them.
    fn needs_restart(&self, next: &Self, has_peers: bool) -> Vec<String> {
        let parts = [
            ("dataLayer.discovery", self.discovery != next.discovery),
            ("dataLayer.crossReplica.redis", self.redis != next.redis),
            ("the feature gate haPopulateNonLeaderDatastore", self.warm != next.warm),
            ("the feature gate flowControl with peers", has_peers && self.waits != next.waits),
            ("a plugin whose index peers share", has_peers && self.indexes != next.indexes),
        ];
        let changed = parts.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(part, _)| format!("{part} cannot change without a restart")).collect()
    }
}

impl Applied {
    /// The configuration of the start.
    pub(super) fn first(plan: &mut Plan, digest: Option<u64>) -> Self {
        Self {
            digest,
            running: digest,
            generation: 1,
            since: SystemTime::now(),
            fixed: Fixed::of(plan),
            carried: Arc::new(std::mem::take(&mut plan.carried)),
            plugins: RunningPlugins::of(plan),
            shadow: None,
            last: Value::Null,
        }
    }
}

impl Applied {
    fn shown(&self) -> Shown {
        Shown {
            digest: self.digest,
            shadow: self.shadow,
            generation: self.generation,
            since: self.since,
            last: self.last.clone(),
        }
    }
}

/// The errors, one text each.
fn told(problems: &Problems) -> Vec<String> {
    problems.of(Level::Error).map(ToString::to_string).collect()
}

/// What came of an attempt.
enum Attempt {
    Unchanged,
    Applied {
        generation: u64,
        changes: Vec<String>,
    },
    /// The shadow's configuration alone is another one.
    Recast {
        changes: Vec<String>,
    },
    Refused(Vec<String>),
}

impl Reloader {
    /// Reads the configuration, and takes it over if it changed and has no fault. Blocks while plugins are built.
    pub(super) fn reload(&self) -> Reloaded {
        let mut applied = self.applied.lock();
        let attempt = self.attempt(&mut applied);
        let discovery = self.deciding.metrics.discovery();
        let now = SystemTime::now();
        let (outcome, changes, problems) = match attempt {
            Attempt::Unchanged => ("unchanged", Vec::new(), Vec::new()),
            Attempt::Applied { generation, changes } => {
                discovery.reloaded(CONFIGURATION, now);
                self.deciding.metrics.config_generation(generation);
                tracing::info!(generation, lines = changes.len(), "configuration reloaded");
                for change in &changes {
                    tracing::info!(change, "configuration changed");
                }
                ("applied", changes, Vec::new())
            }
            Attempt::Recast { changes } => {
                tracing::info!(lines = changes.len(), "the shadow's configuration was taken over");
                ("applied", changes, Vec::new())
            }
            Attempt::Refused(problems) => {
                discovery.reload_failed(CONFIGURATION);
                for problem in &problems {
                    tracing::error!(problem, "configuration refused; the former one stays in force");
                }
                ("refused", Vec::new(), problems)
            }
        };
        let refused = outcome == "refused";
        let page = json!({
            "outcome": outcome,
            "generation": applied.generation,
            "time": rfc3339(now),
            "changes": changes,
            "problems": problems,
        });
        if outcome != "unchanged" {
            applied.last = page.clone();
        }
        *self.shown.lock() = applied.shown();
        Reloaded { refused, page }
    }

    fn attempt(&self, applied: &mut Applied) -> Attempt {
        let digest = match self.loading.config.digest() {
            Ok(digest) => digest,
            Err(error) => {
                return Attempt::Refused(vec![format!("the configuration cannot be read: {error}")]);
            }
        };
        if applied.digest == Some(digest) {
            return self.attempt_shadow(applied);
        }
        // What is wrong with it is told once, not at each look.
        applied.digest = Some(digest);
        if applied.running == Some(digest) {
            return self.attempt_shadow(applied);
        }
        let mut plan = match self.loading.load(Some(Arc::clone(&applied.carried))) {
            Ok(plan) => plan,
            Err(problems) => return Attempt::Refused(told(&problems)),
        };
        if let Err(error) = self.loading.apply_flags(&mut plan) {
            return Attempt::Refused(vec![format!("{error:#}")]);
        }
        let fixed = Fixed::of(&plan);
        let restart = applied.fixed.needs_restart(&fixed, self.following.peers);
        if !restart.is_empty() {
            return Attempt::Refused(restart);
        }
        let beside = match self.following.scraping.beside(&plan, Some(&self.following.beside.borrow())) {
            Ok(beside) => beside,
            Err(error) => return Attempt::Refused(vec![format!("{error:#}")]),
        };
        let carried = std::mem::take(&mut plan.carried);
        let live = Live::of(&plan);
        let changes = line_changes(&self.following.live.load().effective, &live.effective);
        let (detector, flow) = (plan.detector.clone(), plan.flow.clone());
        let _runtime = self.runtime.enter();
        let generation = applied.generation + 1;
        let plugins = RunningPlugins::of(&plan);
        self.deciding.announce(&plan, generation);
        // What waits is judged by the new settings from here on. Nothing can fail any more.
        self.deciding.queueing.follow(flow);
        let next = Director::after(&self.director.load(), self.deciding.parts(plan, generation));
        next.warm_up();
        self.director.store(Arc::new(next));
        self.following.live.store(Arc::new(live));
        self.following.beside.send_replace(beside);
        self.following.demand.judge_by(detector);
        applied.carried = Arc::new(carried);
        applied.running = Some(digest);
        applied.generation = generation;
        applied.plugins = plugins;
        applied.fixed = fixed;
        applied.since = SystemTime::now();
        self.recast(applied);
        Attempt::Applied { generation: applied.generation, changes }
    }

    /// Takes over the shadow's configuration, if that has changed.
    fn attempt_shadow(&self, applied: &mut Applied) -> Attempt {
        let Some(shadowing) = &self.shadowing else { return Attempt::Unchanged };
        if shadowing.digest() == applied.shadow {
            return Attempt::Unchanged;
        }
        let before = shadowing.effective();
        let problems = self.recast(applied);
        if !problems.is_empty() {
            let named = |problem: &String| format!("--shadow-config: {problem}");
            return Attempt::Refused(problems.iter().map(named).collect());
        }
        let changes = line_changes(&before, &shadowing.effective());
        Attempt::Recast { changes: changes.iter().map(|change| format!("shadow: {change}")).collect() }
    }

    /// Makes the shadow anew, beside the configuration that serves now. Says what is wrong with its configuration.
    fn recast(&self, applied: &mut Applied) -> Vec<String> {
        let Some(shadowing) = &self.shadowing else { return Vec::new() };
        applied.shadow = shadowing.digest();
        let _runtime = self.runtime.enter();
        let Cast { shadow, listeners, problems } =
            shadowing.cast(&self.loading, &applied.plugins, &applied.carried, applied.generation);
        self.deciding.cast(shadow);
        self.following.beside.send_modify(|beside| beside.shadow_hears(listeners));
        problems
    }

    /// The page of the running configuration.
    pub(super) fn page(&self) -> Value {
        let shown = self.shown.lock().clone();
        let live = self.following.live.load_full();
        let digest = ConfigSource::Text(live.effective.clone()).digest().ok();
        json!({
            "source": self.loading.config.name(),
            "generation": shown.generation,
            "since": rfc3339(shown.since),
            "effective": live.effective,
            "digest": digest.map(|digest| format!("{digest:016x}")),
            "warnings": {
                "configuration": live.warnings,
                "command_line": self.loading.warnings,
            },
            "last_reload": shown.last,
            "shadow": self.shadowing.as_ref().map(Shadowing::page),
        })
    }

    /// Digests of the configuration and of the shadow's; `None` for what cannot be read.
    fn digests(&self) -> (Option<u64>, Option<u64>) {
        (self.loading.config.digest().ok(), self.shadowing.as_ref().and_then(Shadowing::digest))
    }

    /// Reloads when told to by SIGHUP, and when the file has changed if it is to be watched; until told to stop.
    pub(super) async fn run(self: Arc<Self>, watch: bool, stop: CancellationToken) {
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut tick = tokio::time::interval(LOOK);
        let mut seen = self.digests();
        loop {
            let hung_up = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hung_up => {}
                _ = tick.tick(), if watch => {
                    // A file may hang, and with it whoever reads it.
                    let reloader = Arc::clone(&self);
                    let look = tokio::task::spawn_blocking(move || reloader.digests());
                    let Some(found) = stop.run_until_cancelled(look).await else { return };
                    let found = found.unwrap_or_default();
                    // A file that is being written looks different each time.
                    let rests = std::mem::replace(&mut seen, found) == found;
                    let known = { let shown = self.shown.lock(); (shown.digest, shown.shadow) };
                    if !rests || found.0.is_none() || found == known {
                        continue;
                    }
                }
            }
            let reloader = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || reloader.reload()).await.is_err() {
                self.deciding.metrics.discovery().reload_failed(CONFIGURATION);
                tracing::error!("a bug: reloading the configuration panicked; the former one stays in force");
            }
        }
    }

    /// What the metrics port shows and does.
    pub(super) fn pages(self: &Arc<Self>) -> Reloading {
        let (show, reload) = (Arc::clone(self), Arc::clone(self));
        Reloading::new(move || show.page(), move || reload.reload())
    }
}
