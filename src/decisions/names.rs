//! The names of what decides: written once, so that a record holds numbers alone.

use std::sync::Arc;

use crate::scheduling::Scheduler;

/// Name and type of a plugin in its slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    /// Factor of its scores; 1 for what gives none.
    pub(super) weight: f64,
}

/// Names of one profile's plugins, in the order they run.
#[derive(Clone, Debug)]
pub(super) struct ProfileNames {
    pub(super) name: Arc<str>,
    pub(super) filters: Vec<Named>,
    pub(super) scorers: Vec<Named>,
    pub(super) picker: Named,
}

/// Names of all profiles and their plugins. A record keeps the names it was made under.
#[derive(Debug)]
pub struct PolicyNames(pub(super) Vec<ProfileNames>);

impl PolicyNames {
    /// The names of what this scheduler runs.
    pub fn of(scheduler: &Scheduler) -> Self {
        let profiles = scheduler.profiles().iter().map(|profile| {
            let named = |name: &Arc<str>, kind, weight| Named { name: Arc::clone(name), kind, weight };
            ProfileNames {
                name: Arc::clone(&profile.name),
                filters: profile.filters.iter().map(|filter| named(&filter.name, filter.kind, 1.0)).collect(),
                scorers: profile
                    .scorers
                    .iter()
                    .map(|scorer| named(&scorer.scorer.name, scorer.scorer.kind, scorer.weight))
                    .collect(),
                picker: named(&profile.picker.name, profile.picker.kind, 1.0),
            }
        });
        Self(profiles.collect())
    }
}
