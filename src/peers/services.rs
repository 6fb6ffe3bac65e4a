//! The service of programs at this replica, as totals that only grow. The code is pure.
//!
//! A follower gets the totals that changed. The difference of two totals is the service between two messages, however
//! many messages were lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::wire::ServiceRow;

/// The most programs whose totals are kept.
const PROGRAMS: usize = 16_384;
/// The most programs in one message.
const ROWS: usize = 2048;

/// The total of each program.
#[derive(Debug, Default)]
pub(super) struct Services {
    totals: HashMap<Arc<str>, (u64, u64)>,
    /// The programs, by the version of their changes, the oldest first. Of several entries of a program, the last one
    /// counts.
    changes: VecDeque<(u64, Arc<str>)>,
}

impl Services {
    /// Adds tokens to the totals of these programs, as the change `version`.
    pub(super) fn add(&mut self, served: Vec<(Arc<str>, u64)>, version: u64) {
        for (id, tokens) in served {
            let total = self.totals.entry(Arc::clone(&id)).or_default();
            *total = (total.0.saturating_add(tokens), version);
            self.changes.push_back((version, id));
        }
        while self.totals.len() > PROGRAMS || self.changes.len() > 2 * PROGRAMS {
            let Some((version, id)) = self.changes.pop_front() else { return };
            // If the program was served again later, it has a later entry.
            if self.totals.get(&id).is_some_and(|(_, changed)| *changed == version) {
                self.totals.remove(&id);
            }
        }
    }

    /// Returns the totals that changed after `from`, the version up to which they are complete, and whether there are
    /// more.
    pub(super) fn since(&self, from: u64, now: u64) -> (Vec<ServiceRow>, u64, bool) {
        let start = self.changes.partition_point(|(version, _)| *version <= from);
        let mut rows = Vec::new();
        let mut reached = from;
        for (version, id) in self.changes.iter().skip(start) {
            // All changes of one version are sent together, so that a version says what a follower knows.
            if rows.len() >= ROWS && *version != reached {
                return (rows, reached, true);
            }
            reached = *version;
            if let Some((total, changed)) = self.totals.get(id)
                && changed == version
            {
                rows.push(ServiceRow { fairness_id: id.to_string(), tokens: *total });
            }
        }
        (rows, now, false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::{Effects, Fleet};
    use super::super::wire::Update;
    use super::*;

    fn told(services: &Services, from: u64, now: u64) -> Vec<(String, u64)> {
        let (rows, _, more) = services.since(from, now);
        assert!(!more);
        let mut rows: Vec<_> = rows.into_iter().map(|row| (row.fairness_id, row.tokens)).collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_follower_is_told_the_totals_that_changed() {
        let mut services = Services::default();
        services.add(vec![("a".into(), 5), ("b".into(), 7)], 1);
        services.add(vec![("a".into(), 10)], 2);
        assert_eq!(told(&services, 0, 2), [("a".to_owned(), 15), ("b".to_owned(), 7)]);
        assert_eq!(told(&services, 1, 2), [("a".to_owned(), 15)]);
        assert_eq!(told(&services, 2, 2), []);
    }

    #[test]
    fn a_peer_counts_what_was_served_since_its_last_word_also_over_a_lost_connection() {
        let mut fleet = Fleet::new(1);
        let mut say = |link, sequence, tokens: u64| {
            let services = vec![ServiceRow { fairness_id: "a".to_owned(), tokens }];
            let snapshot = sequence == 1;
            let update = Update { version: 1, epoch: 5, sequence, snapshot, services, ..Update::default() };
            let mut effects = Effects::default();
            fleet.apply(link, update, &mut effects).unwrap();
            if tokens == 30 {
                fleet.end(link, &mut effects);
            }
            effects.services.iter().map(|(_, tokens)| *tokens).sum::<u64>()
        };
        assert_eq!(say(1, 1, 10), 0, "what was served before is no news");
        assert_eq!(say(1, 2, 25), 15);
        assert_eq!(say(1, 3, 30), 5);
        assert_eq!(say(2, 1, 50), 20, "the difference over the gap");
        assert_eq!(say(2, 2, 4), 4, "a total that fell has begun anew");
    }

    #[test]
    fn a_flood_of_programs_is_bounded_and_told_in_parts() {
        let mut services = Services::default();
        for number in 0..40_000_u64 {
            services.add(vec![(number.to_string().into(), 1)], number + 1);
        }
        assert!(services.totals.len() <= PROGRAMS && services.changes.len() <= 2 * PROGRAMS);
        let (mut from, mut seen) = (0, 0);
        loop {
            let (rows, next, more) = services.since(from, 40_000);
            assert!(rows.len() <= ROWS);
            seen += rows.len();
            from = next;
            if !more {
                break;
            }
        }
        assert_eq!((seen, from), (PROGRAMS, 40_000));
    }
}
