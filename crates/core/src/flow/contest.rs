//! Finds the waiting flow with the best score, for program-aware fairness.
//!
//! The score of a flow depends on all other flows through the normalisation, and on time through the wait of its first
//! request. But the normalised wait is `(latest head - head) / (latest head - earliest head)`, in which the present
//! time cancels out. Halving all services together leaves the normalised services unchanged. Each flow is therefore a
//! fixed point (head, service), and a search down a tree of bounds finds the best one (branch and bound). A change
//! costs O(log n). A search costs O(log n) if one flow stands out, and about the square root of n if services and waits
//! are unrelated.

use super::ordering::{NEVER, Nanos};

/// One node of the tree: the smallest and the largest head and service of the flows below it.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    earliest: Nanos,
    latest: Nanos,
    least: f64,
    most: f64,
}

const NOBODY: Extremes =
    Extremes { earliest: NEVER, latest: 0, least: f64::INFINITY, most: f64::NEG_INFINITY };

impl Extremes {
    fn join(self, other: Self) -> Self {
        Self {
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }

    fn is_nobody(self) -> bool {
        self.least > self.most
    }
}

/// The waiting flows of one band, by flow slot.
#[derive(Debug)]
pub(super) struct Contest {
    weight_service: f64,
    weight_wait: f64,
    /// A complete binary tree in an array: the root is at index 1, and the leaves are the second half.
    nodes: Vec<Extremes>,
}

impl Contest {
    pub(super) fn new(weight_service: f64, weight_wait: f64) -> Self {
        Self { weight_service, weight_wait, nodes: vec![NOBODY; 2] }
    }

    fn leaves(&self) -> usize {
        self.nodes.len() / 2
    }

    pub(super) fn set(&mut self, flow: u32, head: Nanos, service: f64) {
        while self.leaves() <= flow as usize {
            self.grow();
        }
        self.put(flow, Extremes { earliest: head, latest: head, least: service, most: service });
    }

    pub(super) fn set_head(&mut self, flow: u32, head: Nanos) {
        if let Some(leaf) = self.nodes.get(self.leaves() + flow as usize) {
            self.put(flow, Extremes { earliest: head, latest: head, ..*leaf });
        }
    }

    pub(super) fn set_service(&mut self, flow: u32, service: f64) {
        if let Some(leaf) = self.nodes.get(self.leaves() + flow as usize)
            && !leaf.is_nobody()
        {
            self.put(flow, Extremes { least: service, most: service, ..*leaf });
        }
    }

    /// Multiplies all services by `factor`.
    pub(super) fn scale(&mut self, factor: f64) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_nobody()) {
            (node.least, node.most) = (node.least * factor, node.most * factor);
        }
    }

    pub(super) fn clear(&mut self, flow: u32) {
        self.put(flow, NOBODY);
    }

    fn put(&mut self, flow: u32, leaf: Extremes) {
        let mut index = self.leaves() + flow as usize;
        if let Some(node) = self.nodes.get_mut(index) {
            *node = leaf;
        }
        while index > 1 {
            index /= 2;
            self.nodes[index] = self.nodes[2 * index].join(self.nodes[2 * index + 1]);
        }
    }

    fn grow(&mut self) {
        let old = self.leaves();
        let mut nodes = vec![NOBODY; 4 * old];
        nodes[2 * old..3 * old].copy_from_slice(&self.nodes[old..]);
        for index in (1..2 * old).rev() {
            nodes[index] = nodes[2 * index].join(nodes[2 * index + 1]);
        }
        self.nodes = nodes;
    }

    /// The flow with the highest score. Of equal scores, the flow whose first request waits longest.
    pub(super) fn best(&self) -> Option<u32> {
        let all = self.nodes[1];
        if all.is_nobody() {
            return None;
        }
        let mut best = (f64::INFINITY, NEVER, None);
        self.descend(1, all, &mut best);
        best.2
    }

    fn descend(&self, index: usize, all: Extremes, best: &mut (f64, Nanos, Option<u32>)) {
        let node = self.nodes[index];
        if node.is_nobody() || (self.cost(node, all), node.earliest) >= (best.0, best.1) {
            return;
        }
        if let Some(flow) = index.checked_sub(self.leaves()) {
            *best = (self.cost(node, all), node.earliest, Some(flow as u32));
            return;
        }
        let (left, right) = (2 * index, 2 * index + 1);
        let left_first = self.cost(self.nodes[left], all) <= self.cost(self.nodes[right], all);
        let (first, second) = if left_first { (left, right) } else { (right, left) };
        self.descend(first, all, best);
        self.descend(second, all, best);
    }

    /// A constant minus the best score that a flow below `node` could have: that of the least service and the earliest
    /// head together. No flow below the node costs less.
    fn cost(&self, node: Extremes, all: Extremes) -> f64 {
        let service =
            if all.most > all.least { (node.least - all.least) / (all.most - all.least) } else { 0.5 };
        let wait = if all.latest > all.earliest {
            all.latest.saturating_sub(node.earliest) as f64 / (all.latest - all.earliest) as f64
        } else {
            0.5
        };
        self.weight_service * service - self.weight_wait * wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn little_service_and_a_long_wait_win() {
        let mut contest = Contest::new(0.8, 0.2);
        contest.set(0, 250, 300.0);
        contest.set(1, 50, 100.0);
        contest.set(2, 150, 200.0);
        assert_eq!(contest.best(), Some(1));
        contest.clear(1);
        assert_eq!(contest.best(), Some(2));
    }

    #[test]
    fn equal_programs_go_by_the_longest_wait() {
        let mut contest = Contest::new(0.8, 0.0);
        (0..9).for_each(|flow| contest.set(flow, u64::from(20 - flow), 7.0));
        assert_eq!(contest.best(), Some(8));
    }

    #[test]
    fn scaling_changes_no_choice() {
        let mut contest = Contest::new(0.8, 0.2);
        (0..5).for_each(|flow| contest.set(flow, u64::from(flow), f64::from((flow * 7) % 5)));
        let best = contest.best();
        contest.scale(2.0_f64.powi(-256));
        assert_eq!(contest.best(), best);
        contest.set_service(3, 0.0);
        assert!(contest.best().is_some());
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_looking_at_all_flows_finds(
            flows in prop::collection::vec(prop::option::weighted(0.8, (0_u64..20, 0_u32..20)), 1..70),
            weight in 0.0..2.0_f64,
        ) {
            let mut contest = Contest::new(weight, 1.0);
            for (flow, state) in flows.iter().enumerate() {
                contest.set(flow as u32, 1, 1.0);
                match state {
                    Some((head, service)) => {
                        contest.set_head(flow as u32, *head);
                        contest.set_service(flow as u32, f64::from(*service));
                    }
                    None => contest.clear(flow as u32),
                }
            }
            let all = contest.nodes[1];
            let cost = |flow: u32| contest.cost(contest.nodes[contest.leaves() + flow as usize], all);
            let waiting = || (0..flows.len() as u32).filter(|flow| flows[*flow as usize].is_some());
            let expected = waiting().map(cost).min_by(f64::total_cmp);
            prop_assert_eq!(contest.best().map(cost), expected);
        }
    }
}
