//! A second configuration that decides beside the running one, without effect.
//!
//! Its profiles see the same request, the same endpoints with the same figures, and the same random numbers. A plugin
//! that both configurations have, with one type, name and parameters, knows the same in both, because both follow the
//! real assignments: it exists once, and the shadow only reads it. Every other plugin of the shadow has a state of its
//! own. A panic ends here, and after some of them the shadow is off.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Hook;
use super::credit::Credit;
use crate::decisions::{PolicyNames, Runs};
use crate::metrics::{ShadowMetrics, ShadowProfileMetrics};
use crate::prefix::PrefixMatch;
use crate::request::MediaEstimate;
use crate::scheduling::{
    Call, Candidates, Column, Columns, CycleRecorder, Decision, Entry, Producer, ProfilePlugin, RequestView,
    Scheduler,
};

/// Panics after which the shadow is off.
const MOST_PANICS: u32 = 3;

/// What a shadow is made of.
pub struct ShadowParts {
    /// Its profiles.
    pub scheduler: Scheduler,
    /// Plugins on the way to them.
    pub entry: Entry,
    /// Its data producers in the order they run.
    pub producers: Vec<ProfilePlugin<dyn Producer>>,
    /// Those that the running configuration does not have.
    pub own_producers: Vec<ProfilePlugin<dyn Producer>>,
    /// Hooks of plugins that the running configuration does not have.
    pub own_hooks: Vec<Hook>,
    /// How many tokens images and videos are taken to be.
    pub media: MediaEstimate,
    /// The column of what each endpoint holds of a prompt.
    pub shown_matches: Option<Column<PrefixMatch>>,
    /// What producers of the running configuration found out counts here, too.
    pub shares_columns: bool,
    /// Names of the running configuration's profiles.
    pub running_profiles: Vec<Arc<str>>,
    /// Number of the running configuration.
    pub generation: u64,
    /// CPU time that it may take, as a share of what the running configuration takes.
    pub share: f64,
    /// Exported series.
    pub metrics: ShadowMetrics,
}

/// Choices of one profile, since the shadow was loaded.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) series: ShadowProfileMetrics,
    pub(super) same: AtomicU64,
    pub(super) all: AtomicU64,
}

/// A second configuration that decides beside the running one.
pub struct Shadow {
    pub(super) parts: ShadowParts,
    pub(super) names: Arc<PolicyNames>,
    /// For each of its profiles the index of the running configuration's profile of that name.
    pub(super) pairs: Vec<Option<usize>>,
    pub(super) tallies: Vec<Tally>,
    credit: Credit,
    panics: AtomicU32,
    off: AtomicBool,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow").field("scheduler", &self.parts.scheduler).finish_non_exhaustive()
    }
}

/// How a shadow stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowStanding {
    /// It decides.
    pub active: bool,
    /// Panics so far.
    pub panics: u32,
    /// By profile: its name, choices that were compared, and those that are the same.
    pub profiles: Vec<(Arc<str>, u64, u64)>,
}

/// What a shadow is asked.
pub(super) struct Asked<'a> {
    pub(super) view: RequestView<'a>,
    pub(super) now: Instant,
    /// The candidates before any screener.
    pub(super) unscreened: &'a Candidates,
    /// Those that the running configuration's screeners left, and what its producers found out about them.
    pub(super) screened: &'a Candidates,
    pub(super) columns: &'a Columns,
    /// State of the request's generator before the screeners.
    pub(super) rng: u64,
    /// Whether its numbers are wanted.
    pub(super) noted: bool,
}

/// A decision of the shadow.
pub(super) struct Made {
    pub(super) candidates: Candidates,
    pub(super) columns: Columns,
    pub(super) runs: Runs,
    pub(super) decision: Result<Decision, String>,
    /// Its numbers are wanted.
    pub(super) noted: bool,
}

impl Shadow {
    /// A shadow over these parts.
    pub fn new(parts: ShadowParts) -> Self {
        let names = Arc::new(PolicyNames::of(&parts.scheduler));
        let profiles = parts.scheduler.profile_names();
        let pair = |name| parts.running_profiles.iter().position(|running| running == name);
        let tally = |name: &Arc<str>| Tally {
            series: parts.metrics.profile(name),
            same: AtomicU64::new(0),
            all: AtomicU64::new(0),
        };
        parts.metrics.active(true);
        Self {
            names,
            pairs: profiles.iter().map(pair).collect(),
            tallies: profiles.iter().map(tally).collect(),
            credit: Credit::new(parts.share),
            panics: AtomicU32::new(0),
            off: AtomicBool::new(false),
            parts,
        }
    }

    /// How it stands.
    pub fn standing(&self) -> ShadowStanding {
        let names = self.parts.scheduler.profile_names().iter();
        let profile = |(name, tally): (&Arc<str>, &Tally)| {
            (Arc::clone(name), tally.all.load(Relaxed), tally.same.load(Relaxed))
        };
        ShadowStanding {
            active: !self.is_off(),
            panics: self.panics.load(Relaxed),
            profiles: names.zip(&self.tallies).map(profile).collect(),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.off.load(Relaxed)
    }

    /// It may decide the next request. False once it has used up its share of CPU.
    pub(super) fn wants(&self) -> bool {
        let wants = self.credit.is_open();
        if !wants {
            self.parts.metrics.skipped();
        }
        wants
    }

    /// A request goes where its conversation is, whoever decides.
    pub(super) fn count_bound(&self) {
        self.parts.metrics.bound();
    }

    /// Scheduling took this long: with the running configuration, which earns the shadow its share.
    pub(super) fn earn(&self, time: Duration) {
        self.credit.earn(time);
        self.parts.metrics.spent(time.as_secs_f64(), 0.0);
    }

    /// Does something in the shadow, on its account. `None` if that panics, or the shadow is off.
    pub(super) fn guarded<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        if self.is_off() {
            return None;
        }
        let began = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(work));
        let took = began.elapsed();
        self.credit.spend(took);
        self.parts.metrics.spent(0.0, took.as_secs_f64());
        if done.is_err() {
            self.panicked();
        }
        done.ok()
    }

    #[cold]
    fn panicked(&self) {
        self.parts.metrics.panicked();
        let panics = self.panics.fetch_add(1, Relaxed) + 1;
        if panics >= MOST_PANICS && !self.off.swap(true, Relaxed) {
            self.parts.metrics.active(false);
            tracing::warn!(panics, "the shadow panicked too often and is off until the next reload");
        }
    }

    /// Decides. No request notices what comes of it.
    pub(super) fn decide(&self, asked: &Asked<'_>) -> Option<Made> {
        self.guarded(|| self.made(asked))
    }

    fn made(&self, asked: &Asked<'_>) -> Made {
        let view = RequestView { media: &self.parts.media, ..asked.view };
        let mut rng = Rng::with_seed(asked.rng);
        let candidates = self.screened(asked, view, &mut rng);
        let everyone = candidates.slots();
        let columns = self.columns(asked.columns, asked.screened, view, asked.now, &candidates);
        let call = Call::new(view, asked.now, &candidates, &everyone, &columns);
        let mut runs = Runs::new(candidates.len());
        let decision = if candidates.is_empty() {
            Err("its screeners leave no endpoint".to_owned())
        } else if let Err((name, reason)) = self.parts.entry.admit(&call, &mut rng) {
            Err(format!("{name} refuses it: {reason}"))
        } else {
            let recorder: Option<&mut dyn CycleRecorder> = if asked.noted { Some(&mut runs) } else { None };
            let scheduled = self.parts.scheduler.schedule_recorded(&call, &mut rng, None, recorder);
            scheduled.map_err(|error| error.to_string())
        };
        Made { candidates, columns, runs, decision, noted: asked.noted }
    }

    fn screened(&self, asked: &Asked<'_>, view: RequestView<'_>, rng: &mut Rng) -> Candidates {
        let candidates = asked.unscreened.clone();
        if self.parts.entry.screeners.is_empty() {
            return candidates;
        }
        let everyone = candidates.slots();
        let nothing = Columns::new();
        let call = Call::new(view, asked.now, &candidates, &everyone, &nothing);
        match self.parts.entry.screen(&call, rng) {
            Some(left) => candidates.kept(&left),
            None => candidates,
        }
    }

    /// What its producers find out about `candidates`. `known` is what those of the running configuration found out
    /// about `screened`.
    pub(super) fn columns(
        &self,
        known: &Columns,
        screened: &Candidates,
        view: RequestView<'_>,
        now: Instant,
        candidates: &Candidates,
    ) -> Columns {
        let shares = self.parts.shares_columns && screened.places() == candidates.places();
        let (mut columns, producers) = if shares {
            (known.clone(), &self.parts.own_producers)
        } else {
            (Columns::new(), &self.parts.producers)
        };
        let everyone = candidates.slots();
        for producer in producers {
            let call = Call::new(view, now, candidates, &everyone, &columns);
            if let Ok(produced) = producer.call(|producer| producer.produce(&call)) {
                produced.into_iter().for_each(|column| columns.insert(column));
            }
        }
        columns
    }
}
