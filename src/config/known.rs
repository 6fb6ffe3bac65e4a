//! Plugin types of the reference that are not in the registry and that no configuration has a use for.

/// Types that the reference registers and makes itself.
const ELSEWHERE: &[&str] = &["priority-then-time-eviction-order-policy", "sheddable-eviction-filter"];

/// True if the reference has the type `name`, and this version has no place for it.
pub(super) fn in_reference(name: &str) -> bool {
    ELSEWHERE.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::REGISTRY;

    #[test]
    fn none_of_these_types_is_built() {
        assert!(ELSEWHERE.is_sorted_by(|a, b| a < b));
        assert!(ELSEWHERE.iter().all(|name| REGISTRY.iter().all(|row| row.name != *name)));
    }
}
