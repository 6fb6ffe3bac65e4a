//! A window: the requests that come while it is open, and where they were placed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::placing::{Member, PlacingRules, Replica, place};
use crate::scheduling::Candidates;

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
    Gathering(Vec<Option<Member>>),
    /// The incarnation of the endpoint of each.
    Placed(Vec<Option<u64>>),
}

impl Window {
    pub(super) fn new(closes: Instant) -> Self {
        Self { closes, stage: Mutex::new(Stage::Gathering(Vec::new())) }
    }

    /// Number of requests that came.
    pub(super) fn len(&self) -> usize {
        match &*self.stage.lock() {
            Stage::Gathering(members) => members.len(),
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
    pub(super) fn take(window: Arc<Window>, owner: &Arc<Owner>, member: Member, most: usize) -> Option<Self> {
        let blocks = member.blocks();
        let number = match &mut *window.stage.lock() {
            Stage::Gathering(members) if members.len() < most => {
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
        if let Stage::Gathering(members) = &*stage {
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
            Stage::Gathering(_) => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Stage::Gathering(members) = &mut *self.window.stage.lock()
            && let Some(member) = members.get_mut(self.number)
        {
            *member = None;
        }
    }
}
