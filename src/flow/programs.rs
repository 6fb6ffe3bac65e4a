//! Program-aware fairness: what each program was served, and which waiting flow has the best score.
//!
//! The score of a flow depends on all others through the normalisation, and on time through the head's wait. But the wait's normal form is
//! `(latest head - head) / (latest head - earliest head)`, in which now cancels out, and halving all services together leaves theirs
//! unchanged. So a flow is a fixed point (head, service), and the best one is found by descending a tree of bounds. A change costs O(log n);
//! a look costs O(log n) if one flow stands out, and about the square root of n if services and waits are unrelated.

use std::sync::Arc;

use hashbrown::HashMap;

use super::ordering::{NEVER, Nanos};
use super::settings::ProgramAware;

/// Programs that are told apart; further ones share one account.
const PROGRAMS: usize = 65_536;

/// Half-lives after which accounts are scaled down, so that numbers stay finite.
const RESCALE_AFTER: f64 = 256.0;

/// Service by program. Amounts are kept as if measured at `origin`: older service is worth less because newer one is written down larger.
#[derive(Debug)]
pub(super) struct Programs {
    parameters: ProgramAware,
    origin: Nanos,
    next_sweep: Nanos,
    accounts: HashMap<Arc<str>, Account>,
    /// Of all programs beyond [`PROGRAMS`].
    shared: Account,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    service: f64,
    touched: Nanos,
}

impl Programs {
    pub(super) fn new(parameters: ProgramAware) -> Self {
        let next_sweep = super::ordering::later(0, parameters.eviction_sweep);
        Self { parameters, origin: 0, next_sweep, accounts: HashMap::new(), shared: Account::default() }
    }

    pub(super) fn parameters(&self) -> &ProgramAware {
        &self.parameters
    }

    /// Service of a program; comparable with that of other programs only.
    pub(super) fn service(&self, id: &str) -> f64 {
        match self.accounts.get(id) {
            Some(account) => account.service,
            None if self.accounts.len() >= PROGRAMS => self.shared.service,
            None => 0.0,
        }
    }

    /// Adds `tokens` to a program's account. True if other accounts changed, too.
    pub(super) fn add(&mut self, id: &Arc<str>, tokens: f64, now: Nanos) -> bool {
        let rescaled = self.rescale(now);
        let swept = self.sweep(now);
        let amount = tokens * self.worth(now);
        let full = self.accounts.len() >= PROGRAMS && !self.accounts.contains_key(id);
        let account = if full { &mut self.shared } else { self.accounts.entry(Arc::clone(id)).or_default() };
        account.service += amount;
        account.touched = now;
        rescaled || swept || full
    }

    /// How large a token of now is written down.
    fn worth(&self, now: Nanos) -> f64 {
        self.half_lives(now).exp2()
    }

    fn half_lives(&self, now: Nanos) -> f64 {
        let Some(half_life) = self.parameters.half_life else { return 0.0 };
        now.saturating_sub(self.origin) as f64 / (half_life.as_nanos() as f64).max(1.0)
    }

    fn rescale(&mut self, now: Nanos) -> bool {
        let passed = self.half_lives(now);
        if passed < RESCALE_AFTER {
            return false;
        }
        let factor = (-passed).exp2();
        self.accounts.values_mut().for_each(|account| account.service *= factor);
        self.shared.service *= factor;
        self.origin = now;
        true
    }

    fn sweep(&mut self, now: Nanos) -> bool {
        if now < self.next_sweep {
            return false;
        }
        self.next_sweep = super::ordering::later(now, self.parameters.eviction_sweep);
        let Some(ttl) = self.parameters.eviction_ttl else { return false };
        self.accounts.retain(|_, account| now < super::ordering::later(account.touched, ttl));
        true
    }
}

/// One node of the tree: the extremes of the flows below it.
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
    /// A complete binary tree in an array: the root at 1, the leaves in the second half.
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

    /// The flow with the highest score; of equal ones the one whose head waits longest.
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

    /// A constant minus the score that the least service and the earliest head below `node` would have together: no flow there is better.
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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Nanos = 60_000_000_000;

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
    fn service_halves_every_half_life_and_survives_rescaling() {
        let mut programs = Programs::new(ProgramAware { eviction_ttl: None, ..ProgramAware::default() });
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        programs.add(&a, 100.0, 0);
        programs.add(&b, 60.0, MINUTE);
        assert!(programs.service("a") < programs.service("b"), "100 is worth 50 after a minute");
        assert!(programs.add(&b, 1.0, 400 * MINUTE));
        assert!(programs.service("b") >= 1.0 && programs.service("a") >= 0.0);
        assert!(programs.service("a") < 1e-9);
    }

    #[test]
    fn an_idle_program_is_forgotten() {
        let mut programs = Programs::new(ProgramAware {
            half_life: None,
            eviction_ttl: Some(Duration::from_mins(10)),
            ..ProgramAware::default()
        });
        programs.add(&"a".into(), 5.0, 0);
        programs.add(&"b".into(), 5.0, 11 * MINUTE);
        assert_eq!((programs.service("a"), programs.service("b")), (0.0, 5.0));
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
