//! What goes on beside decisions, where somebody asked for it: the capture of what they were made from, and a shadow
//! that makes them too.
//!
//! While it does, requests are decided one after the other, each on figures that stand still, so that what is written
//! down, and what the shadow sees, is what was read. Where nobody asked for it, one look at a switch is all it costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};

use super::Refusal;
use super::session::{Lists, Session};
use super::shadow::{Asked, Made, Shadow};
use super::shadow_compare::Chosen;
use super::shadow_follow::Following;
use crate::capture::{Capture, Note};
use crate::clock;
use crate::decisions::ShadowNote;
use crate::scheduling::{Call, Candidates, Decision};

/// What goes on beside the decisions of one configuration.
#[derive(Clone, Debug)]
pub struct Beside {
    capture: Option<Arc<Capture>>,
    /// Number of the configuration.
    generation: u64,
    stage: Arc<Stage>,
}

/// Where decisions that somebody watches are made one after the other. All configurations of a pool share it.
#[derive(Debug)]
struct Stage {
    /// Times of lines are counted from here, as ages of figures are.
    epoch: Instant,
    lists: Mutex<Lists>,
    /// A second configuration that decides, too.
    shadow: ArcSwapOption<Shadow>,
}

impl Beside {
    /// Beside the decisions of a pool that counts time from `epoch`, under its first configuration.
    pub fn new(capture: Option<Arc<Capture>>, epoch: Instant) -> Self {
        Self {
            capture,
            generation: 1,
            stage: Arc::new(Stage { epoch, lists: Mutex::default(), shadow: ArcSwapOption::empty() }),
        }
    }

    /// The same beside the decisions of the configuration with this number.
    #[must_use]
    pub fn of_generation(&self, generation: u64) -> Self {
        Self { generation, ..self.clone() }
    }

    /// This shadow decides from now on, or none.
    pub fn cast(&self, shadow: Option<Arc<Shadow>>) {
        self.stage.shadow.store(shadow);
    }

    /// The shadow that decides beside this configuration.
    fn shadow(&self) -> Option<Arc<Shadow>> {
        let shadow = self.stage.shadow.load();
        let shadow = shadow.as_ref().filter(|it| !it.is_off() && it.parts.generation == self.generation);
        shadow.map(Arc::clone)
    }

    /// The capture, while it is on.
    fn capturing(&self) -> Option<&Arc<Capture>> {
        self.capture.as_ref().filter(|capture| capture.is_on())
    }

    /// A decision begins.
    pub(super) fn watch(&self) -> Watch<'_> {
        let capture = self.capturing().map(Arc::clone);
        let mut shadow = self.shadow().map(Beheld::new);
        let compares = shadow.as_ref().is_some_and(|beheld| beheld.compares);
        let session = (capture.is_some() || compares).then(|| {
            let lists = self.stage.lists.lock();
            Session::begin(lists, self.stage.epoch, self.generation, capture)
        });
        if let Some(beheld) = &mut shadow {
            // Its turn has come.
            beheld.began = Instant::now();
        }
        Watch { beside: self, shadow, session }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.stage.epoch).as_nanos() as u64
    }
}

/// Calls hooks of a response. Where somebody watches, they run between two decisions, and `note` says what happened at
/// how many nanoseconds.
pub(super) fn between_decisions<R>(
    beside: Option<&Beside>,
    now: Option<Instant>,
    call: impl FnOnce() -> R,
    note: impl FnOnce(u64) -> Note,
) -> R {
    let Some(beside) = beside else { return call() };
    let capture = beside.capturing();
    if capture.is_none() && beside.stage.shadow.load().is_none() {
        return call();
    }
    let _lists = beside.stage.lists.lock();
    let now = now.unwrap_or_else(clock::now);
    let _still = clock::stand_still(now);
    let result = call();
    if let Some(capture) = capture {
        capture.note(note(beside.nanos(now)));
    }
    result
}

/// A shadow beside one decision.
struct Beheld {
    shadow: Arc<Shadow>,
    /// It decides, too; otherwise it only follows.
    compares: bool,
    began: Instant,
    /// Time that the shadow took.
    spent: Duration,
    made: Option<Made>,
}

impl Beheld {
    fn new(shadow: Arc<Shadow>) -> Self {
        let compares = shadow.wants();
        Self { shadow, compares, began: Instant::now(), spent: Duration::ZERO, made: None }
    }

    /// Does something in the shadow, which is not the running configuration's time.
    fn spend<R>(&mut self, work: impl FnOnce(&Arc<Shadow>, &mut Option<Made>) -> R) -> R {
        let began = Instant::now();
        let result = work(&self.shadow, &mut self.made);
        self.spent += began.elapsed();
        result
    }
}

/// What goes on beside one decision.
pub(super) struct Watch<'b> {
    beside: &'b Beside,
    shadow: Option<Beheld>,
    /// While it is made on figures that stand still.
    session: Option<Session<'b>>,
}

impl<'b> Watch<'b> {
    /// The candidates with figures that stand still, if they have to. `rng` is the state of the request's generator.
    pub(super) fn freeze(&mut self, candidates: Candidates, rng: u64) -> Candidates {
        match &mut self.session {
            Some(session) => session.freeze(&candidates, rng),
            None => candidates,
        }
    }

    /// Whoever writes down what this decision is made from.
    pub(super) fn captures(&mut self) -> Option<&mut Session<'b>> {
        self.session.as_mut().filter(|session| session.captures())
    }

    /// The shadow decides this request, too.
    pub(super) fn compares(&self) -> bool {
        self.shadow.as_ref().is_some_and(|beheld| beheld.compares)
    }

    /// The shadow decides.
    pub(super) fn decide(&mut self, asked: &Asked<'_>) {
        if let Some(beheld) = self.shadow.as_mut().filter(|beheld| beheld.compares) {
            beheld.spend(|shadow, made| *made = shadow.decide(asked));
        }
    }

    /// Counts both decisions. The note is for the record of the request. `bound` if its conversation overruled the
    /// picker: then there is nothing to compare.
    pub(super) fn compare(&mut self, running: &Chosen<'_>, bound: bool) -> Option<ShadowNote> {
        let beheld = self.shadow.as_mut()?;
        if beheld.made.is_some() && bound {
            beheld.shadow.count_bound();
            return None;
        }
        beheld.spend(|shadow, made| shadow.compare(made.as_mut()?, running))
    }

    /// The decision with the endpoints as others see them, if its own have figures that stand still.
    pub(super) fn live(
        &mut self,
        candidates: &Candidates,
        decision: &Decision,
        bound: bool,
    ) -> Option<Decision> {
        self.session.as_mut().map(|session| session.live(candidates, decision, bound))
    }

    /// Keeps decisions that somebody watches waiting, while the plugins of another one are told of it.
    pub(super) fn turn(&self) -> Option<MutexGuard<'b, Lists>> {
        let waits = self.shadow.is_some() && self.session.is_none();
        waits.then(|| self.beside.stage.lists.lock())
    }

    /// The shadow's own plugins learn of the decision. `live` has the endpoints as others see them.
    pub(super) fn follow(
        &mut self,
        call: &Call<'_>,
        decision: &Decision,
        live: &Decision,
    ) -> Option<Box<Following>> {
        let beheld = self.shadow.as_mut()?;
        beheld.spend(|shadow, made| Following::begin(shadow, call, decision, live, made.as_ref()))
    }

    /// The decision of the request with this number, which was in queues for so long, is made: `primary` is the profile
    /// that answers, or the request is refused.
    pub(super) fn finish(self, number: u64, queue: Duration, primary: Result<&str, &Refusal>) {
        if let Some(Beheld { shadow, began, spent, .. }) = self.shadow {
            shadow.earn(began.elapsed().saturating_sub(spent));
        }
        if let Some(session) = self.session {
            session.finish(number, queue, primary);
        }
    }
}
