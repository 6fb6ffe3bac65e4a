//! Plugin types of the reference that are not in the registry: some are accepted without effect, the others refused by
//! name.

/// The purpose of a type that is accepted without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Counts requests in flight, which is done here in any case.
    InFlightCounter,
}

impl Purpose {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InFlightCounter => "data producer",
        }
    }

    /// Why a plugin of this kind has no effect.
    pub(super) fn idle_because(self) -> &'static str {
        match self {
            Self::InFlightCounter => "requests in flight are always counted; listing it shows their series",
        }
    }
}

/// Types for what is done here without a plugin. Configurations that name them load.
const INACTIVE: &[(&str, Purpose)] = &[("inflight-load-producer", Purpose::InFlightCounter)];

/// Types that the reference registers and that no configuration has a use for: it makes them itself.
const ELSEWHERE: &[&str] = &["priority-then-time-eviction-order-policy", "sheddable-eviction-filter"];

/// The types that are accepted without effect: name, role, and why they have none.
pub(super) fn idle() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    INACTIVE.iter().map(|(name, purpose)| (*name, purpose.name(), purpose.idle_because()))
}

/// The purpose of the type `name`, if the type is accepted without effect, and the name as a constant.
pub(super) fn inactive(name: &str) -> Option<(&'static str, Purpose)> {
    INACTIVE.iter().find(|(known, _)| *known == name).copied()
}

/// True if the reference has the type `name`, and this version has no place for it.
pub(super) fn in_reference(name: &str) -> bool {
    ELSEWHERE.contains(&name)
}

/// Names of the types that are accepted without effect.
pub(super) fn inactive_names() -> impl Iterator<Item = &'static str> {
    INACTIVE.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_share_no_name() {
        assert!(INACTIVE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ELSEWHERE.is_sorted_by(|a, b| a < b));
        assert_eq!(inactive_names().count(), INACTIVE.len());
        assert!(inactive_names().all(|name| !in_reference(name)));
    }
}
