//! One value for each program, by an id that clients choose.
//!
//! The number of accounts is bounded. If all are in use, the account that was used longest ago makes room for a new
//! one. Accounts that have been idle for too long are dropped a few at a time. No call looks at all accounts.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::fairness::Ring;
use super::ordering::{Nanos, later};

/// The most programs that are told apart. With ids of at most 256 bytes their accounts take at most 24 MB.
pub(super) const PROGRAMS: usize = 65_536;

/// The most idle accounts that one call drops.
pub(super) const FORGET_AT_ONCE: usize = 4;

/// The ids of the programs whose accounts were dropped.
pub(super) type Forgotten = SmallVec<[Arc<str>; FORGET_AT_ONCE]>;

/// When idle accounts are dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idleness {
    /// The idle time after which an account is dropped; `None` never drops an account.
    pub(super) ttl: Option<Duration>,
    /// The time between two searches for idle accounts.
    pub(super) sweep: Duration,
}

/// A value of type `T` for each program.
#[derive(Debug)]
pub(super) struct Accounts<T> {
    idleness: Idleness,
    /// The time of the next search for idle accounts.
    next_sweep: Nanos,
    by_id: HashMap<Arc<str>, u32>,
    list: Vec<Account<T>>,
    free: Vec<u32>,
    /// The accounts in use, with the account that was used longest ago first.
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

    /// The value of a program's account.
    pub(super) fn get(&self, id: &str) -> Option<&T> {
        let account = self.by_id.get(id).and_then(|index| self.list.get(*index as usize));
        account.map(|account| &account.value)
    }

    /// Changes the value of a program's account. A missing account is made; if there is no room, it takes the place of
    /// the account that was used longest ago.
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

    /// Changes the value of a program's account, if there is one. The call does not count as a use.
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
            // The id may be long, so a free place keeps no id.
            let id = std::mem::replace(&mut account.id, Arc::from(""));
            self.by_id.remove(&id);
            self.free.push(index);
            forgotten.push(id);
        }
    }

    /// Drops accounts that have been idle for too long, a few at a time, beginning with the one that was used longest
    /// ago.
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

    /// The number of accounts in use, the number of places, and the bytes of the ids that the places keep.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.by_id.len(), self.list.len(), self.list.iter().map(|account| account.id.len()).sum())
    }
}
