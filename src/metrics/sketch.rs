//! The busiest of an endless stream of values, in bounded memory: the space-saving sketch of Metwally, Agrawal and El
//! Abbadi.

use hashbrown::HashMap;

/// Values that are followed.
const FOLLOWED: usize = 256;

/// Counts of values that have no label of their own. A value that is not followed takes the place, and the count, of
/// the one with the least.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    counts: HashMap<Box<str>, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    seen: u64,
    /// The count that it took over, which may never have been seen.
    inherited: u64,
}

impl Sketch {
    /// Counts one occurrence.
    pub(super) fn see(&mut self, value: &str) {
        if let Some(count) = self.counts.get_mut(value) {
            count.seen += 1;
            return;
        }
        let mut inherited = 0;
        if self.counts.len() >= FOLLOWED {
            let least = self.counts.iter().min_by_key(|(_, count)| count.seen);
            let Some((least, seen)) = least.map(|(value, count)| (value.clone(), count.seen)) else { return };
            self.counts.remove(&least);
            inherited = seen;
        }
        self.counts.insert(value.into(), Count { seen: inherited + 1, inherited });
    }

    /// The value that was certainly seen most often, and how often at least.
    pub(super) fn busiest(&self) -> Option<(&str, u64)> {
        let sure = self.counts.iter().map(|(value, count)| (&**value, count.seen - count.inherited));
        // Of equals the first by name, so that nothing depends on the order of the map.
        sure.max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(a.0)))
    }

    /// Stops following a value.
    pub(super) fn forget(&mut self, value: &str) {
        self.counts.remove(value);
    }

    /// Halves all counts, so that what was busy long ago fades.
    pub(super) fn fade(&mut self) {
        self.counts.retain(|_, count| {
            count.seen /= 2;
            count.inherited = count.inherited.div_ceil(2).min(count.seen);
            count.seen > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_value_is_found_in_a_flood_of_others() {
        let mut sketch = Sketch::default();
        for index in 0..10_000 {
            sketch.see(&format!("flood-{index}"));
            if index % 20 == 0 {
                sketch.see("busy");
            }
        }
        let (value, count) = sketch.busiest().unwrap();
        assert_eq!(value, "busy");
        assert!((100..=500).contains(&count), "{count}");
        assert!(sketch.counts.len() <= FOLLOWED);
        for _ in 0..20 {
            sketch.fade();
        }
        assert!(sketch.busiest().is_none());
    }
}
