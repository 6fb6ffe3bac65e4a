//! InferenceObjectives: named priorities.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

/// Priorities by the name of the objective. An unknown name has priority 0. A request below 0 is sheddable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objectives {
    priorities: HashMap<String, i32>,
}

impl Objectives {
    /// Priority of the objective `name`, 0 if it states none; `None` if there is no such objective.
    pub fn find(&self, name: &str) -> Option<i32> {
        self.priorities.get(name).copied()
    }

    /// Every objective with its priority, by name.
    pub fn listed(&self) -> Vec<(&str, i32)> {
        let mut listed: Vec<(&str, i32)> =
            self.priorities.iter().map(|(name, priority)| (name.as_str(), *priority)).collect();
        listed.sort_unstable();
        listed
    }

    /// All explicit priorities, sorted, without repeats.
    pub fn levels(&self) -> Vec<i32> {
        let mut levels: Vec<i32> = self.priorities.values().copied().collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    }
}

impl FromIterator<(String, i32)> for Objectives {
    fn from_iter<I: IntoIterator<Item = (String, i32)>>(objectives: I) -> Self {
        Self { priorities: objectives.into_iter().collect() }
    }
}

/// Most names of objectives that do not exist which are remembered.
const REMEMBERED: usize = 32;

/// The last few names that requests gave for objectives that do not exist, each once. They help people who look for a
/// misspelt header.
#[derive(Debug, Default)]
pub struct UnknownObjectives {
    names: Mutex<VecDeque<Box<str>>>,
}

impl UnknownObjectives {
    /// Remembers `name`. The oldest of 32 names makes room. The caller bounds the length of the name. The call never
    /// waits: while another thread remembers a name, this name is left out.
    pub fn note(&self, name: &str) {
        let Some(mut names) = self.names.try_lock() else { return };
        if names.iter().any(|known| &**known == name) {
            return;
        }
        if names.len() >= REMEMBERED {
            names.pop_front();
        }
        names.push_back(name.into());
    }

    /// The names, oldest first.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_listed_by_name() {
        let objectives: Objectives =
            [("b", 1), ("a", -1)].into_iter().map(|(name, priority)| (name.to_owned(), priority)).collect();
        assert_eq!(objectives.listed(), [("a", -1), ("b", 1)]);
    }

    #[test]
    fn the_last_32_unknown_names_are_remembered_once_each() {
        let unknown = UnknownObjectives::default();
        for number in 0..40 {
            unknown.note(&format!("o{number}"));
            unknown.note("o39");
        }
        let names = unknown.names();
        assert_eq!((names.len(), names.iter().filter(|name| *name == "o39").count()), (REMEMBERED, 1));
        assert!(names.contains(&"o38".to_owned()) && !names.contains(&"o0".to_owned()), "{names:?}");
    }
}
