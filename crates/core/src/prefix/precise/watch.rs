//! Finding the first token in which an engine's prompt differs from the one that was computed.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Watches of an engine at a time.
const MAX_WATCHES: usize = 16;
/// Tokens of a prompt that are compared.
const MAX_TOKENS: usize = 4096;
/// Tokens that are shown before and behind the one that differs.
const NEIGHBOURS: usize = 2;

/// Where two prompts differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Place of the first token that differs, counted from where the watch begins.
    pub at: usize,
    /// The computed tokens around it.
    pub computed: Vec<u32>,
    /// The engine's tokens around it.
    pub told: Vec<u32>,
}

/// Tokens that an engine should tell of.
#[derive(Debug)]
pub struct Watch {
    /// Key of the block before them.
    parent: u64,
    ids: Box<[u32]>,
    difference: Mutex<Option<Difference>>,
}

impl Watch {
    /// Expects these ids behind the block with this key.
    pub(super) fn new(parent: u64, ids: &[u32]) -> Self {
        let ids = ids.get(..MAX_TOKENS).unwrap_or(ids).into();
        Self { parent, ids, difference: Mutex::new(None) }
    }

    /// Of all that was told instead, what came closest. It may belong to another request.
    pub fn difference(&self) -> Option<Difference> {
        self.difference.lock().clone()
    }

    fn see(&self, told: &[u32]) {
        let same = self.ids.iter().zip(told).take_while(|(ours, theirs)| ours == theirs).count();
        if same >= self.ids.len().min(told.len()) {
            return;
        }
        let mut difference = self.difference.lock();
        if difference.as_ref().is_some_and(|before| before.at >= same) {
            return;
        }
        let around = |ids: &[u32]| {
            let end = (same + NEIGHBOURS + 1).min(ids.len());
            ids.get(same.saturating_sub(NEIGHBOURS)..end).unwrap_or_default().to_vec()
        };
        *difference = Some(Difference { at: same, computed: around(&self.ids), told: around(told) });
    }
}

/// The watches of one engine. One ends when whoever asked for it lets go of it.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Weak<Watch>>);

impl Watches {
    /// False if there are too many.
    pub(super) fn add(&mut self, watch: &Arc<Watch>) -> bool {
        self.0.retain(|watch| watch.strong_count() > 0);
        let fits = self.0.len() < MAX_WATCHES;
        if fits {
            self.0.push(Arc::downgrade(watch));
        }
        fits
    }

    /// The engine tells of these tokens behind the block with this key.
    pub(super) fn see(&self, parent: u64, told: &[u32]) {
        for watch in self.0.iter().filter_map(Weak::upgrade).filter(|watch| watch.parent == parent) {
            watch.see(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_of_what_was_told_shows_where_it_differs() {
        let mut watches = Watches::default();
        let watch = Arc::new(Watch::new(7, &[1, 2, 3, 4, 5, 6]));
        assert!(watches.add(&watch));
        watches.see(8, &[9]);
        watches.see(7, &[1, 2, 3, 4]);
        assert_eq!(watch.difference(), None);
        watches.see(7, &[9, 9, 9, 9]);
        watches.see(7, &[1, 2, 3, 9, 8, 7]);
        watches.see(7, &[1, 9, 9, 9]);
        let expected = Difference { at: 3, computed: vec![2, 3, 4, 5, 6], told: vec![2, 3, 9, 8, 7] };
        assert_eq!(watch.difference(), Some(expected));
    }

    #[test]
    fn watches_are_few_and_end_with_whoever_asked() {
        let mut watches = Watches::default();
        let all: Vec<_> = (0..MAX_WATCHES).map(|_| Arc::new(Watch::new(1, &[1]))).collect();
        assert!(all.iter().all(|watch| watches.add(watch)));
        let one_more = Arc::new(Watch::new(1, &[1]));
        assert!(!watches.add(&one_more));
        drop(all);
        assert!(watches.add(&one_more));
    }
}
