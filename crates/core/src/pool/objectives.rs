//! InferenceObjectives: named priorities.

use std::collections::HashMap;

/// Priority by objective name. Unknown names have priority 0; below 0 is sheddable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objectives {
    priorities: HashMap<String, i32>,
}

impl Objectives {
    /// Priority of the objective `name`, 0 if it states none; `None` if there is no such objective.
    pub fn find(&self, name: &str) -> Option<i32> {
        self.priorities.get(name).copied()
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
