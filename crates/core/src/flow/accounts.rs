//! Accounts of programs, by an id that clients choose.
//!
//! Their number is bounded: the account that was touched longest ago makes room for a new one, and accounts that were
//! idle for too long go a few at a time. No call looks at all accounts.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::fairness::Ring;
use super::ordering::{Nanos, later};

/// Programs that are told apart. With ids of at most 256 bytes their accounts take 24 MB at most.
pub(super) const PROGRAMS: usize = 65_536;

/// Idle accounts that one call forgets at most.
pub(super) const FORGET_AT_ONCE: usize = 4;

/// Ids of programs that have no account any more.
pub(super) type Forgotten = SmallVec<[Arc<str>; FORGET_AT_ONCE]>;

/// When idle accounts go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idleness {
    /// Time after which they go; `None` for never.
    pub(super) ttl: Option<Duration>,
    /// How often they are looked for.
    pub(super) sweep: Duration,
}

/// A `T` for each program.
#[derive(Debug)]
pub(super) struct Accounts<T> {
    idleness: Idleness,
    /// Time at which idle accounts are looked for again.
    next_sweep: Nanos,
    by_id: HashMap<Arc<str>, u32>,
    list: Vec<Account<T>>,
    free: Vec<u32>,
    /// Accounts in use, the one that was touched longest ago first.
    by_age: Ring,
}

#[derive(Clone, Debug)]
struct Account<T> {
    id: Arc<str>,
    value: T,
    touched: Nanos,
}

impl<T: Default> Accounts<T> {
    pub(super) fn new(idleness: Idleness) -> Self {
        Self {
            idleness,
            next_sweep: later(0, idleness.sweep),
            by_id: HashMap::new(),
            list: Vec::new(),
            free: Vec::new(),
            by_age: Ring::default(),
        }
    }

    /// What the account of a program says.
    pub(super) fn get(&self, id: &str) -> Option<&T> {
        let account = self.by_id.get(id).and_then(|index| self.list.get(*index as usize));
        account.map(|account| &account.value)
    }

    /// Changes the account of a program, which is made if there is none, in the place of the oldest one if there is no
    /// room.
    pub(super) fn touch(
        &mut self,
        id: &Arc<str>,
        now: Nanos,
        forgotten: &mut Forgotten,
        change: impl FnOnce(&mut T),
    ) {
        let known = self.by_id.get(id).copied();
        if let Some(index) = known {
            self.by_age.remove(index);
        }
        let index = known.unwrap_or_else(|| self.open(id, forgotten));
        self.by_age.append(index);
        if let Some(account) = self.list.get_mut(index as usize) {
            account.touched = now;
            change(&mut account.value);
        }
    }

    /// Changes the account of a program if it has one, which does not count as a touch.
    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut T)) {
        let index = self.by_id.get(id).copied();
        if let Some(account) = index.and_then(|index| self.list.get_mut(index as usize)) {
            change(&mut account.value);
        }
    }

    fn open(&mut self, id: &Arc<str>, forgotten: &mut Forgotten) -> u32 {
        if self.by_id.len() >= PROGRAMS
            && let Some(oldest) = self.by_age.first()
        {
            self.close(oldest, forgotten);
        }
        let account = Account { id: Arc::clone(id), value: T::default(), touched: 0 };
        let index = self.free.pop().unwrap_or(self.list.len() as u32);
        match self.list.get_mut(index as usize) {
            Some(place) => *place = account,
            None => self.list.push(account),
        }
        self.by_id.insert(Arc::clone(id), index);
        index
    }

    fn close(&mut self, index: u32, forgotten: &mut Forgotten) {
        self.by_age.remove(index);
        if let Some(account) = self.list.get_mut(index as usize) {
            // The id may be long: a place in wait keeps none.
            let id = std::mem::replace(&mut account.id, Arc::from(""));
            self.by_id.remove(&id);
            self.free.push(index);
            forgotten.push(id);
        }
    }

    /// Forgets accounts that were idle for too long, oldest first, a few at a time.
    pub(super) fn sweep(&mut self, now: Nanos, forgotten: &mut Forgotten) {
        let Some(ttl) = self.idleness.ttl.filter(|_| now >= self.next_sweep) else { return };
        for _ in 0..FORGET_AT_ONCE {
            let oldest = self.by_age.first().filter(|index| {
                self.list.get(*index as usize).is_some_and(|account| now >= later(account.touched, ttl))
            });
            let Some(oldest) = oldest else {
                self.next_sweep = later(now, self.idleness.sweep);
                return;
            };
            self.close(oldest, forgotten);
        }
    }

    /// Accounts in use, places for accounts, and bytes of ids that the places keep.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.by_id.len(), self.list.len(), self.list.iter().map(|account| account.id.len()).sum())
    }
}
