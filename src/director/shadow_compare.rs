//! The choice of the shadow beside that of the running configuration.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::shadow::{Made, Shadow};
use crate::decisions::{ShadowNote, regret};
use crate::pool::Endpoint;
use crate::prefix::PrefixMatch;
use crate::scheduling::{Candidates, Decision, ProfileResult};

/// What the running configuration chose, and from what.
pub(super) struct Chosen<'a> {
    pub(super) candidates: &'a Candidates,
    /// What each candidate is believed to hold of the prompt.
    pub(super) matches: Option<&'a [PrefixMatch]>,
    /// `None` if it found no endpoint.
    pub(super) decision: Option<&'a Decision>,
    /// Tokens of the prompt.
    pub(super) tokens: u64,
}

/// The choice of one profile, in places of the pool.
struct Choice<'a> {
    place: u32,
    result: &'a ProfileResult,
    candidates: &'a Candidates,
    matches: Option<&'a [PrefixMatch]>,
}

impl<'a> Choice<'a> {
    fn of(
        decision: Option<&'a Decision>,
        profile: usize,
        candidates: &'a Candidates,
        matches: Option<&'a [PrefixMatch]>,
    ) -> Option<Self> {
        let result = decision?.profiles.get(profile)?.as_ref()?;
        let place = place(candidates, result.targets.first()?)?;
        Some(Self { place, result, candidates, matches })
    }

    fn total(&self, place: u32) -> Option<f64> {
        let scored = self.result.scored.iter().find(|(slot, _)| self.candidates.place(*slot) == place);
        scored.map(|(_, total)| *total)
    }

    /// Tokens of the prompt that the chosen endpoint is believed to hold.
    fn cached(&self, tokens: u64) -> Option<u64> {
        let mut slots = 0..self.candidates.len() as u32;
        let slot = slots.find(|slot| self.candidates.place(*slot) == self.place)?;
        let found = self.matches?.get(slot as usize)?;
        Some((u64::from(found.matched) * u64::from(found.block_size)).min(tokens))
    }
}

/// Place of an endpoint in the snapshot of these candidates.
fn place(candidates: &Candidates, endpoint: &Arc<Endpoint>) -> Option<u32> {
    let slot = candidates.iter().position(|candidate| Arc::ptr_eq(candidate, endpoint))?;
    Some(candidates.place(slot as u32))
}

impl Shadow {
    /// Counts a decision of both. The note is for the record of the request, if it has one.
    pub(super) fn compare(&self, made: &mut Made, running: &Chosen<'_>) -> Option<ShadowNote> {
        self.parts.metrics.compared();
        let matches = self.parts.shown_matches.and_then(|column| made.columns.slice(column));
        let shadow = made.decision.as_ref().ok();
        let answers = |index: usize| shadow.is_some_and(|shadow| shadow.primary == index);
        let primary = running.decision.map(|decision| decision.primary);
        let mut found = Found::default();
        for (index, tally) in self.tallies.iter().enumerate() {
            // The profiles that answer are compared even if they have other names.
            let other = self.pairs.get(index).copied().flatten();
            let Some(other) = other.or(primary.filter(|_| answers(index))) else { continue };
            let here = Choice::of(running.decision, other, running.candidates, running.matches);
            let there = Choice::of(shadow, index, &made.candidates, matches);
            let (same, regrets) = match (&here, &there) {
                (None, None) => continue,
                (Some(here), Some(there)) => {
                    let cached = [here, there].map(|choice| choice.cached(running.tokens));
                    tally.series.cached(cached[0].unwrap_or(0), cached[1].unwrap_or(0));
                    compared(here, there)
                }
                (here, _) => {
                    tally.series.alone(here.is_none());
                    (false, None)
                }
            };
            match regrets {
                Some([of_shadow, of_running]) => tally.series.differs(of_shadow, of_running),
                None if same => tally.series.agrees(),
                None => {}
            }
            let all = tally.all.fetch_add(1, Relaxed) + 1;
            let same_so_far = tally.same.fetch_add(u64::from(same), Relaxed) + u64::from(same);
            tally.series.agreement(same_so_far as f64 / all as f64);
            if answers(index) {
                found = Found { same, regrets, cached: there.and_then(|there| there.cached(running.tokens)) };
            }
        }
        let choice = match &made.decision {
            Ok(decision) => {
                let first = decision.targets().first().and_then(|first| place(&made.candidates, first));
                first.map(|place| (decision.primary, place)).ok_or_else(String::new)
            }
            Err(reason) => Err(reason.clone()),
        };
        let [regret_of_shadow, regret_of_running] = found.regrets.unwrap_or_default();
        let noted = std::mem::take(&mut made.noted);
        noted.then(|| ShadowNote {
            names: Arc::clone(&self.names),
            places: made.candidates.places().map(Into::into),
            runs: std::mem::take(&mut made.runs),
            choice,
            agrees: found.same,
            regret_of_shadow,
            regret_of_running,
            cached_tokens: found.cached,
        })
    }
}

/// What came of the profiles that answer.
#[derive(Default)]
struct Found {
    same: bool,
    regrets: Option<[Option<f64>; 2]>,
    cached: Option<u64>,
}

/// Whether both chose the same, and if not, by how much each choice scores worse under the other one: first that of the
/// shadow.
fn compared(here: &Choice<'_>, there: &Choice<'_>) -> (bool, Option<[Option<f64>; 2]>) {
    if here.place == there.place {
        return (true, None);
    }
    let of_shadow = regret(|place| here.total(place), here.place, there.place);
    let of_running = regret(|place| there.total(place), there.place, here.place);
    (false, Some([of_shadow, of_running]))
}
