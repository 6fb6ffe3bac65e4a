//! What a shadow would have chosen, as a record keeps it.

use std::sync::Arc;

use super::cast::Cast;
use super::names::PolicyNames;
use super::runs::Runs;
use super::view::ShadowView;
use crate::pool::Snapshot;

/// What a shadow would have chosen. Endpoints are places in the snapshot of the record.
#[derive(Debug)]
pub struct ShadowNote {
    /// Names of its profiles and plugins.
    pub names: Arc<PolicyNames>,
    /// Places of its candidates; `None` for all.
    pub places: Option<Box<[u32]>>,
    /// The runs of its profiles.
    pub runs: Runs,
    /// The profile that answers and the place of its pick, or why it has none.
    pub choice: Result<(usize, u32), String>,
    /// It is the one of the running configuration.
    pub agrees: bool,
    /// By how much its choice scores worse under the running configuration; `None` if that rules it out.
    pub regret_of_shadow: Option<f64>,
    /// By how much the choice of the running configuration scores worse under it; `None` if it rules that out.
    pub regret_of_running: Option<f64>,
    /// Tokens of the prompt that its choice is believed to hold; `None` where nobody counts them.
    pub cached_tokens: Option<u64>,
}

impl ShadowNote {
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.places.as_ref().map_or(0, |places| places.len() * 4)
            + Runs::bytes(&self.runs.list)
            + self.choice.as_ref().err().map_or(0, String::capacity)
    }

    pub(super) fn view(&self, snapshot: Option<&Arc<Snapshot>>) -> ShadowView {
        let cast = Cast { names: &self.names, snapshot, places: self.places.as_deref() };
        let winner = |place: u32| snapshot?.endpoints().get(place as usize);
        let (endpoint, scored, refusal) = match &self.choice {
            Ok((primary, place)) => {
                let winner = winner(*place);
                let scored =
                    winner.and_then(|winner| cast.score_and_margin(&self.runs.list, *primary, winner));
                (winner.map(|winner| winner.id().to_string()), scored, None)
            }
            Err(reason) => (None, None, Some(reason.clone())),
        };
        let (score, margin) = scored.unzip();
        ShadowView {
            endpoint,
            score,
            margin: margin.flatten(),
            agrees: self.agrees,
            regret_of_shadow: self.regret_of_shadow,
            regret_of_running: self.regret_of_running,
            cached_tokens: self.cached_tokens,
            refusal,
            profiles: self.runs.list.iter().map(|run| cast.profile(run)).collect(),
        }
    }
}
