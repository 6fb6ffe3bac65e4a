//! A window: the requests that come while it is open, and where they were placed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::placing::{Member, PlacingRules, Replica, place};
use crate::scheduling::Candidates;

/// Most hashes of blocks that a window compares. Requests beyond it count by whole prompts alone: all are placed in one
/// go, while the others of the window wait for that.
const MOST_COMPARED: usize = 1 << 18;

/// Says whose seats are whose: two instances in one configuration have windows of their own.
#[derive(Debug)]
pub(super) struct Owner;

/// A window. It lives as long as one of its requests.
#[derive(Debug)]
pub(super) struct Window {
    /// When it closes.
    pub(super) closes: Instant,
    stage: Mutex<Stage>,
}

#[derive(Debug)]
enum Stage {
    /// Its requests; `None` for one whose client has left.
    Gathering {
        members: Vec<Option<Member>>,
        /// Hashes of all of them.
        compared: usize,
    },
    /// The incarnation of the endpoint of each.
    Placed(Vec<Option<u64>>),
}

impl Window {
    pub(super) fn new(closes: Instant) -> Self {
        Self { closes, stage: Mutex::new(Stage::Gathering { members: Vec::new(), compared: 0 }) }
    }

    /// Number of requests that came.
    pub(super) fn len(&self) -> usize {
        match &*self.stage.lock() {
            Stage::Gathering { members, .. } => members.len(),
            Stage::Placed(placed) => placed.len(),
        }
    }
}

/// The place of one request in its window. Dropping it before the window is placed leaves the request out.
#[derive(Debug)]
pub(super) struct Seat {
    window: Arc<Window>,
    owner: Arc<Owner>,
    number: usize,
    blocks: u32,
}

impl Seat {
    /// Takes the next place; `None` if `most` are taken, or the window is placed already.
    pub(super) fn take(
        window: Arc<Window>,
        owner: &Arc<Owner>,
        mut member: Member,
        most: usize,
    ) -> Option<Self> {
        let blocks = member.blocks();
        let number = match &mut *window.stage.lock() {
            Stage::Gathering { members, compared } if members.len() < most => {
                if *compared + member.compared() > MOST_COMPARED {
                    member.compare_whole();
                }
                *compared += member.compared();
                members.push(Some(member));
                members.len() - 1
            }
            _ => return None,
        };
        Some(Self { window, owner: Arc::clone(owner), number, blocks })
    }

    pub(super) fn closes(&self) -> Instant {
        self.window.closes
    }

    /// True if the request waited for a window of this plugin.
    pub(super) fn is_of(&self, owner: &Arc<Owner>) -> bool {
        Arc::ptr_eq(&self.owner, owner)
    }

    /// Blocks of the prompts of the request.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Incarnation of the endpoint at which the request was placed, if it was. The first request that asks places all
    /// requests of its window among its own candidates.
    pub(super) fn placed(&self, candidates: &Candidates, rules: &PlacingRules) -> Option<u64> {
        let mut stage = self.window.stage.lock();
        if let Stage::Gathering { members, .. } = &*stage {
            let replicas: Vec<Replica<'_>> = candidates
                .iter()
                .map(|endpoint| Replica { id: endpoint.id(), running: endpoint.load().running() })
                .collect();
            let chosen = place(members, &replicas, rules);
            let incarnation = |replica: usize| candidates.at(replica as u32).incarnation();
            *stage = Stage::Placed(chosen.into_iter().map(|replica| replica.map(incarnation)).collect());
        }
        match &*stage {
            Stage::Placed(placed) => placed.get(self.number).copied().flatten(),
            Stage::Gathering { .. } => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Stage::Gathering { members, .. } = &mut *self.window.stage.lock()
            && let Some(member) = members.get_mut(self.number)
        {
            *member = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::placing::Balance;
    use super::*;
    use crate::prefix::BlockHashes;

    #[test]
    fn a_window_of_long_prompts_compares_so_many_blocks_and_then_whole_prompts() {
        let rules = PlacingRules { per_replica: 1, min_shared: 1, balance: Balance::Requests };
        let window = Arc::new(Window::new(Instant::now()));
        let owner = Arc::new(Owner);
        let seats: Vec<Seat> = (0..200_u64)
            .map(|number| {
                let hashes: Vec<u64> = (0..2048).map(|block| number << 32 | block).collect();
                let member = Member::new(&BlockHashes::from_chains(64, &[&hashes]), &rules).unwrap();
                Seat::take(Arc::clone(&window), &owner, member, 1000).unwrap()
            })
            .collect();
        let stage = window.stage.lock();
        let Stage::Gathering { members, compared } = &*stage else { panic!("it is placed") };
        let held: usize = members.iter().flatten().map(Member::compared).sum();
        assert_eq!((held, *compared, seats.len()), (MOST_COMPARED, MOST_COMPARED, 200));
    }
}
