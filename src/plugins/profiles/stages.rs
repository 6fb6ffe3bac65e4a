//! Decode, prefill and encode as profiles that run in rounds: the engine behind the profile handlers of disaggregated
//! serving.
//!
//! Every profile chooses among all candidates; its filters see to the roles. Order `decode-first`: decode runs, and its
//! choice is shown to the deciders of encode and prefill, each of which says whether that profile runs as well. Order
//! `prefill-first`: prefill always runs, encode if its decider says so without knowing a server, decode last. A stage
//! without a decider does not run (prefill in `prefill-first` needs none). Encode and prefill may fail: the request
//! goes on without them. Decode answers, and must not fail.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::metrics::{DecisionMetrics, StagesRun};
use crate::plugins::DeciderSlot;
use crate::pool::Endpoint;
use crate::scheduling::{
    Call, Explained, ProfileFault, ProfileHandler, ProfileRun, Results, ScheduleError, Stages,
};

/// Which stage is chosen first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StageOrder {
    /// Decode, then the others for it.
    #[default]
    DecodeFirst,
    /// Prefill, then the others for it.
    PrefillFirst,
}

impl StageOrder {
    /// The order of this name in any letter case, with or without hyphens; empty is the default.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain: String =
            text.to_lowercase().chars().filter(|letter| !matches!(letter, '-' | '_')).collect();
        match plain.as_str() {
            "" | "decode" | "decodefirst" => Some(Self::DecodeFirst),
            "prefill" | "prefillfirst" => Some(Self::PrefillFirst),
            _ => None,
        }
    }
}

/// A stage beside decode.
#[derive(Debug)]
pub(super) struct SideStage {
    /// Name of its profile.
    pub(super) profile: String,
    /// True if the configuration names that profile; a default name may lead nowhere.
    pub(super) named: bool,
    /// Says whether it runs.
    pub(super) decider: Option<DeciderSlot>,
}

/// The handler.
#[derive(Debug)]
pub(super) struct StageHandler {
    pub(super) order: StageOrder,
    /// Name of the profile that answers.
    pub(super) decode: String,
    pub(super) prefill: SideStage,
    /// `None` where there is no such stage.
    pub(super) encode: Option<SideStage>,
    pub(super) metrics: DecisionMetrics,
    pub(super) proxy_port: Option<u16>,
    /// The name of its decisions in a trace.
    pub(super) step: &'static str,
}

type Next = SmallVec<[usize; 2]>;

/// How a profile has fared. One that there is not counts as empty.
fn run_of(results: &Results, index: usize) -> &ProfileRun {
    results.get(index).unwrap_or(&ProfileRun::Empty)
}

fn position(names: &[Arc<str>], wanted: &str) -> Option<usize> {
    names.iter().position(|name| **name == *wanted)
}

fn target(results: &Results, index: Option<usize>) -> Option<&Arc<Endpoint>> {
    run_of(results, index?).result()?.targets.first()
}

impl StageHandler {
    /// Index of the decode profile. The only profile there is decodes, whatever it is called.
    fn decode_index(&self, names: &[Arc<str>]) -> Option<usize> {
        if names.len() == 1 { Some(0) } else { position(names, &self.decode) }
    }

    /// Index of the prefill profile; none if it is the decode profile.
    fn prefill_index(&self, names: &[Arc<str>]) -> Option<usize> {
        position(names, &self.prefill.profile).filter(|index| self.decode_index(names) != Some(*index))
    }

    /// Index of the encode profile; none if it is another stage's.
    fn encode_index(&self, names: &[Arc<str>]) -> Option<usize> {
        let profile = &self.encode.as_ref()?.profile;
        let own = *profile != self.prefill.profile;
        position(names, profile).filter(|index| own && self.decode_index(names) != Some(*index))
    }

    fn decode_first(&self, call: &Call<'_>, names: &[Arc<str>], results: &mut Results) -> Next {
        let Some(decode) = self.decode_index(names) else { return Next::new() };
        let chosen = match run_of(results, decode) {
            ProfileRun::NotRun => return smallvec![decode],
            ProfileRun::Empty => return Next::new(),
            ProfileRun::Chose(result) => result.targets.first().map(Arc::clone),
        };
        if let Some((encode, index)) = self.encode.as_ref().zip(self.encode_index(names))
            && runs(encode, index, call, chosen.as_ref(), results)
        {
            return smallvec![index];
        }
        if let Some(index) = self.prefill_index(names)
            && runs(&self.prefill, index, call, chosen.as_ref(), results)
        {
            return smallvec![index];
        }
        self.count(call, names, results);
        Next::new()
    }

    fn prefill_first(&self, call: &Call<'_>, names: &[Arc<str>], results: &mut Results) -> Next {
        if let Some(index) = self.prefill_index(names)
            && matches!(run_of(results, index), ProfileRun::NotRun)
        {
            return smallvec![index];
        }
        if let Some((encode, index)) = self.encode.as_ref().zip(self.encode_index(names))
            && runs(encode, index, call, None, results)
        {
            return smallvec![index];
        }
        let Some(decode) = self.decode_index(names) else { return Next::new() };
        match run_of(results, decode) {
            ProfileRun::NotRun => return smallvec![decode],
            ProfileRun::Empty => {}
            ProfileRun::Chose(_) => self.count(call, names, results),
        }
        Next::new()
    }

    fn count(&self, call: &Call<'_>, names: &[Arc<str>], results: &Results) {
        self.metrics.count(call.request.target_model, self.stages_run(names, results));
    }

    fn stages_run(&self, names: &[Arc<str>], results: &Results) -> StagesRun {
        StagesRun {
            prefill: target(results, self.prefill_index(names)).is_some(),
            encode: target(results, self.encode_index(names)).is_some(),
        }
    }
}

/// True if the stage, whose profile has this index, waits and its decider wants it. Otherwise it is marked as done
/// with.
fn runs(
    stage: &SideStage,
    index: usize,
    call: &Call<'_>,
    target: Option<&Arc<Endpoint>>,
    results: &mut Results,
) -> bool {
    if !matches!(run_of(results, index), ProfileRun::NotRun) {
        return false;
    }
    let decider = stage.decider.as_ref().and_then(DeciderSlot::get);
    if decider.is_some_and(|decider| decider.decide(call, target)) {
        return true;
    }
    results[index] = ProfileRun::Empty;
    false
}

impl ProfileHandler for StageHandler {
    fn pick(&self, call: &Call<'_>, names: &[Arc<str>], results: &mut Results) -> Next {
        match self.order {
            StageOrder::DecodeFirst => self.decode_first(call, names, results),
            StageOrder::PrefillFirst => self.prefill_first(call, names, results),
        }
    }

    fn conclude(
        &self,
        names: &[Arc<str>],
        results: &Results,
        errors: &mut SmallVec<[(usize, ScheduleError); 1]>,
    ) -> Result<usize, ScheduleError> {
        let decode = self.decode_index(names);
        if let Some(decode) = decode.filter(|decode| matches!(run_of(results, *decode), ProfileRun::Chose(_)))
        {
            return Ok(decode);
        }
        errors.sort_by(|a, b| names.get(a.0).cmp(&names.get(b.0)));
        let mut message = "failed to find available decode workers".to_owned();
        for (profile, error) in errors.iter() {
            let name = names.get(*profile).map_or("", |name| &**name);
            message = format!("{message}; profile '{name}': {error}");
        }
        // What decode lacks counts: the request goes on without the others.
        let of_decode = errors.iter().any(|(profile, _)| Some(*profile) == decode);
        let causes = errors.iter().filter(|(profile, _)| !of_decode || Some(*profile) == decode);
        Err(ScheduleError::failed(message, causes.map(|(_, error)| error)))
    }

    fn peer(&self, names: &[Arc<str>], results: &Results, next: &[usize]) -> Option<Arc<Endpoint>> {
        let (decode, prefill) = (self.decode_index(names), self.prefill_index(names));
        let (works_with, running) = match self.order {
            StageOrder::DecodeFirst => (decode, prefill),
            StageOrder::PrefillFirst => (prefill, decode),
        };
        if next.first().copied() != running {
            return None;
        }
        target(results, works_with).map(Arc::clone)
    }

    fn stages(&self, names: &[Arc<str>]) -> Stages {
        Stages { prefill: self.prefill_index(names), encode: self.encode_index(names) }
    }

    fn proxy_port(&self) -> Option<u16> {
        self.proxy_port
    }

    fn explain(&self, names: &[Arc<str>], results: &Results, next: &[usize]) -> Option<Explained> {
        let decode = self.decode_index(names);
        let failed = decode.is_some_and(|index| matches!(run_of(results, index), ProfileRun::Empty));
        let decision = match (next.first().copied(), decode) {
            (Some(index), _) if Some(index) == decode => "run_decode".to_owned(),
            (Some(index), _) if Some(index) == self.prefill_index(names) => "run_prefill".to_owned(),
            (Some(_), _) => "run_encode".to_owned(),
            (None, None) => "error_missing_decode_profile".to_owned(),
            (None, Some(_)) if failed => "complete".to_owned(),
            (None, Some(_)) => format!("complete_{}", self.stages_run(names, results).label()),
        };
        Some(Explained { step: self.step, decision, failed })
    }

    fn review(&self, names: &[Arc<str>]) -> Vec<ProfileFault> {
        let mut faults = Vec::new();
        let listed = || names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        if let [only] = names
            && **only != *self.decode
        {
            let text = format!("runs the profile \"{only}\", the only one, as \"{}\"", self.decode);
            let mend = format!("`profiles: {{decode: {only}}}` among its parameters");
            faults.push(ProfileFault::Idle(text, mend));
        } else if self.decode_index(names).is_none() {
            let text = format!(
                "runs the profile \"{}\" for every request, and there is none of that name; there are {}",
                self.decode,
                listed()
            );
            faults.push(ProfileFault::Fatal(text));
        }
        let (prefill, encode) = (self.prefill_index(names), self.encode_index(names));
        if prefill.is_none() || self.order == StageOrder::DecodeFirst {
            faults.extend(review_stage(&self.prefill, prefill, PREFILL, names));
        }
        faults.extend(self.encode.as_ref().and_then(|stage| review_stage(stage, encode, ENCODE, names)));
        let known = [self.decode_index(names), prefill, encode];
        for (index, name) in names.iter().enumerate() {
            if !known.contains(&Some(index)) {
                let text = format!("never runs the profile \"{name}\": it is no stage's");
                faults.push(ProfileFault::Idle(text, format!("no profile \"{name}\"")));
            }
        }
        faults
    }
}

/// Name of a stage for people, and a decider for it.
type StageName = (&'static str, &'static str);
const PREFILL: StageName = ("prefill", "always-disagg-pd-decider");
const ENCODE: StageName = ("encode", "always-disagg-multimodal-decider");

/// Why a stage whose profile has this index will never run.
fn review_stage(
    stage: &SideStage,
    index: Option<usize>,
    (what, decider): StageName,
    names: &[Arc<str>],
) -> Option<ProfileFault> {
    let profile = &stage.profile;
    let (text, mend) = match index {
        Some(_) if stage.decider.is_some() => return None,
        Some(_) => (
            format!(
                "never runs the profile \"{profile}\": {what} has no decider; name one, such as `{decider}`"
            ),
            format!(
                "`- type: {decider}` in `plugins`, and `deciders: {{{what}: {decider}}}` among its parameters, or no \
                 profile \"{profile}\""
            ),
        ),
        None if position(names, profile).is_some() => (
            format!("takes the profile \"{profile}\" for {what} and for another stage; {what} never runs"),
            format!("another profile than \"{profile}\" as `profiles.{what}`"),
        ),
        None if stage.named || stage.decider.is_some() => (
            format!("never disaggregates {what}: there is no profile \"{profile}\""),
            format!(
                "`- name: {profile}` in `schedulingProfiles`, or nothing about {what} among its parameters"
            ),
        ),
        None => return None,
    };
    Some(ProfileFault::Idle(text, mend))
}

#[cfg(test)]
mod tests;
