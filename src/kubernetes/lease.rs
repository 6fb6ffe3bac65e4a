//! Who leads: the rules by which replicas share one Lease. Pure; the times of other machines' clocks are never compared with ours.
//!
//! The rules are those of the elector in Kubernetes' Go client, so that its replicas and ours respect each other: a lease is taken when nobody
//! holds it, or when it has not changed for its whole duration as seen by our own clock.

use std::time::{Duration, Instant};

/// What the Lease object says. Times of day are for people and are left to the shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Who holds it; empty if nobody does.
    pub(super) holder: String,
    /// How long it holds after each renewal.
    pub(super) duration: Duration,
    /// How often it has changed hands.
    pub(super) transitions: i32,
    /// The object's version: every renewal changes it.
    pub(super) version: String,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no Lease yet: make it.
    Create,
    /// Take it from nobody, or from somebody whose time is up.
    Take {
        /// The count for the new record.
        transitions: i32,
    },
    /// It is ours: say so again.
    Renew,
    /// Somebody else leads; it is not worth looking before this time unless the object changes.
    Wait(Instant),
}

/// One replica's view.
#[derive(Debug)]
pub(super) struct Elector {
    me: String,
    renew_deadline: Duration,
    observed: Option<(Record, Instant)>,
    renewed: Option<Instant>,
}

impl Elector {
    /// The replica called `me`. A leader that has not been able to renew for `renew_deadline` stops leading.
    pub(super) fn new(me: String, renew_deadline: Duration) -> Self {
        Self { me, renew_deadline, observed: None, renewed: None }
    }

    /// The Lease was read; `None` if there is none.
    pub(super) fn step(&mut self, lease: Option<Record>, now: Instant) -> Step {
        let Some(record) = lease else {
            self.observed = None;
            return Step::Create;
        };
        let seen = match &self.observed {
            // It has not moved since: the time it was first seen like this counts.
            Some((known, since)) if known.version == record.version => *since,
            _ => now,
        };
        let expires = seen + record.duration;
        let step = if record.holder == self.me {
            Step::Renew
        } else if record.holder.is_empty() || expires <= now {
            Step::Take { transitions: record.transitions.saturating_add(1) }
        } else {
            Step::Wait(expires)
        };
        self.observed = Some((record, seen));
        step
    }

    /// The lease was written at `at`, in our name.
    pub(super) fn wrote(&mut self, at: Instant) {
        self.renewed = Some(at);
        self.observed = None;
    }

    /// It is somebody else's, or was given back.
    pub(super) fn gave_up(&mut self) {
        self.renewed = None;
    }

    /// When the right to lead ends unless it is renewed; `None` if there is none.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|at| at + self.renew_deadline)
    }

    /// True while the lease is ours for certain. The time of a renewal is that before it was sent.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.saturating_duration_since(at) < self.renew_deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);
    const DEADLINE: Duration = Duration::from_secs(10);

    fn record(holder: &str, version: u32) -> Record {
        Record { holder: holder.into(), duration: LEASE, transitions: 3, version: version.to_string() }
    }

    #[test]
    fn a_lease_that_does_not_exist_is_made_and_an_abandoned_one_taken_at_once() {
        let mut elector = Elector::new("me".into(), DEADLINE);
        let now = Instant::now();
        assert_eq!(elector.step(None, now), Step::Create);
        assert_eq!(elector.step(Some(record("", 1)), now), Step::Take { transitions: 4 });
        assert_eq!(
            elector.step(Some(record("me", 2)), now),
            Step::Renew,
            "also after a restart under the same name"
        );
    }

    #[test]
    fn a_silent_holder_is_replaced_after_the_whole_duration_by_our_clock() {
        let mut elector = Elector::new("me".into(), DEADLINE);
        let start = Instant::now();
        assert_eq!(elector.step(Some(record("other", 1)), start), Step::Wait(start + LEASE));
        let later = start + Duration::from_secs(14);
        assert_eq!(elector.step(Some(record("other", 1)), later), Step::Wait(start + LEASE));
        assert_eq!(elector.step(Some(record("other", 1)), start + LEASE), Step::Take { transitions: 4 });
    }

    #[test]
    fn a_holder_that_renews_is_left_alone() {
        let mut elector = Elector::new("me".into(), DEADLINE);
        let start = Instant::now();
        for beat in 0..100 {
            let now = start + Duration::from_secs(2 * beat);
            assert_eq!(elector.step(Some(record("other", beat as u32)), now), Step::Wait(now + LEASE));
        }
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_may_begin() {
        let mut elector = Elector::new("me".into(), DEADLINE);
        let start = Instant::now();
        assert!(!elector.leads(start));
        elector.wrote(start);
        assert!(elector.leads(start + Duration::from_millis(9_999)));
        assert!(!elector.leads(start + DEADLINE));
        assert!(DEADLINE < LEASE);
        elector.wrote(start + DEADLINE);
        elector.gave_up();
        assert!(!elector.leads(start + DEADLINE));
    }

    proptest::proptest! {
        /// Replicas that step at any times against one Lease with versions checked: never do two lead at once.
        #[test]
        fn there_is_never_more_than_one_leader(
            steps in proptest::collection::vec((0usize..3, 0u64..6_000, proptest::bool::weighted(0.8), proptest::bool::weighted(0.1)), 1..300)
        ) {
            let mut now = Instant::now();
            let mut electors: Vec<Elector> =
                (0..3).map(|number| Elector::new(format!("r{number}"), DEADLINE)).collect();
            let mut lease: Option<Record> = None;
            let mut version = 0u32;
            for (who, wait, reachable, release) in steps {
                now += Duration::from_millis(wait);
                if reachable {
                    let elector = &mut electors[who];
                    let me = elector.me.clone();
                    let write = match elector.step(lease.clone(), now) {
                        Step::Create => Some(0),
                        Step::Take { transitions } => Some(transitions),
                        Step::Renew => Some(lease.as_ref().map_or(0, |record| record.transitions)),
                        Step::Wait(_) => {
                            elector.gave_up();
                            None
                        }
                    };
                    if let Some(transitions) = write {
                        version += 1;
                        let holder = if release { String::new() } else { me };
                        lease = Some(Record { holder, duration: LEASE, transitions, version: version.to_string() });
                        if release { elector.gave_up() } else { elector.wrote(now) }
                    }
                }
                let leaders = electors.iter().filter(|elector| elector.leads(now)).count();
                proptest::prop_assert!(leaders <= 1, "{} leaders", leaders);
            }
        }
    }
}
