//! What each program was served, for program-aware fairness.
//!
//! Programs are named by clients, so their number is bounded: the account that was touched longest ago makes room for a
//! new one, and accounts that were idle for too long go a few at a time. No call looks at all accounts.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::fairness::Ring;
use super::ordering::{Nanos, later};
use super::settings::ProgramAware;

/// Programs that are told apart. With ids of at most 256 bytes their accounts take 24 MB at most.
pub(super) const PROGRAMS: usize = 65_536;

/// Half-lives after which accounts are scaled down, so that numbers stay finite.
const RESCALE_AFTER: f64 = 256.0;

/// Idle accounts that one call forgets at most.
const FORGET_AT_ONCE: usize = 4;

/// Service by program. Amounts are kept as if measured at `origin`: older service is worth less because newer one is
/// written down larger.
#[derive(Debug)]
pub(super) struct Programs {
    parameters: ProgramAware,
    origin: Nanos,
    /// Time at which idle accounts are looked for again.
    next_sweep: Nanos,
    by_id: HashMap<Arc<str>, u32>,
    accounts: Vec<Account>,
    free: Vec<u32>,
    /// Accounts in use, the one that was touched longest ago first.
    by_age: Ring,
}

#[derive(Clone, Debug)]
struct Account {
    id: Arc<str>,
    service: f64,
    /// The origin that `service` is measured from.
    origin: Nanos,
    touched: Nanos,
}

/// Changes of a call beside those of the account that it was made for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Aside {
    /// All amounts are to be multiplied by this.
    pub(super) factor: Option<f64>,
    /// These programs have no account any more.
    pub(super) forgotten: SmallVec<[Arc<str>; FORGET_AT_ONCE]>,
}

impl Programs {
    pub(super) fn new(parameters: ProgramAware) -> Self {
        Self {
            next_sweep: later(0, parameters.eviction_sweep),
            parameters,
            origin: 0,
            by_id: HashMap::new(),
            accounts: Vec::new(),
            free: Vec::new(),
            by_age: Ring::default(),
        }
    }

    pub(super) fn parameters(&self) -> &ProgramAware {
        &self.parameters
    }

    /// Service of a program; comparable with that of other programs only.
    pub(super) fn service(&self, id: &str) -> f64 {
        let account = self.by_id.get(id).and_then(|index| self.accounts.get(*index as usize));
        account.map_or(0.0, |account| account.service * self.decay(account.origin))
    }

    /// Adds `tokens` to a program's account.
    pub(super) fn add(&mut self, id: &Arc<str>, tokens: f64, now: Nanos) -> Aside {
        let mut aside = Aside { factor: self.rescale(now), ..Aside::default() };
        self.sweep(now, &mut aside);
        let amount = tokens * self.half_lives(self.origin, now).exp2();
        let known = self.by_id.get(id).copied();
        if let Some(index) = known {
            self.by_age.remove(index);
        }
        let index = known.unwrap_or_else(|| self.open(id, &mut aside));
        self.by_age.append(index);
        let (origin, service) = (self.origin, self.service(id) + amount);
        if let Some(account) = self.accounts.get_mut(index as usize) {
            (account.service, account.origin, account.touched) = (service, origin, now);
        }
        aside
    }

    /// Makes an account, in the place of the oldest one if there is no room.
    fn open(&mut self, id: &Arc<str>, aside: &mut Aside) -> u32 {
        if self.by_id.len() >= PROGRAMS
            && let Some(oldest) = self.by_age.first()
        {
            self.close(oldest, aside);
        }
        let account = Account { id: Arc::clone(id), service: 0.0, origin: self.origin, touched: 0 };
        let index = self.free.pop().unwrap_or(self.accounts.len() as u32);
        match self.accounts.get_mut(index as usize) {
            Some(place) => *place = account,
            None => self.accounts.push(account),
        }
        self.by_id.insert(Arc::clone(id), index);
        index
    }

    fn close(&mut self, index: u32, aside: &mut Aside) {
        self.by_age.remove(index);
        if let Some(account) = self.accounts.get_mut(index as usize) {
            // The id may be long: a place in wait keeps none.
            let id = std::mem::replace(&mut account.id, Arc::from(""));
            self.by_id.remove(&id);
            self.free.push(index);
            aside.forgotten.push(id);
        }
    }

    fn half_lives(&self, since: Nanos, now: Nanos) -> f64 {
        let Some(half_life) = self.parameters.half_life else { return 0.0 };
        now.saturating_sub(since) as f64 / (half_life.as_nanos() as f64).max(1.0)
    }

    /// The present worth of an amount that was measured from `origin`.
    fn decay(&self, origin: Nanos) -> f64 {
        if origin == self.origin { 1.0 } else { (-self.half_lives(origin, self.origin)).exp2() }
    }

    /// Begins a new origin. Accounts follow when they are used.
    fn rescale(&mut self, now: Nanos) -> Option<f64> {
        let passed = self.half_lives(self.origin, now);
        (passed >= RESCALE_AFTER).then(|| {
            self.origin = now;
            (-passed).exp2()
        })
    }

    /// Forgets accounts that were idle for too long, oldest first, a few at a time.
    fn sweep(&mut self, now: Nanos, aside: &mut Aside) {
        let Some(ttl) = self.parameters.eviction_ttl.filter(|_| now >= self.next_sweep) else { return };
        for _ in 0..FORGET_AT_ONCE {
            let oldest = self.by_age.first().filter(|index| {
                self.accounts.get(*index as usize).is_some_and(|account| now >= later(account.touched, ttl))
            });
            let Some(oldest) = oldest else {
                self.next_sweep = later(now, self.parameters.eviction_sweep);
                return;
            };
            self.close(oldest, aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Nanos = 60_000_000_000;

    fn id(number: usize) -> Arc<str> {
        number.to_string().into()
    }

    #[test]
    fn service_halves_every_half_life_and_survives_rescaling() {
        let mut programs = Programs::new(ProgramAware { eviction_ttl: None, ..ProgramAware::default() });
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        programs.add(&a, 100.0, 0);
        programs.add(&b, 60.0, MINUTE);
        assert!(programs.service("a") < programs.service("b"), "100 is worth 50 after a minute");
        let factor = programs.add(&b, 1.0, 400 * MINUTE).factor;
        assert!(factor.is_some_and(|factor| factor > 0.0 && factor < 1e-100), "{factor:?}");
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

    #[test]
    fn a_flood_of_programs_makes_the_oldest_accounts_go_and_tells_which() {
        let mut programs = Programs::new(ProgramAware::default());
        for number in 0..PROGRAMS {
            assert_eq!(programs.add(&id(number), 1.0, number as Nanos), Aside::default());
        }
        // Whoever was served lately stays.
        programs.add(&id(0), 1.0, PROGRAMS as Nanos);
        for number in PROGRAMS..PROGRAMS + 100 {
            let aside = programs.add(&id(number), 1.0, 2 * PROGRAMS as Nanos);
            assert_eq!(aside.forgotten.as_slice(), [id(number - PROGRAMS + 1)]);
        }
        assert_eq!((programs.by_id.len(), programs.accounts.len()), (PROGRAMS, PROGRAMS));
        assert!(programs.service("0") > 1.0 && programs.service("1") == 0.0 && programs.service("101") > 0.0);
    }

    #[test]
    fn idle_programs_go_a_few_at_each_completion_and_all_in_the_end() {
        let mut programs = Programs::new(ProgramAware { half_life: None, ..ProgramAware::default() });
        (0..1000).for_each(|number| drop(programs.add(&id(number), 1.0, 0)));
        let mut gone = 0;
        for call in 0..300 {
            let forgotten = programs.add(&"busy".into(), 1.0, 61 * MINUTE + call).forgotten.len();
            assert!(forgotten <= FORGET_AT_ONCE);
            gone += forgotten;
        }
        assert_eq!((gone, programs.by_id.len()), (1000, 1));
        assert!((programs.service("busy") - 300.0).abs() < 1e-9);
        let kept: usize = programs.accounts.iter().map(|account| account.id.len()).sum();
        assert_eq!(kept, "busy".len(), "no id outlives its account");
    }
}
