//! The rules by which replicas share one Lease and elect a leader. Pure; the times of other machines' clocks are never
//! compared with ours.
//!
//! The rules are those of the elector in Kubernetes' Go client, so that its replicas and ours respect each other: a
//! lease is taken when nobody holds it, or when it has not changed for its whole duration as seen by our own clock.

use std::time::{Duration, Instant};

/// The content of the Lease object, without times of day: those are for people, and the shell writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The holder; empty if nobody holds the lease.
    pub(super) holder: String,
    /// How long the lease holds after each renewal.
    pub(super) duration: Duration,
    /// Number of times that the lease has changed hands.
    pub(super) transitions: i32,
    /// The object's version: every renewal changes it.
    pub(super) version: String,
}

/// The next action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no Lease yet: make it.
    Create,
    /// Take it from nobody, or from somebody whose time is up.
    Take {
        /// The count for the new record.
        transitions: i32,
    },
    /// Renew the lease, which this replica holds.
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
    /// The record as it was read last is of somebody who has stopped leading since.
    ended: bool,
    renewed: Option<Instant>,
}

impl Elector {
    /// The replica called `me`. A leader that has not been able to renew for `renew_deadline` stops leading.
    pub(super) fn new(me: String, renew_deadline: Duration) -> Self {
        Self { me, renew_deadline, observed: None, ended: false, renewed: None }
    }

    /// The Lease was read; `None` if there is none.
    pub(super) fn step(&mut self, lease: Option<Record>, now: Instant) -> Step {
        let Some(record) = lease else {
            self.observed = None;
            self.ended = false;
            return Step::Create;
        };
        let seen = match &self.observed {
            // It has not moved since: the time it was first seen like this counts.
            Some((known, since)) if known.version == record.version => *since,
            _ => {
                self.ended = false;
                now
            }
        };
        let expires = seen + record.duration;
        let step = if record.holder == self.me {
            Step::Renew
        } else if record.holder.is_empty() || expires <= now || self.ended {
            Step::Take { transitions: record.transitions.saturating_add(1) }
        } else {
            Step::Wait(expires)
        };
        self.observed = Some((record, seen));
        step
    }

    /// The holder of the lease that was read last has certainly stopped leading since that read. Its lease may be taken
    /// at once, unless it changes before: the holder leads again then.
    pub(super) fn ended(&mut self) {
        self.ended = self.observed.is_some();
    }

    /// The lease was written at `at`, in our name.
    pub(super) fn wrote(&mut self, at: Instant) {
        self.renewed = Some(at);
        self.observed = None;
        self.ended = false;
    }

    /// Notes that another replica holds the lease, or that this one gave it back.
    pub(super) fn gave_up(&mut self) {
        self.renewed = None;
    }

    /// The time at which the right to lead ends unless it is renewed; `None` without that right.
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
    fn a_holder_that_has_stopped_leading_is_replaced_at_once_unless_it_renews_after_all() {
        let mut elector = Elector::new("me".into(), DEADLINE);
        let start = Instant::now();
        elector.ended();
        assert_eq!(elector.step(Some(record("other", 1)), start), Step::Wait(start + LEASE), "not read yet");
        elector.ended();
        assert_eq!(elector.step(Some(record("other", 2)), start), Step::Wait(start + LEASE), "it renewed");
        assert_eq!(elector.step(Some(record("other", 2)), start), Step::Wait(start + LEASE));
        elector.ended();
        assert_eq!(elector.step(Some(record("other", 2)), start), Step::Take { transitions: 4 });
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

    /// Replicas and the API server. Reading the Lease, deciding and writing it are steps of their own, between which
    /// others may act.
    struct Play {
        now: Instant,
        lease: Option<Record>,
        writes: u32,
        conflicts: u32,
        /// The server refuses a write whose version is not the Lease's.
        versions_checked: bool,
        replicas: Vec<Replica>,
    }

    struct Replica {
        elector: Elector,
        plan: Plan,
    }

    /// The next action of a replica.
    enum Plan {
        Read,
        /// The replica has read this record, and decides.
        Decide(Option<Record>),
        /// The replica writes over the version that it read. Its right to lead counts from the time of the decision.
        Write {
            over: Option<String>,
            record: Record,
            decided: Instant,
        },
    }

    impl Play {
        fn new(replicas: usize, versions_checked: bool) -> Self {
            let replica =
                |number| Replica { elector: Elector::new(format!("r{number}"), DEADLINE), plan: Plan::Read };
            let replicas = (0..replicas).map(replica).collect();
            Self { now: Instant::now(), lease: None, writes: 100, conflicts: 0, versions_checked, replicas }
        }

        /// One replica takes one step. `heard`: it gets the answer; `release`: it would rather give the lease back.
        fn step(&mut self, who: usize, heard: bool, release: bool) {
            let now = self.now;
            let Replica { elector, plan } = &mut self.replicas[who];
            *plan = match std::mem::replace(plan, Plan::Read) {
                Plan::Read if heard => Plan::Decide(self.lease.clone()),
                Plan::Read => Plan::Read,
                Plan::Decide(found) => {
                    let over = found.as_ref().map(|record| record.version.clone());
                    let before = found.as_ref().map_or(0, |record| record.transitions);
                    let transitions = match elector.step(found, now) {
                        Step::Create => Some(0),
                        Step::Take { transitions } => Some(transitions),
                        Step::Renew => Some(before),
                        Step::Wait(_) => None,
                    };
                    let holder = if release { String::new() } else { elector.me.clone() };
                    let record =
                        |transitions| Record { holder, duration: LEASE, transitions, ..Record::default() };
                    if let Some(record) = transitions.map(record) {
                        Plan::Write { over, record, decided: now }
                    } else {
                        elector.gave_up();
                        Plan::Read
                    }
                }
                Plan::Write { over, mut record, decided } => {
                    if self.versions_checked
                        && self.lease.as_ref().map(|lease| &lease.version) != over.as_ref()
                    {
                        self.conflicts += 1;
                    } else {
                        self.writes += 1;
                        record.version = self.writes.to_string();
                        if record.holder.is_empty() {
                            elector.gave_up();
                        } else if heard {
                            elector.wrote(decided);
                        }
                        self.lease = Some(record);
                    }
                    Plan::Read
                }
            };
        }

        fn leaders(&self) -> usize {
            self.replicas.iter().filter(|replica| replica.elector.leads(self.now)).count()
        }
    }

    /// Two replicas read, decide and write in turn; how many lead then, and how many writes were refused.
    fn side_by_side(versions_checked: bool, lease: Option<Record>) -> (usize, u32) {
        let mut play = Play::new(2, versions_checked);
        play.lease = lease;
        for replica in &mut play.replicas {
            // Both have known the lease for as long as it lasts.
            replica.elector.step(play.lease.clone(), play.now);
        }
        play.now += LEASE;
        for _ in 0..3 {
            (0..2).for_each(|who| play.step(who, true, false));
        }
        (play.leaders(), play.conflicts)
    }

    #[test]
    fn of_two_replicas_that_read_the_same_lease_only_the_first_to_write_leads() {
        for lease in [None, Some(record("", 1)), Some(record("gone", 1))] {
            assert_eq!(side_by_side(true, lease.clone()), (1, 1), "{lease:?}");
            assert_eq!(
                side_by_side(false, lease.clone()),
                (2, 0),
                "without versions nothing would stop the other: {lease:?}"
            );
        }
    }

    proptest::proptest! {
        /// Replicas that read, decide and write at any times against one Lease with versions checked, and do not hear
        /// every answer: never do two lead at once.
        #[test]
        fn there_is_never_more_than_one_leader(
            steps in proptest::collection::vec((0usize..3, 0u64..6_000, proptest::bool::weighted(0.8), proptest::bool::weighted(0.1)), 1..600)
        ) {
            let mut play = Play::new(3, true);
            for (who, wait, heard, release) in steps {
                play.now += Duration::from_millis(wait);
                play.step(who, heard, release);
                let leaders = play.leaders();
                proptest::prop_assert!(leaders <= 1, "{} leaders", leaders);
            }
        }
    }

    #[test]
    fn replicas_get_in_each_others_way_and_still_one_leads_most_of_the_time() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut play = Play::new(3, true);
        let (mut led, rounds) = (0, 20_000);
        for _ in 0..rounds {
            play.now += Duration::from_millis(random.u64(0..400));
            play.step(random.usize(0..3), random.f64() < 0.95, random.f64() < 0.01);
            assert!(play.leaders() <= 1);
            led += play.leaders();
        }
        assert!(play.conflicts > 20, "only {} conflicts", play.conflicts);
        assert!(led > rounds / 2, "led in {led} of {rounds} rounds");
    }
}
