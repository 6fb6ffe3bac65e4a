//! Plugin types of the reference that this version does not have yet, although configurations that name them can be
//! read and checked.
//!
//! `pointsman check` takes them and says what is not in force. `pointsman serve` refuses them, unless
//! `--allow-missing-plugins` is given: then it starts without them, with a warning, the gauge
//! `pointsman_missing_plugins`, and a line in `/debug/plugins/state` for each.

/// A plugin type that is not built yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MissingType {
    /// Type string.
    pub(super) name: &'static str,
    /// Its role, as error texts name roles.
    pub(super) role: &'static str,
    /// The features that are not in force without it.
    pub(super) without: &'static str,
    /// Names of its parameters at the top level; `None` if they are not looked at.
    parameters: Option<&'static [&'static str]>,
}

impl MissingType {
    /// A type that is missing whatever its parameters are, which are not looked at.
    const fn new(name: &'static str, role: &'static str, without: &'static str) -> Self {
        Self { name, role, without, parameters: None }
    }

    /// The same with these names of its parameters.
    const fn with(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters: Some(parameters), ..self }
    }
}

/// Every missing type, by name. There is none at present; the tests have one, so that the next one is treated well.
const TYPES: &[MissingType] = if cfg!(test) {
    &[MissingType::new("a-missing-producer", "data producer", "nothing is produced").with(&["maxPerReplica"])]
} else {
    &[]
};

/// The missing type of this name.
pub(super) fn find(name: &str) -> Option<&'static MissingType> {
    TYPES.iter().find(|missing| missing.name == name)
}

/// All missing types.
pub(super) fn all() -> impl Iterator<Item = &'static MissingType> {
    TYPES.iter()
}

/// Names of all missing types.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|missing| missing.name)
}

impl MissingType {
    /// Parameters that the type does not have, in any letter case.
    pub(super) fn unknown<'p>(&self, parameters: &'p serde_json::Value) -> Vec<&'p str> {
        let known = |name: &&str| {
            self.parameters.is_none_or(|all| all.iter().any(|known| known.eq_ignore_ascii_case(name)))
        };
        let given = parameters.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str));
        given.filter(|name| !known(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::REGISTRY;

    #[test]
    fn the_missing_types_are_sorted_and_none_of_them_is_built() {
        let all: Vec<&str> = names().collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        let built: Vec<&&str> =
            all.iter().filter(|name| REGISTRY.iter().any(|row| row.name == **name)).collect();
        assert!(built.is_empty(), "{built:?} are in the registry");
    }
}
