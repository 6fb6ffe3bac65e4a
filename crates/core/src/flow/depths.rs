//! Finds the waiting flow with the best score, for fairness by turns.
//!
//! The score of a flow is `turn + weight * seconds that its first request has waited`. All scores grow by the same
//! amount as time passes. The order of the flows is therefore that of `turn - weight * head`, where `head` is the time
//! at which the first request began to wait; the present time cancels out. The flows are kept sorted by that number. A
//! change costs O(log n), and reading the best flow costs nothing.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::ordering::Nanos;

/// The waiting flows of one band, by flow slot.
#[derive(Debug)]
pub(super) struct Depths {
    /// The turns that one second of waiting is worth.
    time_weight: f64,
    order: BTreeSet<Standing>,
    by_flow: Vec<Option<Standing>>,
}

/// One flow in the sorted order, in which the best flow is first.
#[derive(Clone, Copy, Debug)]
struct Standing {
    score: f64,
    turn: f64,
    head: Nanos,
    flow: u32,
}

impl Ord for Standing {
    /// The higher score is first. Of equal scores, the flow whose first request waits longest is first.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then_with(|| self.head.cmp(&other.head))
            .then_with(|| self.flow.cmp(&other.flow))
    }
}

impl PartialOrd for Standing {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Standing {}

impl Depths {
    /// `time_weight` must be finite and at least 0.
    pub(super) fn new(time_weight: f64) -> Self {
        Self { time_weight, order: BTreeSet::new(), by_flow: Vec::new() }
    }

    /// Sets the place of `flow`, whose first request has waited since `head` and is request number `turn` of its
    /// session.
    pub(super) fn set(&mut self, flow: u32, head: Nanos, turn: f64) {
        self.clear(flow);
        let score = turn - self.time_weight * (head as f64 / 1e9);
        let standing = Standing { score, turn, head, flow };
        if self.by_flow.len() <= flow as usize {
            self.by_flow.resize(flow as usize + 1, None);
        }
        if let Some(place) = self.by_flow.get_mut(flow as usize) {
            *place = Some(standing);
            self.order.insert(standing);
        }
    }

    fn standing(&self, flow: u32) -> Option<Standing> {
        self.by_flow.get(flow as usize).copied().flatten()
    }

    pub(super) fn set_head(&mut self, flow: u32, head: Nanos) {
        if let Some(standing) = self.standing(flow) {
            self.set(flow, head, standing.turn);
        }
    }

    /// Changes the turn of a flow that waits.
    pub(super) fn set_turn(&mut self, flow: u32, turn: f64) {
        if let Some(standing) = self.standing(flow) {
            self.set(flow, standing.head, turn);
        }
    }

    /// The number, from 1, that the first request of a flow has in its session.
    pub(super) fn turn(&self, flow: u32) -> Option<f64> {
        self.standing(flow).map(|standing| standing.turn)
    }

    pub(super) fn clear(&mut self, flow: u32) {
        let place = self.by_flow.get_mut(flow as usize);
        if let Some(standing) = place.and_then(Option::take) {
            self.order.remove(&standing);
        }
    }

    /// The flow with the highest score.
    pub(super) fn best(&self) -> Option<u32> {
        self.order.first().map(|standing| standing.flow)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn the_deeper_session_goes_first_until_the_other_has_waited_long_enough() {
        let mut depths = Depths::new(0.05);
        depths.set(0, 0, 1.0);
        // A turn is worth 20 seconds of waiting. A session that came 41 seconds later must therefore be three turns
        // deeper.
        depths.set(1, 39 * SECOND, 3.0);
        assert_eq!(depths.best(), Some(1));
        depths.set_head(1, 41 * SECOND);
        assert_eq!(depths.best(), Some(0));
        depths.set_turn(1, 4.0);
        assert_eq!(depths.best(), Some(1));
        depths.clear(1);
        depths.clear(7);
        assert_eq!(depths.best(), Some(0));
        let turn = |flow| depths.turn(flow).map(|turn| turn as u32);
        assert_eq!((turn(0), turn(1)), (Some(1), None));
    }

    #[test]
    fn equal_scores_go_by_the_longest_wait_and_without_a_weight_depth_alone_counts() {
        let mut depths = Depths::new(0.0);
        depths.set(0, 9, 2.0);
        depths.set(1, 5, 2.0);
        depths.set(2, 1, 1.0);
        assert_eq!(depths.best(), Some(1));
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_scores_at_any_time(
            flows in prop::collection::vec(prop::option::weighted(0.8, (0_u64..100, 1_u32..9)), 1..40),
            weight in 0.0..2.0_f64,
            later in 100_u64..1000,
        ) {
            let mut depths = Depths::new(weight);
            for (flow, state) in flows.iter().enumerate() {
                depths.set(flow as u32, 1, 1.0);
                match state {
                    Some((head, turn)) => {
                        depths.set_turn(flow as u32, f64::from(*turn));
                        depths.set_head(flow as u32, head * SECOND);
                    }
                    None => depths.clear(flow as u32),
                }
            }
            let score = |flow: u32| {
                let (head, turn) = flows[flow as usize].unwrap();
                f64::from(turn) + weight * (later - head) as f64
            };
            let waiting = (0..flows.len() as u32).filter(|flow| flows[*flow as usize].is_some());
            let expected = waiting.map(score).max_by(f64::total_cmp);
            match (depths.best().map(score), expected) {
                (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 1e-9),
                (found, expected) => prop_assert_eq!(found, expected),
            }
        }
    }
}
