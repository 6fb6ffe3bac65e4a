//! Turns checks of computed tokens into a state, with hysteresis.
//!
//! | from | to | when |
//! |---|---|---|
//! | unknown | exact | 20 checks in a row hold |
//! | unknown, exact | suspect | a count differs, or 3 of the last 100 other checks do |
//! | suspect | off | 3 more checks differ |
//! | suspect | exact | 200 checks in a row hold |
//! | off | suspect | the pause is over, 20 checks in a row hold, and so do 3 of each server that was at fault |
//!
//! After the state off, one check that differs leads back to off, and the pause is twice as long.

use std::time::{Duration, Instant};

/// The number of checks in a row that must hold to turn unknown into exact, or to end the state off.
const PROVEN: u32 = 20;
/// The number of checks in a row that must hold to turn suspect into exact.
const CLEARED: u32 = 200;
/// The number of checks that differ, from the first suspicion on, at which the state becomes off.
const STRIKES: u32 = 4;
/// The number of checks in a row that must hold for a server that was at fault, before the state off ends.
const AMENDS: u32 = 3;
/// Of the last `WINDOW` checks of the weaker kinds, `WINDOW_STRIKES` must differ to count as one difference.
const WINDOW: u32 = 100;
const WINDOW_STRIKES: u32 = 3;
/// The most servers at fault that are remembered.
const MAX_CULPRITS: usize = 64;
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// How far the tokens that are computed for a prompt are known to equal those of the model servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProofState {
    /// Too few checks were made.
    #[default]
    Unknown,
    /// The tokens equal those of the servers.
    Exact,
    /// Some checks differed lately.
    Suspect,
    /// The tokens differ, so no decision uses them.
    Off,
}

impl ProofState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Exact, Self::Suspect, Self::Off];

    /// The name of the state in metrics and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Exact => "exact",
            Self::Suspect => "suspect",
            Self::Off => "off",
        }
    }
}

/// A comparison of computed tokens with an answer or an event of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// `usage.prompt_tokens` is compared with the number of computed tokens.
    Count,
    /// The blocks that the engine announced after the request are compared with those of the computed tokens.
    Events,
    /// `cached_tokens` is compared with the number of tokens that the index expected to be cached.
    Hit,
}

impl Check {
    /// All checks.
    pub const ALL: [Self; 3] = [Self::Count, Self::Events, Self::Hit];

    /// The name of the check in metrics and pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Events => "events",
            Self::Hit => "hit",
        }
    }

    /// True if one difference proves that the tokens differ.
    fn is_strong(self) -> bool {
        self == Self::Count
    }
}

/// A change of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: ProofState,
    /// The state now.
    pub to: ProofState,
}

/// The state of one model on one version of its servers.
#[derive(Clone, Debug)]
pub struct Machine {
    state: ProofState,
    /// The number of checks in a row that held.
    clean: u32,
    /// The number of checks that differed since the suspicion began.
    strikes: u32,
    /// The last checks of the weaker kinds, the newest in the lowest bit. A bit is set if its check differed.
    window: u128,
    /// The shortest time in the state off, at first and now, and the time at which the present stay may end.
    first_pause: Duration,
    pause: Duration,
    until: Option<Instant>,
    /// The servers at fault, each with the number of its checks that have held since.
    culprits: Vec<(u64, u32)>,
}

impl Machine {
    /// Makes a machine in the state unknown. `pause` is the shortest time in the state off.
    pub fn new(pause: Duration) -> Self {
        Self {
            state: ProofState::Unknown,
            clean: 0,
            strikes: 0,
            window: 0,
            first_pause: pause,
            pause,
            until: None,
            culprits: Vec::new(),
        }
    }

    /// The present state.
    pub fn state(&self) -> ProofState {
        self.state
    }

    /// Notes that a check of an answer of `server` held. Returns the change of the state, if there is one.
    pub fn held(&mut self, check: Check, server: u64, now: Instant) -> Option<Change> {
        if !check.is_strong() {
            self.window <<= 1;
        }
        // A check of this kind always holds where nothing is cached, so it proves little and does not count.
        if check == Check::Hit {
            return None;
        }
        self.clean = self.clean.saturating_add(1);
        if let Some((_, amends)) = self.culprits.iter_mut().find(|(culprit, _)| *culprit == server) {
            *amends = amends.saturating_add(1);
        }
        match self.state {
            ProofState::Unknown if self.clean >= PROVEN => self.become_exact(),
            ProofState::Suspect if self.clean >= CLEARED => self.become_exact(),
            ProofState::Off => self.reprieve(now),
            _ => None,
        }
    }

    /// Notes that a check of an answer of `server` differed. Returns the change of the state, if there is one.
    pub fn differed(&mut self, check: Check, server: u64, now: Instant) -> Option<Change> {
        self.culprits.retain(|(culprit, _)| *culprit != server);
        if self.culprits.len() < MAX_CULPRITS {
            self.culprits.push((server, 0));
        }
        let counts = match self.state {
            ProofState::Suspect | ProofState::Off => true,
            _ if check.is_strong() => true,
            _ => {
                self.window = self.window << 1 | 1;
                let recent = self.window & ((1 << WINDOW) - 1);
                recent.count_ones() >= WINDOW_STRIKES
            }
        };
        if !counts {
            return None;
        }
        self.clean = 0;
        self.window = 0;
        match self.state {
            ProofState::Unknown | ProofState::Exact => {
                self.strikes = 1;
                self.turn(ProofState::Suspect)
            }
            ProofState::Suspect => {
                self.strikes += 1;
                if self.strikes < STRIKES {
                    return None;
                }
                self.until = now.checked_add(self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE).max(self.first_pause);
                self.turn(ProofState::Off)
            }
            ProofState::Off => None,
        }
    }

    /// Forgets the faults of servers for which `is_there` is false.
    pub fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.culprits.retain(|(server, _)| is_there(*server));
    }

    fn become_exact(&mut self) -> Option<Change> {
        self.pause = self.first_pause;
        self.strikes = 0;
        self.culprits.clear();
        self.turn(ProofState::Exact)
    }

    /// Ends the state off if the pause is over, enough checks held, and every server at fault made amends.
    fn reprieve(&mut self, now: Instant) -> Option<Change> {
        let over = self.until.is_some_and(|until| now >= until);
        let amended = self.culprits.iter().all(|(_, amends)| *amends >= AMENDS);
        if !over || !amended || self.clean < PROVEN {
            return None;
        }
        self.strikes = STRIKES - 1;
        self.clean = 0;
        self.turn(ProofState::Suspect)
    }

    fn turn(&mut self, to: ProofState) -> Option<Change> {
        let from = std::mem::replace(&mut self.state, to);
        (from != to).then_some(Change { from, to })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn machine() -> (Machine, Instant) {
        (Machine::new(PAUSE), Instant::now())
    }

    fn hold(machine: &mut Machine, times: u32, server: u64, now: Instant) {
        for _ in 0..times {
            machine.held(Check::Count, server, now);
        }
    }

    #[test]
    fn twenty_checks_that_hold_make_a_state_exact() {
        let (mut machine, now) = machine();
        hold(&mut machine, PROVEN - 1, 1, now);
        assert_eq!(machine.state(), ProofState::Unknown);
        let change = machine.held(Check::Count, 1, now);
        assert_eq!(change, Some(Change { from: ProofState::Unknown, to: ProofState::Exact }));
    }

    #[test]
    fn a_server_with_another_template_ends_the_use_within_four_answers_of_its_own() {
        let (mut machine, now) = machine();
        hold(&mut machine, PROVEN, 1, now);
        for answers in 1..=4 {
            // Another server still gives the right answers.
            hold(&mut machine, 2, 1, now);
            machine.differed(Check::Count, 2, now);
            let expected = if answers < 4 { ProofState::Suspect } else { ProofState::Off };
            assert_eq!(machine.state(), expected, "{answers}");
        }
    }

    #[test]
    fn off_ends_when_the_pause_is_over_and_the_server_at_fault_is_right_again() {
        let (mut machine, now) = machine();
        for _ in 0..STRIKES {
            machine.differed(Check::Count, 2, now);
        }
        let later = now + PAUSE;
        hold(&mut machine, 100, 1, later);
        assert_eq!(machine.state(), ProofState::Off, "the one at fault said nothing yet");
        hold(&mut machine, AMENDS, 2, now + PAUSE / 2);
        assert_eq!(machine.state(), ProofState::Off, "the pause is not over");
        hold(&mut machine, 1, 1, later);
        assert_eq!(machine.state(), ProofState::Suspect);
        // The second stay in the state off is longer.
        machine.differed(Check::Events, 2, later);
        assert_eq!(machine.state(), ProofState::Off);
        machine.retain(|server| server != 2);
        hold(&mut machine, 100, 1, later + PAUSE);
        assert_eq!(machine.state(), ProofState::Off);
        hold(&mut machine, 1, 1, later + PAUSE * 2);
        assert_eq!(machine.state(), ProofState::Suspect);
        hold(&mut machine, CLEARED, 1, later + PAUSE * 2);
        assert_eq!(machine.state(), ProofState::Exact);
    }

    #[test]
    fn a_few_predictions_of_the_cache_may_miss() {
        let (mut machine, now) = machine();
        hold(&mut machine, PROVEN, 1, now);
        for _ in 0..10 {
            machine.differed(Check::Hit, 1, now);
            for _ in 0..WINDOW / 2 {
                machine.held(Check::Hit, 1, now);
            }
        }
        assert_eq!(machine.state(), ProofState::Exact, "two of a hundred");
        machine.differed(Check::Hit, 1, now);
        machine.differed(Check::Events, 1, now);
        machine.differed(Check::Hit, 1, now);
        assert_eq!(machine.state(), ProofState::Suspect);
    }

    proptest! {
        #[test]
        fn no_state_is_exact_without_checks_that_hold_and_none_off_without_four_that_differ(
            steps in prop::collection::vec((0usize..3, any::<bool>(), 0u64..4, 0u64..100), 0..600),
        ) {
            let (mut machine, mut now) = machine();
            let (mut clean, mut differed) = (0, 0);
            for (check, holds, server, seconds) in steps {
                now += Duration::from_secs(seconds);
                let check = Check::ALL[check];
                let before = machine.state();
                if holds {
                    machine.held(check, server, now);
                    clean += u32::from(check != Check::Hit);
                } else {
                    machine.differed(check, server, now);
                    differed += 1;
                    if check == Check::Count {
                        prop_assert_ne!(machine.state(), ProofState::Exact);
                    }
                }
                if before != ProofState::Exact && machine.state() == ProofState::Exact {
                    prop_assert!(clean >= PROVEN);
                    clean = 0;
                }
                if before != ProofState::Off && machine.state() == ProofState::Off {
                    prop_assert!(differed >= 1);
                }
                prop_assert!(machine.culprits.len() <= MAX_CULPRITS);
            }
        }
    }
}
