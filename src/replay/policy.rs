//! The part of a configuration that makes decisions: its profiles and the plugins around them, without ports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use smallvec::SmallVec;

use super::request::{Remade, api};
use super::scene::Scene;
use crate::capture::RunNotes;
use crate::capture::lines::{AnswerLine, DecisionLine, FirstByteLine, MatchLine, OutcomeLine, RunLine};
use crate::clock;
use crate::director::{Hook, tell_end, tell_first_byte, tell_headers};
use crate::pool::{Endpoint, Snapshot};
use crate::prefix::{PrefixMatch, SharedIndex};
use crate::request::{Headers, MediaEstimate, Usage};
use crate::scheduling::{
    Call, Candidates, Column, Columns, DecidedCall, Decision, EndedCall, Entry, HeaderEdits, PluginState,
    Produced, Producer, ProfilePlugin, ProfileResult, RequestView, ResponseCall, Scheduler,
};

/// The plugins that make decisions.
pub struct Policy {
    /// The scheduler, which runs the profiles.
    pub scheduler: Scheduler,
    /// The plugins that a request passes before the scheduler.
    pub entry: Entry,
    /// The data producers, in the order in which they run.
    pub producers: Vec<ProfilePlugin<dyn Producer>>,
    /// The hooks, in the order of the configuration.
    pub hooks: Vec<Hook>,
    /// The estimates for the tokens of images and videos.
    pub media: MediaEstimate,
    /// The column with the part of the prompt that each endpoint has cached.
    pub shown_matches: Option<Column<PrefixMatch>>,
    /// The prefix indexes that follow the list of endpoints.
    pub indexes: Vec<Arc<dyn SharedIndex>>,
    /// True if the producers are those of the capture, so that the cache figures of the capture may be used.
    pub recorded_matches: bool,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}

/// A decision that was made again.
pub(super) struct Made {
    pub(super) runs: Vec<RunLine>,
    /// The decision, or the reason why there is none.
    pub(super) decision: Result<Decision, String>,
    /// The name of the profile that answers.
    pub(super) primary: Option<String>,
    candidates: Candidates,
    columns: Columns,
    matches: Vec<PrefixMatch>,
}

impl Made {
    /// The tokens of the prompt that the endpoint at this place is expected to have cached.
    pub(super) fn cached(&self, place: u32, tokens: u64) -> u64 {
        let slot = (0..self.candidates.len() as u32).find(|slot| self.candidates.place(*slot) == place);
        let found = slot.and_then(|slot| self.matches.get(slot as usize));
        found.map_or(0, |found| u64::from(found.matched) * u64::from(found.block_size)).min(tokens)
    }
}

/// The state that plugins keep of a request until its end.
pub(super) struct Kept {
    decision: Decision,
    states: Vec<PluginState>,
    api: crate::request::Api,
    first_byte: Option<Instant>,
}

/// The running requests, by their numbers.
pub(super) type Running = HashMap<u64, Kept>;

impl Policy {
    /// Tells the indexes of a new list of endpoints.
    pub(super) fn follow_pool(&self, pool: &Snapshot) {
        self.indexes.iter().for_each(|index| index.follow(pool));
    }

    /// Makes the decision of a capture line again.
    pub(super) fn decide(&self, line: &DecisionLine, remade: &Remade, scene: &Scene) -> Made {
        let now = scene.at(line.now_ns);
        let _still = clock::stand_still(now);
        let view = remade.view(&line.id, &line.request, &self.media);
        let mut rng = Rng::with_seed(line.rng.parse().unwrap_or_default());
        let candidates = self.screened(scene.candidates(line.candidates.as_ref()), view, now, &mut rng);
        let everyone = candidates.slots();
        let columns = self.produce(view, now, &candidates, &everyone, line.matches.as_ref());
        let call = Call::new(view, now, &candidates, &everyone, &columns);
        let mut runs = Vec::new();
        let decision = if candidates.is_empty() {
            Err("screeners left no endpoint".to_owned())
        } else if let Err((name, reason)) = self.entry.admit(&call, &mut rng) {
            Err(format!("{name} refuses it: {reason}"))
        } else {
            let mut notes = RunNotes::new(&candidates, self.scheduler.profiles());
            let scheduled = self.scheduler.schedule_recorded(&call, &mut rng, None, Some(&mut notes));
            runs = notes.finish();
            scheduled.map_err(|error| error.to_string())
        };
        let matches =
            self.shown_matches.and_then(|column| columns.slice(column)).unwrap_or_default().to_vec();
        let primary = decision.as_ref().ok().and_then(|decision| {
            self.scheduler.profile_names().get(decision.primary).map(ToString::to_string)
        });
        Made { runs, decision, primary, candidates, columns, matches }
    }

    fn screened(
        &self,
        candidates: Candidates,
        view: RequestView<'_>,
        now: Instant,
        rng: &mut Rng,
    ) -> Candidates {
        if self.entry.screeners.is_empty() {
            return candidates;
        }
        let everyone = candidates.slots();
        let left = self.entry.screen(&Call::new(view, now, &candidates, &everyone, &Columns::new()), rng);
        match left {
            Some(left) => candidates.kept(&left),
            None => candidates,
        }
    }

    fn produce(
        &self,
        view: RequestView<'_>,
        now: Instant,
        candidates: &Candidates,
        everyone: &[u32],
        recorded: Option<&MatchLine>,
    ) -> Columns {
        let mut columns = Columns::new();
        for producer in &self.producers {
            let call = Call::new(view, now, candidates, everyone, &columns);
            if let Ok(produced) = producer.call(|producer| producer.produce(&call)) {
                produced.into_iter().for_each(|column| columns.insert(column));
            }
            // Producers that run later read the cache figures of the capture.
            let recorded = recorded.filter(|_| self.recorded_matches);
            if let Some((column, cells)) =
                self.shown_matches.zip(recorded.and_then(|it| cells(it, candidates.len())))
            {
                columns.insert(Produced::new(column, cells));
            }
        }
        columns
    }

    /// Tells the plugins which endpoint really got the request, as the picker told them at that time.
    pub(super) fn follow(
        &self,
        line: &DecisionLine,
        remade: &Remade,
        made: &Made,
        scene: &Scene,
        running: &mut Running,
    ) {
        if line.refusal.is_some() || line.targets.is_empty() {
            return;
        }
        let now = scene.at(line.now_ns);
        let decision = self.real(line, made, scene);
        let everyone = made.candidates.slots();
        let view = remade.view(&line.id, &line.request, &self.media);
        let call = Call::new(view, now, &made.candidates, &everyone, &made.columns);
        let profiles = self.scheduler.profile_names();
        let decided = DecidedCall { call, decision: &decision, profiles };
        let _still = clock::stand_still(now);
        let before = |hook: &Hook| {
            let before = hook.before.as_ref()?;
            let mut edits = HeaderEdits::default();
            before.call(|plugin| plugin.before_forward(&decided, &mut edits)).unwrap_or_default()
        };
        let states = self.hooks.iter().map(before).collect();
        let api = api(&line.request.api);
        running.insert(line.n, Kept { decision, states, api, first_byte: None });
    }

    /// The decision that was really made, expressed in the profiles of this policy.
    fn real(&self, line: &DecisionLine, made: &Made, scene: &Scene) -> Decision {
        let endpoint = |place: &u32| scene.pool().endpoints().get(*place as usize).cloned();
        let list =
            |places: &[u32]| places.iter().filter_map(endpoint).collect::<SmallVec<[Arc<Endpoint>; 1]>>();
        let names = self.scheduler.profile_names();
        let mut decision = match &made.decision {
            Ok(decision) => decision.clone(),
            Err(_) => Decision {
                profiles: names.iter().map(|_| None).collect(),
                primary: 0,
                stages: crate::scheduling::Stages::default(),
                proxy_port: None,
            },
        };
        let primary = decision.primary;
        for (index, (result, name)) in decision.profiles.iter_mut().zip(names).enumerate() {
            let run = line.runs.iter().rfind(|run| run.profile == **name);
            let targets = match run {
                _ if index == primary => list(&line.targets),
                Some(run) => list(&run.picked),
                None => SmallVec::new(),
            };
            let scored = result.take().map(|result| result.scored).unwrap_or_default();
            *result = (!targets.is_empty()).then_some(ProfileResult { targets, scored });
        }
        decision
    }

    /// Handles the headers of a response.
    pub(super) fn answered(&self, line: &AnswerLine, now: Instant, running: &mut Running) {
        let Some(kept) = running.get_mut(&line.n) else { return };
        let Some(endpoint) = kept.decision.targets().first() else { return };
        let headers = Headers::from([(":status", line.status.to_string().as_str())]);
        let call = ResponseCall {
            headers: &headers,
            served: line.served.as_deref(),
            endpoint,
            decision: &kept.decision,
            profiles: self.scheduler.profile_names(),
        };
        let _still = clock::stand_still(now);
        tell_headers(&self.hooks, &mut kept.states, &call, &mut HeaderEdits::default());
    }

    /// Handles the first bytes of a response.
    pub(super) fn first_byte(&self, line: &FirstByteLine, now: Instant, running: &mut Running) {
        let Some(kept) = running.get_mut(&line.n) else { return };
        kept.first_byte = Some(now);
        let _still = clock::stand_still(now);
        tell_first_byte(&self.hooks, &mut kept.states, now, line.streamed);
    }

    /// Handles the end of a request.
    pub(super) fn ended(&self, line: &OutcomeLine, now: Instant, running: &mut Running) {
        let Some(mut kept) = running.remove(&line.n) else { return };
        let targets = kept.decision.targets();
        let served = targets.iter().find(|target| target.id().to_string() == line.endpoint);
        let Some(endpoint) = served.or_else(|| targets.first()) else { return };
        let usage = line.usage.map(Usage::from);
        let call = EndedCall {
            api: kept.api,
            endpoint,
            decision: &kept.decision,
            usage: usage.as_ref(),
            succeeded: line.succeeded,
            streamed: line.streamed,
            now,
            first_byte: kept.first_byte,
            chunks: line.chunks,
        };
        let _still = clock::stand_still(now);
        tell_end(&self.hooks, &mut kept.states, &call);
    }
}

/// The cells of the column that a capture line has. `None` unless there is one for each candidate.
fn cells(line: &MatchLine, candidates: usize) -> Option<Vec<PrefixMatch>> {
    let cell =
        |matched, cached| PrefixMatch { matched, total: line.total, block_size: line.block_size, cached };
    let matched = if line.matched.is_empty() { vec![0; candidates] } else { line.matched.clone() };
    let cached = if line.cached.is_empty() { matched.clone() } else { line.cached.clone() };
    let fits = matched.len() == candidates && cached.len() == candidates;
    fits.then(|| matched.into_iter().zip(cached).map(|(matched, cached)| cell(matched, cached)).collect())
}
