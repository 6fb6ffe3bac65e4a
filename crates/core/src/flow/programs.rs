//! The service that each program got, for program-aware fairness. The account of a program goes when the program has
//! been idle for too long.

use std::sync::Arc;

use super::accounts::{Accounts, Forgotten, Idleness};
use super::ordering::Nanos;
use super::settings::ProgramAware;

/// The number of half-lives after which the accounts are scaled down, so that the numbers stay finite.
const RESCALE_AFTER: f64 = 256.0;

/// The service of each program. All amounts are stored as if they were measured at `origin`: instead of shrinking old
/// service as time passes, new service is stored larger.
#[derive(Debug)]
pub(super) struct Programs {
    parameters: ProgramAware,
    origin: Nanos,
    accounts: Accounts<Attained>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Attained {
    service: f64,
    /// The origin that `service` is measured from.
    origin: Nanos,
}

/// The changes that a call made to other accounts than that of its own program.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Aside {
    /// The factor by which all amounts are to be multiplied, if they were rescaled.
    pub(super) factor: Option<f64>,
    /// The programs whose accounts were dropped.
    pub(super) forgotten: Forgotten,
}

impl Programs {
    pub(super) fn new(parameters: ProgramAware) -> Self {
        let idleness = Idleness { ttl: parameters.eviction_ttl, sweep: parameters.eviction_sweep };
        Self { parameters, origin: 0, accounts: Accounts::new(idleness) }
    }

    pub(super) fn parameters(&self) -> &ProgramAware {
        &self.parameters
    }

    /// The service of a program. The number is comparable only with that of other programs.
    pub(super) fn service(&self, id: &str) -> f64 {
        self.accounts.get(id).map_or(0.0, |attained| attained.service * self.decay(attained.origin))
    }

    /// Adds `tokens` to the account of a program.
    pub(super) fn add(&mut self, id: &Arc<str>, tokens: f64, now: Nanos) -> Aside {
        let mut aside = Aside { factor: self.rescale(now), ..Aside::default() };
        self.accounts.sweep(now, &mut aside.forgotten);
        let amount = tokens * self.half_lives(self.origin, now).exp2();
        let (origin, service) = (self.origin, self.service(id) + amount);
        self.accounts
            .touch(id, now, &mut aside.forgotten, |attained| *attained = Attained { service, origin });
        aside
    }

    fn half_lives(&self, since: Nanos, now: Nanos) -> f64 {
        let Some(half_life) = self.parameters.half_life else { return 0.0 };
        now.saturating_sub(since) as f64 / (half_life.as_nanos() as f64).max(1.0)
    }

    /// The present worth of an amount that was measured from `origin`.
    fn decay(&self, origin: Nanos) -> f64 {
        if origin == self.origin { 1.0 } else { (-self.half_lives(origin, self.origin)).exp2() }
    }

    /// Begins a new origin. An account is converted to the new origin when it is next used.
    fn rescale(&mut self, now: Nanos) -> Option<f64> {
        let passed = self.half_lives(self.origin, now);
        (passed >= RESCALE_AFTER).then(|| {
            self.origin = now;
            (-passed).exp2()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::accounts::{FORGET_AT_ONCE, PROGRAMS};
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
        // The program that was served lately keeps its account.
        programs.add(&id(0), 1.0, PROGRAMS as Nanos);
        for number in PROGRAMS..PROGRAMS + 100 {
            let aside = programs.add(&id(number), 1.0, 2 * PROGRAMS as Nanos);
            assert_eq!(aside.forgotten.as_slice(), [id(number - PROGRAMS + 1)]);
        }
        let (used, places, _) = programs.accounts.sizes();
        assert_eq!((used, places), (PROGRAMS, PROGRAMS));
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
        let (used, _, kept) = programs.accounts.sizes();
        assert_eq!((gone, used), (1000, 1));
        assert!((programs.service("busy") - 300.0).abs() < 1e-9);
        assert_eq!(kept, "busy".len(), "no id outlives its account");
    }
}
